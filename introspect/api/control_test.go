package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

func controlOf(s *chain.Store, l *chain.Log) *Control {
	return &Control{
		Store: s, Log: slog.New(slog.DiscardHandler),
		Find: func(string) (*chain.Log, error) { return l, nil },
		Name: func(string) string { return "web" },
	}
}

// TestTailLast asks for the newest entries of a log: as many as asked for, in
// order, with their payloads.
func TestTailLast(t *testing.T) {
	const n = 50
	s, l := tileStore(t, n)
	srv := httptest.NewServer(controlOf(s, l).Handler())
	defer srv.Close()
	for _, last := range []int{1, 2, 7, 24, 25, n - 1, n, n + 1, maxLast} {
		_, body := fetch(t, http.MethodGet, fmt.Sprintf("%s/v1/tail?domain=web&last=%d", srv.URL, last))
		want := uint64(n - min(last, n))
		lines := bufio.NewScanner(strings.NewReader(body))
		for lines.Scan() {
			var e client.Entry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			leaf, err := record.ParseLeaf(e.Leaf)
			if err != nil || leaf.Index != want || e.Log != l.Origin() || e.Domain != "web" {
				t.Fatalf("last=%d: entry %d of %s (%v), want %d", last, leaf.Index, e.Log, err, want)
			}
			item, err := l.Item(leaf.Index)
			if err != nil || string(item.Payload) != string(e.Payload) || len(e.Payload) == 0 {
				t.Fatalf("last=%d: entry %d has another payload (%v)", last, leaf.Index, err)
			}
			want++
		}
		if lines.Err() != nil || want != n {
			t.Errorf("last=%d ends at entry %d of %d: %v", last, want, n, lines.Err())
		}
	}
	if res, body := fetch(t, http.MethodGet, fmt.Sprintf("%s/v1/tail?last=%d", srv.URL, maxLast+1)); res.StatusCode != http.StatusBadRequest {
		t.Errorf("too many: %d %s", res.StatusCode, body)
	}
}

// watcher notes how much memory is in use when the first line comes: then all
// that tail keeps is kept.
type watcher struct {
	*httptest.ResponseRecorder
	heap uint64
}

func (w *watcher) Write(b []byte) (int, error) {
	if w.heap == 0 {
		w.heap = heap()
	}
	return len(b), nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTailKeepsNoPayloads: a guest decides how large payloads are.
func TestTailKeepsNoPayloads(t *testing.T) {
	s, l := tileStore(t, 1)
	const n, size = 24, 1 << 20
	for range n {
		e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: strings.Repeat("x", size)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	w := &watcher{ResponseRecorder: httptest.NewRecorder()}
	before := heap()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/tail?domain=web&last=1000", nil)
	controlOf(s, l).Handler().ServeHTTP(w, r)
	if w.heap == 0 {
		t.Fatal("nothing came")
	}
	// One payload, its line, and what the store's cache holds of it.
	if w.heap > before+n*size/2 {
		t.Fatalf("%d MiB more in use than before, for %d payloads of 1 MiB", (w.heap-before)>>20, n)
	}
}
