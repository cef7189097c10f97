package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// tileStore is a store with one VM log of n entries, checkpointed.
func tileStore(t testing.TB, n int) (*chain.Store, *chain.Log) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", 1), &record.Genesis{Cause: "define"})
	if err != nil {
		t.Fatal(err)
	}
	for n > 1 {
		b := chain.Batch{Log: l}
		for range min(n-1, 500) {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "test"})
			if err != nil {
				t.Fatal(err)
			}
			b.Entries = append(b.Entries, e)
		}
		n -= len(b.Entries)
		if _, err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CheckpointNow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return s, l
}

func fetch(t *testing.T, method, u string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestTilesWithTorchwoodClient(t *testing.T) {
	const n = 1000
	s, l := tileStore(t, n)
	srv := httptest.NewServer(Tiles(s, nil))
	defer srv.Close()

	_, list := fetch(t, http.MethodGet, srv.URL+"/logs/")
	var logs []logEntry
	if err := json.Unmarshal([]byte(list), &logs); err != nil || len(logs) != 2 || logs[1].Origin != l.Origin() || logs[1].Size != n {
		t.Fatalf("list %s: %v", list, err)
	}
	prefix := srv.URL + logs[1].Path
	v, err := note.NewVerifier(logs[1].VerifierKey)
	if err != nil {
		t.Fatal(err)
	}
	_, text := fetch(t, http.MethodGet, prefix+"checkpoint")
	c, err := proof.OpenCheckpoint([]byte(text), v)
	if err != nil || c.Size != n {
		t.Fatalf("checkpoint %+v: %v", c, err)
	}
	fetcher, err := torchwood.NewTileFetcher(prefix)
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	parsed, _, err := torchwood.VerifyCheckpoint([]byte(text), torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v)))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for i, leaf := range client.AllEntries(t.Context(), parsed.Tree, 0) {
		parsedLeaf, err := record.ParseLeaf(leaf)
		if err != nil || parsedLeaf.Index != uint64(i) {
			t.Fatalf("entry %d: %v", i, err)
		}
		count++
	}
	if err := client.Err(); err != nil || count != n {
		t.Fatalf("%d entries of %d: %v", count, n, err)
	}
}

func TestTilePaths(t *testing.T) {
	s, l := tileStore(t, 300)
	srv := httptest.NewServer(Tiles(s, nil))
	defer srv.Close()
	at := srv.URL + "/logs/" + l.Origin() + "/"
	escaped := srv.URL + "/logs/" + url.PathEscape(l.Origin()) + "/"
	tests := []struct {
		method, url string
		status      int
		length      int
		cache       string
	}{
		{"GET", at + "checkpoint", 200, -1, cacheNever},
		{"GET", escaped + "checkpoint", 200, -1, cacheNever},
		{"GET", srv.URL + "/logs/kvm1.example/log/1/checkpoint", 200, -1, cacheNever},
		{"GET", at + "tile/0/000", 200, 8192, cachePublic + cacheForever},
		{"HEAD", at + "tile/0/000", 200, 0, cachePublic + cacheForever},
		{"GET", at + "tile/0/000.p/1", 200, 32, cachePublic + cacheForever},
		{"GET", at + "tile/0/000.p/255", 200, 255 * 32, cachePublic + cacheForever},
		{"GET", at + "tile/0/001.p/44", 200, 44 * 32, cachePublic + cacheForever},
		{"GET", at + "tile/1/000.p/1", 200, 32, cachePublic + cacheForever},
		{"GET", at + "tile/entries/000", 200, 256 * (2 + record.LeafSize), cachePublic + cacheForever},
		{"GET", at + "tile/entries/001.p/44", 200, 44 * (2 + record.LeafSize), cachePublic + cacheForever},
		{"GET", at + "tile/0/001.p/45", 404, -1, cacheNever},
		{"GET", at + "tile/0/001", 404, -1, cacheNever},
		{"GET", at + "tile/entries/001", 404, -1, cacheNever},
		{"GET", at + "tile/0/002.p/1", 404, -1, cacheNever},
		{"GET", at + "tile/0/x999/x999/x999/x999/x999/999", 404, -1, cacheNever},
		{"GET", at + "tile/0/000.p/256", 404, -1, cacheNever},
		{"GET", at + "tile/0/000.p/0", 404, -1, cacheNever},
		{"GET", at + "tile/0/000.p/01", 404, -1, cacheNever},
		{"GET", at + "tile/0/0", 404, -1, cacheNever},
		{"GET", at + "tile/0/x000/000", 404, -1, cacheNever},
		{"GET", at + "tile/00/000", 404, -1, cacheNever},
		{"GET", at + "tile/8/000.p/1", 404, -1, cacheNever},
		{"GET", at + "tile/63/000", 404, -1, cacheNever},
		{"GET", at + "tile/-1/000", 404, -1, cacheNever},
		{"GET", at + "tile/data/000", 404, -1, cacheNever},
		{"GET", at + "tile/8/0/000", 404, -1, cacheNever},
		{"GET", at, 404, -1, cacheNever},
		{"GET", strings.TrimSuffix(at, "/"), 404, -1, cacheNever},
		{"GET", srv.URL + "/logs/other.example/log/1/checkpoint", 404, -1, cacheNever},
		{"GET", at + "..%2f..%2fcheckpoint", 404, -1, cacheNever},
		{"GET", srv.URL + "/elsewhere", 404, -1, ""},
		{"POST", at + "checkpoint", 405, -1, ""},
	}
	for _, c := range tests {
		res, body := fetch(t, c.method, c.url)
		if res.StatusCode != c.status || c.length >= 0 && len(body) != c.length || c.cache != res.Header.Get("Cache-Control") {
			t.Errorf("%s %s: status %d, %d bytes, cache %q; want %d, %d, %q", c.method, strings.TrimPrefix(c.url, srv.URL), res.StatusCode, len(body), res.Header.Get("Cache-Control"), c.status, c.length, c.cache)
		}
	}
}

// FuzzTiles asks for arbitrary paths: each is answered or not found, and
// nothing is served twice under different names.
func FuzzTiles(f *testing.F) {
	s, l := tileStore(f, 300)
	handler := Tiles(s, nil)
	for _, p := range []string{"tile/0/000", "tile/entries/001.p/3", "checkpoint", "tile/0/000.p/256", "../checkpoint", "tile/9/000", "tile/0/x9223372036854775807/000"} {
		f.Add("/logs/" + l.Origin() + "/" + p)
	}
	f.Add("/logs/")
	f.Add("/logs//kvm1.example/log/1/checkpoint")
	f.Fuzz(func(t *testing.T, path string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code != http.StatusOK && w.Code != http.StatusNotFound {
			t.Fatalf("status %d for %q", w.Code, path)
		}
		rest, ok := strings.CutPrefix(path, "/logs/"+l.Origin()+"/")
		if w.Code != http.StatusOK || !ok || rest == "checkpoint" {
			return
		}
		tile, err := torchwood.ParseTilePath(rest)
		if err != nil || torchwood.TilePath(tile) != rest {
			t.Fatalf("%q is served", path)
		}
	})
}
