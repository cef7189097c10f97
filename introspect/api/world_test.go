package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// Domains of the tests.
const (
	webUUID = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"
	dbUUID  = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0002"
)

// Identities of the tests.
var (
	operator = &access.Identity{Name: "root", Role: access.Operator, How: "uid 0, pid 1"}
	auditor  = &access.Identity{Name: "alice", Role: access.Auditor, How: "token 01"}
	tenant   = &access.Identity{Name: "web-team", Role: access.Tenant, Domains: []string{webUUID}, How: "token 02"}
	stranger = &access.Identity{Name: "nobody-yet", Role: access.Tenant, How: "token 03"}
)

// ledger notes disclosures, and seals them as the daemon does.
type ledger struct {
	access.Sealer
	mu    sync.Mutex
	given []access.Disclosure
	err   error
}

func (d *ledger) Disclose(ctx context.Context, one access.Disclosure) error {
	d.mu.Lock()
	err := d.err
	if err == nil {
		d.given = append(d.given, one)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.Sealer.Disclose(ctx, one)
}

// take returns what was disclosed since the last call.
func (d *ledger) take() []access.Disclosure {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.given
	d.given = nil
	return out
}

// worldPolicies is the text of the one policy bundle that is kept.
var (
	worldPolicies = map[string][]byte{"a.policy.hcl": []byte("policy \"a\" {}\n"), "lists/l.txt": []byte("db-team\n")}
	worldDigest   = record.BundleDigest(worldPolicies)
)

func policyText(_ context.Context, digest record.Hash) (map[string][]byte, error) {
	if digest != worldDigest {
		return nil, fmt.Errorf("policy bundle %s: %w", digest, ErrNotFound)
	}
	return worldPolicies, nil
}

// serviceOf is a service of a store whose one domain is web.
func serviceOf(s *chain.Store, l *chain.Log) *Service {
	return &Service{
		Store: s, Discloser: &ledger{Sealer: access.Sealer{Store: s}}, Approvals: &approver{},
		Find: func(name string) (*chain.Log, error) {
			if name == "web" || name == l.Name().Domain {
				return l, nil
			}
			return nil, fmt.Errorf("domain %q: %w", name, ErrNotFound)
		},
		Name: func(string) string { return "web" },
	}
}

// as serves a handler to one identity.
func as(h http.Handler, who *access.Identity) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(access.With(r.Context(), who)))
	})
}

// onSocket serves a handler on a unix socket and returns its client.
func onSocket(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = listener
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	cl := client.New(socket)
	t.Cleanup(cl.Close)
	return cl
}

// withIndex gives a service an index of its store.
func withIndex(t *testing.T, s *Service) *Service {
	t.Helper()
	x, err := index.Open(index.Config{Store: s.Store, Dir: filepath.Join(t.TempDir(), "index")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	s.Index = x
	return s
}

// world is a host with two domains, web in two incarnations and db, and all of
// the service.
type world struct {
	service *Service
	handler http.Handler
	given   *ledger
	web     []*chain.Log
	db      *chain.Log
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, first := tileStore(t, 20)
	w := &world{web: []*chain.Log{first}}
	p, _ := first.Checkpoint()
	second, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", webUUID, 2), &record.Genesis{Cause: "define", DomainName: "web", PreviousOrigin: first.Origin(), PreviousCheckpoint: p.Note})
	if err != nil {
		t.Fatal(err)
	}
	w.web = append(w.web, second)
	if w.db, err = s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", dbUUID, 1), &record.Genesis{Cause: "define", DomainName: "db"}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*chain.Log{second, w.db} {
		for range 3 {
			touch(t, s, l, "/etc/passwd")
		}
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	w.given = &ledger{Sealer: access.Sealer{Store: s}}
	logs := map[string]*chain.Log{"web": second, webUUID: second, "db": w.db, dbUUID: w.db}
	names := map[string]string{webUUID: "web", dbUUID: "db"}
	w.service = withIndex(t, &Service{
		Store: s, Discloser: w.given, Secret: [32]byte{1}, PolicyText: policyText,
		Find: func(name string) (*chain.Log, error) {
			if l, ok := logs[name]; ok {
				return l, nil
			}
			return nil, fmt.Errorf("find domain %q: %w", name, ErrNotFound)
		},
		Name: func(uuid string) string { return names[uuid] },
		Status: func(context.Context) (*client.Status, error) {
			web, db := LogInfo(second), LogInfo(w.db)
			return &client.Status{Version: "1", Host: "kvm1.example", Pid: 1, Started: "2026-11-23T06:00:00Z", Libvirt: client.Libvirt{URI: "test:///", Connected: true},
				HostLog: LogInfo(s.HostLog()), VerifierKey: s.HostLog().VerifierKey(), Domains: []client.Domain{
					{UUID: webUUID, Name: "web", State: "running", Agent: "connected", Incarnation: 2, Log: &web},
					{UUID: dbUUID, Name: "db", State: "running", Agent: "none", Incarnation: 1, Log: &db},
				}}, nil
		},
		Approvals: &approver{},
		Enroll: func(_ context.Context, name string) (*client.Enrollment, error) {
			if logs[name] == nil {
				return nil, fmt.Errorf("domain %q: %w", name, ErrNotFound)
			}
			return &client.Enrollment{UUID: logs[name].Name().Domain, Name: name, Done: []string{"channel added"}}, nil
		},
		StopAgent: func(_ context.Context, name, requester, reason string) (*client.AgentAnswer, error) {
			if reason == "" || requester == "" {
				return nil, fmt.Errorf("no reason is given: %w", record.ErrReject)
			}
			return &client.AgentAnswer{UUID: webUUID, Name: name, Command: "00", Session: "01", Status: client.AnswerDone}, nil
		},
		Alerts: func(context.Context) ([]client.AlertChannel, error) {
			return []client.AlertChannel{{Name: "ops", Type: "webhook", Waiting: 1, Oldest: "2026-11-23T09:00:00Z", Last: "2026-11-23T09:00:01Z", Problem: "down", Failures: 1}, {Name: "new", Type: "journal"}}, nil
		},
		TestAlert: func(_ context.Context, channel, requester string) (*client.AlertTest, error) {
			if channel != "ops" || requester == "" {
				return nil, fmt.Errorf("alert channel %q: %w", channel, ErrNotFound)
			}
			return &client.AlertTest{Channel: channel, Delivered: true, Detail: "HTTP 202"}, nil
		},
		Release: func(_ context.Context, name, requester string, q client.ReleaseRequest) (*client.Released, error) {
			if logs[name] == nil {
				return nil, fmt.Errorf("domain %q: %w", name, ErrNotFound)
			}
			if q.Reason == "" || requester == "" {
				return nil, fmt.Errorf("no reason is given: %w", record.ErrReject)
			}
			return &client.Released{UUID: webUUID, Name: name, Host: "kvm1.example", StateBefore: "paused (user)", StateAfter: "running (unpaused)",
				Holds:      []client.Hold{{Action: "pause", Policy: "p", Log: "l", Verdict: 3, Since: "2026-11-23T09:00:00Z", Until: "2026-11-23T10:00:00Z"}},
				Interfaces: []client.Interface{{Key: "52:54:00:00:00:01", Live: "up"}}}, nil
		},
		Rotate: func(context.Context, string) (*client.KeyEpoch, error) {
			return &client.KeyEpoch{Number: 1, Key: fmt.Sprintf("%064x", 7), Index: 5}, nil
		},
	})
	w.service.Backup = func(_ context.Context, requester, dir, _ string) (*client.Backup, error) {
		if dir == "" || requester == "" {
			return nil, fmt.Errorf("name a directory: %w", record.ErrReject)
		}
		return &client.Backup{Dir: dir, Logs: 4, Root: fmt.Sprintf("%064x", 9)}, nil
	}
	w.service.ExportShard = func(_ context.Context, l *chain.Log, file string, withhold bool) (*client.Archive, error) {
		return &client.Archive{Log: l.Origin(), File: file, Withheld: withhold, Root: fmt.Sprintf("%064x", 9), SHA256: fmt.Sprintf("%064x", 8)}, nil
	}
	w.service.DropShard = func(_ context.Context, l *chain.Log, _, _, _ string) (*client.Dropped, error) {
		return &client.Dropped{Log: l.Origin(), Entry: 7, SHA256: fmt.Sprintf("%064x", 8)}, nil
	}
	bundle := &client.Bundle{Name: "baseline", Version: "1", Digest: fmt.Sprintf("%064x", 5), Policies: 1, Mode: "enforce"}
	entry := uint64(9)
	domains := []client.DomainPolicies{{UUID: webUUID, Name: "web", Log: second.Origin(), Entry: &entry, Modes: map[string]int{"audit": 1}, Other: map[string]string{"p": "audit"}}}
	w.service.Policies = func(context.Context) (*client.Policies, error) {
		return &client.Policies{Bundle: bundle, Policies: []client.ActivePolicy{{Name: "p", Title: "P", Severity: "high", Mode: "enforce", Actions: []string{"alert"}}}, Domains: domains, Previous: []string{}}, nil
	}
	w.service.ApplyPolicies = func(_ context.Context, requester string, body io.Reader, q client.ApplyQuery) (*client.Applied, error) {
		b, err := io.ReadAll(body)
		if err != nil || requester == "" {
			return nil, errors.Join(err, record.ErrReject)
		}
		return &client.Applied{Applied: !q.DryRun, Reason: string(b), Bundle: bundle, Diagnostics: []byte(`[{"code":"POL001"}]`), Entry: 8, Domains: domains}, nil
	}
	w.service.ReplayPolicies = func(_ context.Context, _ io.Reader, logs []*chain.Log, _ time.Time, progress func(done, total uint64)) (*client.Replayed, error) {
		progress(1, 2)
		out := &client.Replayed{Diagnostics: []byte("[]"), Report: []byte(`{"wanted":1}`), Read: []client.ReadLog{}}
		for _, l := range logs {
			out.Read = append(out.Read, client.ReadLog{Log: l.Origin(), Last: 1})
		}
		return out, nil
	}
	w.service.RollBack = func(context.Context, string) (*client.Applied, error) {
		return &client.Applied{Applied: true, Bundle: bundle, Was: bundle, Diagnostics: []byte("[]"), Entry: 8, Domains: domains}, nil
	}
	w.handler = w.service.Handler()
	return w
}

// touch seals that a process has written a file.
func touch(t testing.TB, s *chain.Store, l *chain.Log, path string) chain.Sealed {
	t.Helper()
	e, err := s.Draft(record.OriginHost, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(path)},
		Process: &record.Process{Pid: 7, Start: 70, Executable: []byte("/usr/bin/vim")}})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}})
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// ask sends a request as somebody and returns the answer.
func (w *world) ask(t testing.TB, who *access.Identity, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(access.With(t.Context(), who), method, target, nil)
	out := httptest.NewRecorder()
	w.handler.ServeHTTP(out, r)
	return out
}

// openings returns where the disclosures are of, sorted.
func openings(all []access.Disclosure) (out []string) {
	for _, d := range all {
		out = append(out, fmt.Sprintf("%s %d-%d %d", d.Origin, d.First, d.Last, d.Count))
	}
	slices.Sort(out)
	return out
}

var errSealing = errors.New("the disk is full")
