package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect/api/client"
)

// fencedHost is the service of a ledger that was damaged and repaired.
type fencedHost struct {
	store  *chain.Store
	log    *chain.Log
	url    string
	fences []*record.Damage
}

// spoiled is one entry to be damaged, of the VM log or of the host log.
type spoiled struct {
	host  bool
	index uint64
	leaf  bool // the leaf too, and not the payload alone
}

// newFencedHost fills a ledger with one VM log of 600 entries, damages it, has it
// repaired, and serves it.
func newFencedHost(t *testing.T, damage ...spoiled) *fencedHost {
	t.Helper()
	k, err := keys.Create(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := chaintest.Config(t, nil, chain.Config{Keys: k})
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := chaintest.Run(t, s)
	l, err := s.CreateLog(t.Context(), proof.VMOrigin(chaintest.HostID, webUUID, 1), &record.Genesis{Cause: "define"})
	if err != nil {
		t.Fatal(err)
	}
	for l.Size() < 600 {
		touch(t, s, l, "/etc/passwd")
	}
	for range 2 { // each is an entry of the host log, and the second covers the first
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		touch(t, s, l, "/etc/shadow")
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, d := range damage {
		id := l.ID()
		if d.host {
			id = s.HostLog().ID()
		}
		chaintest.Spoil(t, cfg, id, d.index, d.leaf)
	}
	r, err := chain.Repair(t.Context(), cfg, chain.FsckOptions{Frame: attest.Frame})
	if err != nil || !r.Fenced() {
		t.Fatalf("the repair: %v, done %v", err, r)
	}
	h := &fencedHost{}
	for _, d := range r.Done {
		if d.Done == "fenced" {
			h.fences = append(h.fences, d)
		}
	}
	if h.store, err = chain.Open(cfg); err != nil {
		t.Fatal(err)
	}
	stop = chaintest.Run(t, h.store)
	t.Cleanup(func() {
		if err := errors.Join(stop(), h.store.Close()); err != nil {
			t.Error(err)
		}
	})
	h.log, _ = h.store.LogByOrigin(l.Origin())
	if err := h.store.CheckpointNow(t.Context(), h.log); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(as(serviceOf(h.store, h.log).Handler(), operator))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// fence returns the fence around an entry.
func (h *fencedHost) fence(t *testing.T, origin string, index uint64) *record.Damage {
	t.Helper()
	for _, d := range h.fences {
		if d.Origin == origin && d.First <= index && index <= d.Last {
			return d
		}
	}
	t.Fatalf("entry %d of %s is in none of the fences %v", index, origin, h.fences)
	return nil
}

// TestFencedIsGone asks for what a fence covers, in every form: the answer names the
// fence, and everything beside it is given.
func TestFencedIsGone(t *testing.T) {
	h := newFencedHost(t, spoiled{index: 511, leaf: true}, spoiled{index: 550, leaf: true}, spoiled{index: 560})
	c := newChecker(t)
	table := (&Service{}).routes()
	tiles, id := "/logs/"+h.log.Origin()+"/tile/", "/v1/logs/"+client.LogID(h.log.Origin())
	for _, q := range []struct {
		method, target string
		fence          uint64 // an entry in it; 0: what is asked for is given
	}{
		{"GET", tiles + "entries/000", 0},
		{"GET", tiles + "entries/001", 511},
		{"GET", tiles + "entries/002.p/38", 0},
		{"GET", tiles + "entries/002.p/39", 550},
		{"GET", tiles + "openings/001", 511},
		{"GET", tiles + "openings/002.p/38", 0},
		{"GET", tiles + "openings/002.p/80", 550},
		{"GET", tiles + "0/001", 0}, // its hashes are kept
		{"GET", tiles + "0/002.p/80", 0},
		{"GET", id + "/entries/549", 0},
		{"GET", id + "/entries/550", 550},
		{"GET", id + "/entries/550?payload=false", 550},
		{"GET", id + "/entries/560", 560},
		{"GET", id + "/entries/560?payload=false", 0}, // its leaf is whole
		{"GET", id + "/proof/inclusion?index=550", 0},
		{"POST", "/v1/export?domain=web&index=550", 550},
		{"POST", "/v1/export?domain=web&index=560", 560},
		{"POST", "/v1/export?domain=web&index=549", 0},
	} {
		res, body := fetch(t, q.method, h.url+q.target)
		if q.fence == 0 {
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", q.target, res.StatusCode, body)
			}
			continue
		}
		if err := c.check(find(t, table, q.method, q.target), res.StatusCode, res.Header.Get("Content-Type"), []byte(body)); err != nil || res.StatusCode != http.StatusGone {
			t.Errorf("%s: %d %s: %v", q.target, res.StatusCode, body, err)
			continue
		}
		var p client.Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		want := h.fence(t, h.log.Origin(), q.fence)
		// A row of a fence does not go beyond its bundle; what is sealed may.
		if u := p.Unreadable; u == nil || u.Log != h.log.Origin() || u.First < want.First || u.Last > want.Last || u.Last < u.First || u.Reason != want.Problem {
			t.Errorf("%s: %s does not name the fence %v", q.target, body, want)
		}
		if res.Header.Get("Cache-Control") != cacheNever {
			t.Errorf("%s: somebody may keep the answer: %q", q.target, res.Header.Get("Cache-Control"))
		}
	}
}

// keeper is a Source that remembers what it has read.
type keeper struct {
	mirror.Source
	files fstest.MapFS
}

func (k *keeper) Fetch(ctx context.Context, path string, limit int) ([]byte, error) {
	b, err := k.Source.Fetch(ctx, path, limit)
	if err == nil {
		k.files[path] = &fstest.MapFile{Data: bytes.Clone(b)}
	}
	return b, err
}

// verify verifies a host at its URL, and what was read of it as a directory.
func (h *fencedHost) verify(t *testing.T) (at, kept *mirror.Report) {
	t.Helper()
	m, err := client.NewMirror(client.MirrorConfig{URL: h.url})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	k := &keeper{m, fstest.MapFS{}}
	vkey := h.store.HostLog().VerifierKey()
	for _, q := range []struct {
		src mirror.Source
		r   **mirror.Report
	}{{k, &at}, {mirror.Files{FS: k.files}, &kept}} {
		var invalid *mirror.InvalidError
		if *q.r, err = mirror.Verify(t.Context(), q.src, vkey, mirror.Options{Frame: attest.Frame, Workers: 1}); err != nil && !errors.As(err, &invalid) {
			t.Fatal(err)
		}
	}
	return at, kept
}

// names wants one failure of a report, a gap at an entry whose text has all words.
func names(t *testing.T, r *mirror.Report, origin string, index uint64, words ...string) {
	t.Helper()
	if r.Valid || len(r.Failures) == 0 {
		t.Fatalf("it verifies: %v", r.Proved)
	}
	f := r.Failures[0]
	if f.Kind != mirror.KindGap || f.Log != origin || f.Index == nil || *f.Index != index {
		t.Errorf("%s: want a gap at entry %d of %s", f, index, origin)
	}
	for _, w := range words {
		if !strings.Contains(f.Problem, w) {
			t.Errorf("%s: it does not say %q", f, w)
		}
	}
}

// TestVerifyNamesFences verifies ledgers whose evidence is fenced off: the gap is named
// with its range, by the host log's own word where that can be read.
func TestVerifyNamesFences(t *testing.T) {
	h := newFencedHost(t, spoiled{index: 550, leaf: true})
	at, kept := h.verify(t)
	for _, r := range []*mirror.Report{at, kept} {
		names(t, r, h.log.Origin(), 550, "entries 512 to", "entry 550 is fenced off as damaged (its leaf cannot be read), as entry", "of the host log says")
	}

	// The host log's own: what the server says, and in a directory what is not there.
	h = newFencedHost(t, spoiled{host: true, index: 2, leaf: true})
	host := h.store.HostLog().Origin()
	at, kept = h.verify(t)
	names(t, at, host, 2, "the server says of it: entry 2 is unreadable: its leaf cannot be read")
	names(t, kept, host, 0, fmt.Sprintf("entries 0 to %d are missing: there is no logs/%s/tile/entries/", published(h)-1, host))

	// A payload that no verification needs: all leaves are there.
	h = newFencedHost(t, spoiled{index: 560})
	at, kept = h.verify(t)
	for _, r := range []*mirror.Report{at, kept} {
		if !r.Valid || !strings.Contains(strings.Join(r.Unclaimed, "\n"), "damaged and fenced off, of which 1 entries of "+h.store.HostLog().Origin()+" tell") {
			t.Errorf("%v, not claimed: %v", r.Failures, r.Unclaimed)
		}
	}
}

// published is how many entries the host's checkpoint has.
func published(h *fencedHost) uint64 {
	p, _ := h.store.HostLog().Checkpoint()
	return p.Size
}
