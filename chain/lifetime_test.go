package chain

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"weak"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestAbandonedCreateLog ends the caller's context while its genesis waits for
// the committer. The number of that log must not be given to the next one: two
// leaves 0 would be sealed under it.
func TestAbandonedCreateLog(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type result struct {
		l   *Log
		err error
	}
	create := func(ctx context.Context, n string) chan result {
		done := make(chan result, 1)
		go func() {
			l, err := s.CreateLog(ctx, proof.VMOrigin(s.cfg.HostID, "6a2f41a3-c54c-4f54-9d3b-00000000000"+n, 1), &record.Genesis{Cause: "define"})
			done <- result{l, err}
		}()
		return done
	}
	first := create(ctx, "1")
	eventually(t, "the genesis in the queue", func() bool {
		s.queue.mu.Lock()
		defer s.queue.mu.Unlock()
		return len(s.queue.urgent.requests) == 1
	})
	cancel()
	second := create(context.Background(), "2")
	stop := run(t, s)
	one, two := <-first, <-second
	if one.err != nil || two.err != nil {
		t.Fatalf("abandoned: %v, after it: %v", one.err, two.err)
	}
	if one.l.ID() == two.l.ID() || one.l.Size() != 1 || two.l.Size() != 1 {
		t.Fatalf("logs %d and %d with %d and %d leaves", one.l.ID(), two.l.ID(), one.l.Size(), two.l.Size())
	}
	shutdown(t, s, stop)
	if r := <-create(ctx, "3"); !errors.Is(r.err, ErrClosed) {
		t.Fatalf("create in a closed store: %v", r.err)
	}
	s = mustOpen(t, s.cfg)
	stop = run(t, s)
	defer shutdown(t, s, stop)
	for _, l := range []*Log{one.l, two.l} {
		again, ok := s.LogByOrigin(l.Origin())
		if !ok || again.ID() != l.ID() || again.Size() != 1 {
			t.Fatalf("%s is not there after opening", l.Origin())
		}
	}
}

// TestPendingLetsGo keeps the Pending of a batch, sealed or refused, and sees
// its payload collected.
func TestPendingLetsGo(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	s.recent.limit = 0 // which would keep it for followers
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	no := errors.New("no")
	for name, check := range map[string]func(Head) error{"sealed": nil, "refused": func(Head) error { return no }} {
		payload, p := submitLarge(t, s, l, check)
		if _, err := p.Wait(context.Background()); check == nil && err != nil || check != nil && !errors.Is(err, no) {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, "the payload of a "+name+" batch to be collected", func() bool {
			runtime.GC()
			return payload.Value() == nil
		})
		runtime.KeepAlive(p)
	}
}

// submitLarge submits a batch that only its Pending refers to.
func submitLarge(t *testing.T, s *Store, l *Log, check func(Head) error) (weak.Pointer[byte], *Pending) {
	e := hostEntry(t, s, "x")
	e.Payload = make([]byte, 1<<20)
	p, err := s.Submit(context.Background(), Batch{Log: l, Entries: []Entry{e}, Check: check})
	if err != nil {
		t.Fatal(err)
	}
	return weak.Make(&e.Payload[0]), p
}

// TestMetaHasItsOwnLimit: rows of a judge that knows many domains are larger
// than any frame.
func TestMetaHasItsOwnLimit(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	half := bytes.Repeat([]byte{7}, MaxBatchMetaBytes/2)
	full := hostEntry(t, s, "x")
	full.Payload = make([]byte, MaxBatchBytes)
	b := Batch{
		Log: l, Entries: []Entry{full}, Meta: []MetaWrite{{Key: "judge", Value: half}},
		Position: &FollowerPosition{Name: "judge", Position: Position{Commit: 1}, State: half},
	}
	mustAppend(t, s, b)
	over := b
	over.Meta = append(over.Meta[:1:1], MetaWrite{Key: "more", Value: []byte{1}})
	if _, err := s.Append(context.Background(), over); !errors.Is(err, record.ErrReject) {
		t.Fatalf("meta rows above the limit: %v", err)
	}
	full.Payload = make([]byte, MaxBatchBytes+1)
	over = Batch{Log: l, Entries: []Entry{full}}
	if _, err := s.Append(context.Background(), over); !errors.Is(err, record.ErrReject) {
		t.Fatalf("payload above the limit: %v", err)
	}
	shutdown(t, s, stop)
	s = mustOpen(t, cfg)
	stop = run(t, s)
	defer shutdown(t, s, stop)
	if v, ok, err := s.Meta("judge"); err != nil || !ok || !bytes.Equal(v, half) {
		t.Fatalf("the row has %d bytes after opening (%v, %v)", len(v), ok, err)
	}
	f, err := s.Follow("judge")
	if err != nil || !bytes.Equal(f.State(), half) {
		t.Fatalf("follower: %v", err)
	}
	f.Close()
}

// TestLargeRequestIsNotKeptOut fills a lane by half: a request larger than the
// rest of the lane gets in, and bounds what comes after it.
func TestLargeRequestIsNotKeptOut(t *testing.T) {
	q := newQueue()
	host := &Log{id: 0}
	for range 8 {
		mustPut(t, q, queued(host, false, 1, urgentQueueBytes/16))
	}
	large := queued(host, false, 1, MaxBatchMetaBytes)
	mustPut(t, q, large)
	for _, bytes := range []int{1, MaxBatchMetaBytes} {
		if wait, err := q.tryPut(queued(host, false, 1, bytes)); err != nil || wait == nil {
			t.Fatalf("%d bytes get in behind %d: %v", bytes, q.urgent.bytes, err)
		}
	}
	for {
		got := q.take()
		if len(got) == 0 {
			t.Fatal("the large request is lost")
		}
		if got[0] == large {
			return
		}
	}
}
