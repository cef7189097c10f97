package api

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// history is a log that is sealed under a clock of the test's own.
type history struct {
	t     *testing.T
	store *chain.Store
	log   *chain.Log
	boot  atomic.Int64
	begin time.Time // of the log
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{t: t}
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	h.store, err = chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k,
		Boot: func() time.Duration { return time.Duration(h.boot.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if h.log, err = h.store.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", webUUID, 1), &record.Genesis{Cause: "define", DomainName: "web"}); err != nil {
		t.Fatal(err)
	}
	h.begin = time.Unix(0, h.log.Head().Mono)
	return h
}

// seal seals an entry so many seconds after the last one.
func (h *history) seal(after int, class record.Class, m record.Message) {
	h.t.Helper()
	h.boot.Add(int64(after) * int64(time.Second))
	e, err := h.store.Draft(record.OriginHost, class, m)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.store.Append(h.t.Context(), chain.Batch{Log: h.log, Entries: []chain.Entry{e}}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) beat() {
	h.seal(60, record.ClassTick, &record.Event{Vm: &record.VM{State: "running", Detail: proof.AgentHeard}})
}

// at is so many seconds behind the beginning of the log.
func (h *history) at(seconds int) time.Time { return h.begin.Add(time.Duration(seconds) * time.Second) }

// TestWindow asks what a log tells of a time, and exports it: the bundle must
// prove the same, offline.
func TestWindow(t *testing.T) {
	h := newHistory(t)
	for range 4 { // entries 1 to 4, at 60 to 240 seconds
		h.beat()
	}
	h.seal(10, record.ClassVMChange, &record.Event{Reason: "a disk was added"}) // 5, at 250
	for range 5 {                                                               // 6 to 10, at 310 to 550
		h.beat()
	}
	h.seal(10, record.ClassAgentHeartbeatLost, &record.AgentState{Silent: int64(30 * time.Second)}) // 11, at 560
	h.seal(10, record.ClassAgentHeartbeatBack, &record.AgentState{})                                // 12, at 570
	for range 3 {                                                                                   // 13 to 15, at 630 to 750
		h.beat()
	}
	l := h.log
	w := &world{service: serviceOf(h.store, l)}
	w.handler = w.service.Handler()
	c := onSocket(t, as(w.handler, tenant))
	for _, q := range []struct {
		since, until int
		covered      bool
		first, last  uint64
		within       uint64
		why          string
	}{
		{200, 300, true, 3, 9, 2, ""},
		{241, 249, true, 4, 8, 0, ""},
		{200, 540, false, 3, 14, 6, "not heard"}, // silent from 530 on, sealed behind it
		{200, 529, true, 3, 14, 6, ""},
		{560, 600, false, 10, 15, 2, "not heard"},
		{580, 600, true, 10, 15, 0, ""},
		{580, 601, false, 10, 15, 0, "does not reach"},
		{-60, 100, false, 0, 5, 2, "no entry stands before it"},
		{700, 4000, false, 14, 15, 1, "does not reach"},
	} {
		got, err := c.Window(t.Context(), l.Origin(), h.at(q.since), h.at(q.until))
		if err != nil {
			t.Fatal(err)
		}
		why := ""
		for _, g := range got.Gaps {
			why += g.Why + "; "
		}
		if got.Covered != q.covered || got.First != q.first || got.Last != q.last || got.Within != q.within || !strings.Contains(why, q.why) || (why == "") != q.covered {
			t.Errorf("from %d to %d: %+v %s", q.since, q.until, got, why)
		}
		if q.since < 0 || q.until > 1000 {
			continue
		}
		var zip bytes.Buffer
		if err := c.Export(t.Context(), client.ExportQuery{Domain: "web", Since: h.at(q.since), Until: h.at(q.until)}, &zip); err != nil {
			t.Fatal(err)
		}
		b, err := proof.ReadBundle(bytes.NewReader(zip.Bytes()), int64(zip.Len()), proof.Limits{})
		if err != nil || b.Range == nil || b.Range.First != got.First || b.Range.Last != got.Last {
			t.Fatalf("%+v: %v", b.Range, err)
		}
		r, err := proof.Verify(b, h.store.HostLog().VerifierKey(), proof.Options{})
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join(r.Proved, "\n")
		if q.covered && q.until < 500 && !strings.Contains(said, "nothing else happened") || strings.Contains(q.why, "not heard") && !strings.Contains(said, "Not covered from") {
			t.Errorf("from %d to %d, the verifier says:\n%s", q.since, q.until, said)
		}
	}
	id := "/v1/logs/" + client.LogID(l.Origin()) + "/window"
	for target, want := range map[string]string{
		id + "?since=now": "want a time",
		id + "?since=" + stamp(h.at(2).UnixNano()) + "&until=" + stamp(h.at(1).UnixNano()): "before it begins",
		"/v1/logs/" + client.LogID(h.store.HostLog().Origin()) + "/window":                 "this is a host log",
	} {
		if got := w.ask(t, operator, "GET", target); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", target, got.Code, got.Body, want)
		}
	}
	if all, err := c.Window(t.Context(), l.Origin(), time.Time{}, time.Time{}); err != nil || all.First != 0 || all.Last != l.Size()-1 || all.Within != l.Size() {
		t.Errorf("the whole log: %+v: %v", all, err)
	}
}
