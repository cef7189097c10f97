package chain

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

func queued(l *Log, guest bool, entries, bytes int, keys ...string) *request {
	b := Batch{Log: l}
	for _, k := range keys {
		b.Meta = append(b.Meta, MetaWrite{Key: k})
	}
	r := newRequest(b)
	r.guest, r.entries, r.bytes = guest, entries, bytes
	return r
}

func mustPut(t *testing.T, q *queue, r *request) {
	t.Helper()
	if wait, err := q.tryPut(r); err != nil || wait != nil {
		t.Fatalf("no room: %v", err)
	}
}

// flood fills a log's lane and returns how many requests fit.
func flood(t *testing.T, q *queue, l *Log, entries, bytes int) int {
	t.Helper()
	for n := 0; ; n++ {
		wait, err := q.tryPut(queued(l, true, entries, bytes))
		if err != nil {
			t.Fatal(err)
		}
		if wait != nil {
			return n
		}
	}
}

// TestQueueIsFair floods one log (invariant I8): neither another guest's frame
// nor the host's own word waits behind the flood.
func TestQueueIsFair(t *testing.T) {
	q := newQueue()
	noisy, quiet, host := &Log{id: 1}, &Log{id: 2}, &Log{id: 0}
	n := flood(t, q, noisy, 64, 16<<10)
	if n == 0 || n*64 > guestQueueEntries || n*16<<10 > guestQueueBytes {
		t.Fatalf("%d requests fit in a lane", n)
	}
	first := q.take() // the flood is on its way already
	late := queued(quiet, true, 1, 100)
	mustPut(t, q, late)
	flood(t, q, noisy, 64, 16<<10)
	pause := queued(host, false, 1, 100)
	mustPut(t, q, pause)
	next := q.take()
	if len(first) == 0 || len(next) < 2 || next[0] != pause {
		t.Fatalf("the host's word is not the first of %d requests", len(next))
	}
	found := false
	for _, r := range next {
		found = found || r == late
	}
	if !found {
		t.Fatal("the quiet guest's frame did not make the next commit")
	}
}

func TestQueueSharesTurns(t *testing.T) {
	q := newQueue()
	var logs []*Log
	for i := range 10 {
		l := &Log{id: LogID(i + 1)}
		logs = append(logs, l)
		flood(t, q, l, 1, 64<<10)
	}
	turns := map[*Log]int{}
	for range 10 {
		requests := q.take()
		if total := len(requests) * 64 << 10; total > commitBytes {
			t.Fatalf("a commit has %d bytes", total)
		}
		for _, r := range requests {
			turns[r.batches[0].Log]++
		}
	}
	for _, l := range logs {
		if turns[l] != turns[logs[0]] {
			t.Fatalf("turns are %v", turns)
		}
	}
}

// TestQueueLeavesGuestsAQuarter keeps the urgent lane full.
func TestQueueLeavesGuestsAQuarter(t *testing.T) {
	q := newQueue()
	host, guest := &Log{id: 0}, &Log{id: 1}
	for range 100 {
		mustPut(t, q, queued(host, false, 100, 1000))
	}
	mustPut(t, q, queued(guest, true, 100, 1000))
	guests := 0
	for _, r := range q.take() {
		if r.guest {
			guests++
		}
	}
	if guests != 1 {
		t.Fatalf("%d requests of the guest in a commit that verdicts fill", guests)
	}
}

// TestQueueKeepsMetaOrder: what overtakes would leave the older value.
func TestQueueKeepsMetaOrder(t *testing.T) {
	q := newQueue()
	l := &Log{id: 1}
	frame, refusal, other := queued(l, true, 1, 1, "agent/1"), queued(l, false, 1, 1, "agent/1"), queued(l, false, 1, 1, "agent/2")
	for _, r := range []*request{frame, refusal, other} {
		mustPut(t, q, r)
	}
	got := q.take()
	if len(got) != 3 || got[0] != other || got[1] != frame || got[2] != refusal {
		t.Fatalf("order %v", got)
	}
	if len(q.keys) != 0 {
		t.Fatalf("keys are left: %v", q.keys)
	}
	mustPut(t, q, refusal)
	if got := q.take(); len(got) != 1 || len(q.guests) != 0 {
		t.Fatalf("after the frame: %v", got)
	}
}

// TestFullLaneBlocksItsOwnLogOnly.
func TestFullLaneBlocksItsOwnLogOnly(t *testing.T) {
	q := newQueue()
	noisy, quiet := &Log{id: 1}, &Log{id: 2}
	flood(t, q, noisy, 64, 16<<10)
	ctx, cancel := context.WithCancelCause(context.Background())
	blocked := make(chan error, 1)
	go func() { blocked <- q.put(ctx, queued(noisy, true, 64, 16<<10)) }()
	mustPut(t, q, queued(quiet, true, 64, 16<<10))
	why := errors.New("the session ended")
	cancel(why)
	if err := <-blocked; !errors.Is(err, why) || !errors.Is(err, record.ErrRetry) {
		t.Fatalf("blocked: %v", err)
	}
	// Room lets the waiting one in, in order.
	go func() { blocked <- q.put(context.Background(), queued(noisy, true, 64, 16<<10)) }()
	for done := false; !done; {
		q.take()
		select {
		case err := <-blocked:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
	}
	q.close(ErrClosed)
	if err := q.put(context.Background(), queued(quiet, true, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}

// TestPipeline submits many frames without waiting and finds them in order.
func TestPipeline(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	ctx := context.Background()
	var pending []*Pending
	for i := range 200 {
		p, err := s.Submit(ctx, Batch{Log: l, Entries: guestEntries(t, 1, uint64(i)*5, 5), Meta: []MetaWrite{{Key: "progress", Value: []byte{byte(i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for i, p := range pending {
		sealed, err := p.Wait(ctx)
		if err != nil || sealed.First != 1+uint64(i)*5 {
			t.Fatalf("frame %d is sealed at %d: %v", i, sealed.First, err)
		}
	}
	if v, ok, err := s.Meta("progress"); err != nil || !ok || v[0] != 199 {
		t.Fatalf("progress %v %v %v", v, ok, err)
	}
	// Several logs at once, or none.
	a, b := mustCreateLog(t, s, 2), mustCreateLog(t, s, 3)
	no := errors.New("no")
	batches := []Batch{{Log: a, Entries: []Entry{hostEntry(t, s, "a")}}, {Log: b, Entries: []Entry{hostEntry(t, s, "b")}, Check: func(Head) error { return no }}}
	if _, err := s.AppendAll(ctx, batches); !errors.Is(err, no) || a.Size() != 1 || b.Size() != 1 {
		t.Fatalf("half of a refused pair is sealed: %v, %d %d", err, a.Size(), b.Size())
	}
	batches[1].Check = func(h Head) error {
		if h.Size != 1 {
			t.Errorf("head %+v", h)
		}
		return nil
	}
	sealed, err := s.AppendAll(ctx, batches)
	if err != nil || sealed[0].Commit != sealed[1].Commit {
		t.Fatalf("%+v %v", sealed, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "late")}}); !errors.Is(err, ErrClosed) {
		t.Fatalf("append after Run: %v", err)
	}
	// Stopping has made the last checkpoint of everything.
	for _, l := range s.Logs() {
		if p, ok := l.Checkpoint(); !ok || p.Size != l.Size() {
			t.Errorf("%s has %d leaves, checkpoint %d", l.Origin(), l.Size(), p.Size)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
