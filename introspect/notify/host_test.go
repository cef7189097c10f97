package notify

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const (
	webUUID = "11111111-2222-4333-8444-555555555555"
	dbUUID  = "11111111-2222-4333-8444-666666666666"
)

// host is a store on disk with the logs of two VMs.
type host struct {
	t       *testing.T
	cfg     chain.Config
	store   *chain.Store
	web, db *chain.Log
	stop    func()
	now     func() time.Time
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, now: time.Now, cfg: chain.Config{Dir: filepath.Join(dir, "db"), Anchor: filepath.Join(dir, "anchor"), HostID: "test.host", Keys: k}}
	s, err := chain.Create(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.run(s)
	for _, id := range []string{webUUID, dbUUID} {
		if _, err = s.CreateLog(t.Context(), proof.VMOrigin("test.host", id, 1), &record.Genesis{Cause: "define"}); err != nil {
			t.Fatal(err)
		}
	}
	h.logs()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *host) logs() {
	h.web, _ = h.store.LogByOrigin(proof.VMOrigin("test.host", webUUID, 1))
	h.db, _ = h.store.LogByOrigin(proof.VMOrigin("test.host", dbUUID, 1))
}

func (h *host) run(s *chain.Store) {
	h.store = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			h.t.Error(err)
		}
	}
}

// restart is what a daemon that was killed finds on its next start.
func (h *host) restart() {
	h.t.Helper()
	h.stop()
	s, err := chain.Open(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.run(s)
	h.logs()
}

func (h *host) config(channels ...Channel) Config {
	return Config{Store: h.store, Channels: channels, Host: "test.host", Name: func(string) string { return "vm-1" }, Log: slog.New(slog.DiscardHandler),
		Now: h.now, first: time.Millisecond, most: 4 * time.Millisecond}
}

func (h *host) open(cfg Config) *Notifier {
	h.t.Helper()
	n, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// start runs a notifier until the returned function is called.
func (h *host) start(n *Notifier) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

func (h *host) seal(l *chain.Log, c record.Class, m record.Message, rows []chain.MetaWrite) uint64 {
	h.t.Helper()
	e, err := h.store.Draft(record.OriginPolicy, c, m)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := h.store.Append(h.t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}, Meta: rows})
	if err != nil {
		h.t.Fatal(err)
	}
	return s.First
}

// alert seals a verdict with an alert, and its outcome with the rows, as the
// enforcer does. It returns the verdict's index.
func (h *host) alert(n *Notifier, l *chain.Log, message string, channels ...string) uint64 {
	h.t.Helper()
	index, err := h.tryAlert(n, l, message, channels...)
	if err != nil {
		h.t.Fatal(err)
	}
	return index
}

func (h *host) tryAlert(n *Notifier, l *chain.Log, message string, channels ...string) (uint64, error) {
	h.t.Helper()
	index := h.seal(l, record.ClassPolicyVerdict, &record.Verdict{Policy: "p", Mode: "enforce", Severity: "high", Title: "t", CauseIndex: 0, CauseClass: "process.exec",
		Actions: []*record.Action{{Kind: "pause"}, {Kind: "alert", Message: message}}}, nil)
	handed, err := n.Hand(l, index, 1, channels)
	h.seal(l, record.ClassPolicyOutcome, &record.Outcome{VerdictIndex: index, ActionIndex: 1, Kind: "alert"}, handed.Rows)
	handed.Durable()
	return index, err
}

// result is a sealed AlertResult and where it stands.
type result struct {
	*record.AlertResult
	class record.Class
	log   string
}

// results waits until n results are sealed.
func (h *host) results(n int) []result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	f := h.store.Tail(chain.Position{})
	defer f.Close()
	var all []result
	for {
		it, ok, err := f.TryNext()
		if err == nil && !ok {
			if len(all) >= n {
				return all
			}
			it, err = f.Next(ctx)
		}
		if err != nil {
			h.t.Fatalf("%d results are sealed, want %d: %v", len(all), n, err)
		}
		if c := it.Leaf.Header.Class; c == record.ClassPolicyAlertDelivered || c == record.ClassPolicyAlertFailed {
			m, err := it.Decode()
			if err != nil {
				h.t.Fatal(err)
			}
			all = append(all, result{m.(*record.AlertResult), c, it.Log.Origin()})
		}
	}
}

// rows counts what waits in the store.
func (h *host) rows() (n int) {
	for _, err := range h.store.MetaPrefix(rowPrefix) {
		if err != nil {
			h.t.Fatal(err)
		}
		n++
	}
	return n
}

// receiver takes alerts; answers are what it answers first.
type receiver struct {
	mu      sync.Mutex
	got     []*Alert
	answers []error
	gate    chan struct{} // it waits for it to be closed; nil: it does not
	more    chan struct{} // closed with the next alert
}

// await returns once n alerts have come.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		if len(r.got) >= n {
			r.mu.Unlock()
			return
		}
		if r.more == nil {
			r.more = make(chan struct{})
		}
		more := r.more
		r.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("%d alerts have come, want %d", len(r.messages()), n)
		}
	}
}

func (r *receiver) Send(ctx context.Context, a *Alert) (string, error) {
	r.mu.Lock()
	gate := r.gate
	r.got = append(r.got, a)
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	var err error
	if len(r.answers) > 0 {
		err, r.answers = r.answers[0], r.answers[1:]
	}
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "taken", err
}

func (r *receiver) messages() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.got {
		all = append(all, a.Message)
	}
	return all
}
