package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// streamed reads a stream that ends by itself.
func streamed(t *testing.T, c *client.Client, q client.StreamQuery) (got []*client.Entry) {
	t.Helper()
	for e, err := range c.Stream(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	return got
}

// TestStreamLast asks for the newest entries of a log: as many as asked for, in
// order, with their payloads.
func TestStreamLast(t *testing.T) {
	const n = 50
	s, l := tileStore(t, n)
	c := onSocket(t, as(serviceOf(s, l).Handler(), operator))
	for _, last := range []int{1, 2, 7, 24, 25, n - 1, n, n + 1, maxLast} {
		want := uint64(n - min(last, n))
		for _, e := range streamed(t, c, client.StreamQuery{Domain: "web", Last: last}) {
			leaf, err := record.ParseLeaf(e.Leaf)
			if err != nil || leaf.Index != want || e.Log != l.Origin() || e.Domain != "web" || e.ID == "" {
				t.Fatalf("last=%d: entry %d of %s (%v), want %d", last, leaf.Index, e.Log, err, want)
			}
			item, err := l.Item(leaf.Index)
			if err != nil || string(item.Payload) != string(e.Payload) || len(e.Payload) == 0 {
				t.Fatalf("last=%d: entry %d has another payload (%v)", last, leaf.Index, err)
			}
			want++
		}
		if want != n {
			t.Errorf("last=%d ends at entry %d of %d", last, want, n)
		}
	}
}

// watcher notes how much memory is in use when the first line comes: then all
// that a stream keeps is kept.
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

// TestStreamKeepsNoPayloads: a guest decides how large payloads are.
func TestStreamKeepsNoPayloads(t *testing.T) {
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
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/stream?domain=web&last=1000&follow=false", nil)
	as(serviceOf(s, l).Handler(), operator).ServeHTTP(w, r)
	if w.heap == 0 {
		t.Fatal("nothing came")
	}
	// One payload, its line, and what the store's cache holds of it.
	if w.heap > before+n*size/2 {
		t.Fatalf("%d MiB more in use than before, for %d payloads of 1 MiB", (w.heap-before)>>20, n)
	}
}

// TestStreamGoesOn follows a domain while connections break and entries are
// sealed in between, also in a new incarnation: each comes once, in order, and
// none of another domain.
func TestStreamGoesOn(t *testing.T) {
	w := newWorld(t)
	w.service.private.heartbeat = 20 * time.Millisecond
	h := as(w.service.Handler(), tenant)
	var conns atomic.Int32
	// Every connection breaks after a few writes.
	c := onSocket(t, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		conns.Add(1)
		h.ServeHTTP(&breaking{ResponseWriter: out, left: 7}, r)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const more = 12
	want := map[string]uint64{} // next index of each log
	got, lost := 0, 0
	sent := 0
	for e, err := range c.Stream(ctx, client.StreamQuery{Domain: "web", Follow: true, Lost: func(error) { lost++ }}) {
		if err != nil {
			t.Fatalf("after %d entries: %v", got, err)
		}
		leaf, err := record.ParseLeaf(e.Leaf)
		if err != nil || e.Domain != "web" || leaf.Index != want[e.Log] {
			t.Fatalf("entry %d of %s (%s), want %d: %v", leaf.Index, e.Log, e.Domain, want[e.Log], err)
		}
		want[e.Log]++
		if got++; got == 20+4+more {
			break
		}
		if got >= 24 && sent < more {
			touch(t, w.service.Store, w.db, "/var/lib/db")
			touch(t, w.service.Store, w.web[1], fmt.Sprint("/tmp/", sent))
			sent++
		}
	}
	if lost == 0 || int(conns.Load()) <= 1 {
		t.Errorf("%d connections, %d lost: the test broke none", conns.Load(), lost)
	}
	if want[w.web[0].Origin()] != 20 || want[w.web[1].Origin()] != 4+more {
		t.Errorf("got %v", want)
	}
}

// breaking is a connection that breaks after some writes.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *breaking) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// TestStreamEnds wants each way a stream ends to be told, and its disclosures
// to hold what it gave.
func TestStreamEnds(t *testing.T) {
	w := newWorld(t)
	w.given.take()
	done := w.ask(t, tenant, "GET", "/v1/stream?follow=false&class=file.modify")
	if !strings.Contains(done.Body.String(), `"code":"done"`) || done.Header().Get("Content-Type") != client.EventStream || strings.Count(done.Body.String(), "event: entry\n") != 3 {
		t.Errorf("%s", done.Body)
	}
	got := openings(w.given.take())
	if len(got) != 2 || got[0] != fmt.Sprintf(" 0-%d 0", access.Open) || got[1] != w.web[1].Origin()+" 1-3 3" {
		t.Errorf("disclosed %q", got)
	}
	// An incarnation of a domain that begins later is given too: what is disclosed
	// before the first byte must not name the present log alone.
	for target, want := range map[string]string{"domain=db": "", "log=" + client.LogID(w.db.Origin()): w.db.Origin(), "domain=db&log=" + w.db.Origin(): w.db.Origin()} {
		w.ask(t, auditor, "GET", "/v1/stream?follow=false&"+target)
		if got := openings(w.given.take()); len(got) != 2 || got[0] != fmt.Sprintf("%s 0-%d 0", want, access.Open) && got[1] != fmt.Sprintf("%s 0-%d 0", want, access.Open) {
			t.Errorf("%s: disclosed %q", target, got)
		}
	}
	w.service.private.lifetime = 50 * time.Millisecond
	w.handler = w.service.Handler()
	if got := w.ask(t, tenant, "GET", "/v1/stream?new=true"); !strings.Contains(got.Body.String(), `"code":"lifetime"`) || strings.Contains(got.Body.String(), "leaf") {
		t.Errorf("%s", got.Body)
	}
}

// TestStreamBounds opens as many streams as one identity may have.
func TestStreamBounds(t *testing.T) {
	w := newWorld(t)
	for range maxStreams {
		if _, err := w.service.streams.enter(tenant, "streams", maxStreams, maxAllStreams); err != nil {
			t.Fatal(err)
		}
	}
	got := w.ask(t, tenant, "GET", "/v1/stream?follow=false")
	if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") == "" {
		t.Errorf("one more: %d %s", got.Code, got.Body)
	}
	if got := w.ask(t, auditor, "GET", "/v1/stream?follow=false"); got.Code != http.StatusOK {
		t.Errorf("somebody else: %d %s", got.Code, got.Body)
	}
	for w.service.streams.all < maxAllStreams {
		if _, err := w.service.streams.enter(&access.Identity{Name: fmt.Sprint(w.service.streams.all), Role: access.Tenant}, "streams", maxStreams, maxAllStreams); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.ask(t, auditor, "GET", "/v1/stream?follow=false"); got.Code != http.StatusTooManyRequests {
		t.Errorf("beyond all: %d", got.Code)
	}
}

// TestExportBounds has as many exports run as may: each holds a bundle.
func TestExportBounds(t *testing.T) {
	w := newWorld(t)
	export := func(who *access.Identity) int { return w.ask(t, who, "POST", "/v1/export?domain=web").Code }
	for range maxExports {
		if _, err := w.service.exports.enter(tenant, "exports", maxExports, maxAllExports); err != nil {
			t.Fatal(err)
		}
	}
	if mine, other := export(tenant), export(auditor); mine != http.StatusTooManyRequests || other != http.StatusOK {
		t.Errorf("one more: %d, somebody else's: %d", mine, other)
	}
	var leave func()
	for i := range maxBuilders {
		var err error
		if leave, err = w.service.builders.take(t.Context(), &access.Identity{Name: fmt.Sprint(i), Role: access.Tenant}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan int)
	go func() { done <- export(auditor) }()
	for waits := false; !waits; { // it is in, and its turn has not come
		select {
		case code := <-done:
			t.Fatalf("a bundle beyond those that may be built at a time: %d", code)
		default:
		}
		w.service.exports.mu.Lock()
		waits = w.service.exports.all == maxExports+1
		w.service.exports.mu.Unlock()
	}
	leave()
	if code := <-done; code != http.StatusOK {
		t.Errorf("when its turn has come: %d", code)
	}
	if w.service.exports.all != maxExports {
		t.Errorf("%d exports are counted", w.service.exports.all)
	}
}

// TestSlowReaderIsCut: a reader that does not read holds a stream no longer
// than a write may take.
func TestSlowReaderIsCut(t *testing.T) {
	s, l := tileStore(t, 1)
	for range 32 { // more than sockets hold
		e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: strings.Repeat("x", 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	service := serviceOf(s, l)
	service.private.write = 200 * time.Millisecond
	ended := make(chan struct{})
	h := as(service.Handler(), tenantOf(l))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("a reader that does not read holds its stream")
	}
	service.streams.mu.Lock()
	defer service.streams.mu.Unlock()
	if service.streams.all != 0 {
		t.Errorf("%d streams are counted", service.streams.all)
	}
}

func tenantOf(l *chain.Log) *access.Identity {
	return &access.Identity{Name: "t", Role: access.Tenant, Domains: []string{l.Name().Domain}, How: "token 09"}
}

// TestStreamCutOff: a stream without its end is an error where it was to end,
// and an answer that is no stream is one as well.
func TestStreamCutOff(t *testing.T) {
	for body, want := range map[string]string{
		"event: entry\ndata: {\"log\":\"x\"}\n\n":                         "cut off",
		"event: entry\ndata: {\"log\":\"x\"}\n":                           "cut off",
		"event: end\ndata: {\"code\":\"failed\",\"reason\":\"worn\"}\n\n": "worn",
		"event: entry\ndata: {\n\n":                                       "read entries",
	} {
		c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(body)) // the recorder of a test
		}))
		var last error
		for _, err := range c.Stream(t.Context(), client.StreamQuery{}) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%q: %v, want %q", body, last, want)
		}
	}
	c := onSocket(t, as(http.NotFoundHandler(), operator))
	for _, err := range c.Stream(t.Context(), client.StreamQuery{Follow: true}) {
		var p *client.Problem
		if !errors.As(err, &p) || p.Status != http.StatusNotFound {
			t.Errorf("no such stream: %v", err)
		}
	}
}
