package chain

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/provostd/provost/chain/record"
)

// heldDisk is a disk whose syncs of the store's log wait while they are held,
// and may fail then.
type heldDisk struct {
	hold    atomic.Bool
	waiting chan struct{} // told of each sync that waits
	release chan error    // what it returns
}

func newHeldDisk(t *testing.T) (*heldDisk, Config) {
	d := &heldDisk{waiting: make(chan struct{}, 1), release: make(chan error)}
	cfg := testConfig(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && d.hold.Load() {
			d.waiting <- struct{}{}
			return <-d.release
		}
		return nil
	})))
	return d, cfg
}

// TestCommitsOnTheirWay: while a commit is synced the next one is made, and
// nobody sees either before its own sync; both become durable in their order.
func TestCommitsOnTheirWay(t *testing.T) {
	d, cfg := newHeldDisk(t)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	size := l.Size()
	submit := func(i int) *Pending {
		t.Helper()
		p, err := s.Submit(t.Context(), Batch{Log: l, Entries: hostEntries(t, s, i, 100)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	d.hold.Store(true)
	first := submit(1)
	<-d.waiting
	second := submit(2)
	for queued := true; queued; { // until the committer has taken it
		s.queue.mu.Lock()
		queued = len(s.queue.urgent.requests) > 0
		s.queue.mu.Unlock()
	}
	// The row of the second one's commit comes when it has been made.
	for made := false; !made; {
		var err error
		if _, made, err = get(s.db, keyCommit(s.durable.Load()+2)); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range []*Pending{first, second} {
		select {
		case <-p.Done():
			t.Errorf("batch %d is acknowledged and not durable", i)
		default:
		}
	}
	if got := l.Size(); got != size {
		t.Errorf("readers see %d entries, %d are durable", got, size)
	}
	d.release <- nil
	one, err := first.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-d.waiting
	if got := l.Size(); got != size+100 {
		t.Errorf("readers see %d entries, %d are durable", got, size+100)
	}
	select {
	case <-second.Done():
		t.Error("the second batch is acknowledged and not durable")
	default:
	}
	d.hold.Store(false)
	d.release <- nil
	two, err := second.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if one.First != size || two.First != size+100 || two.Commit != one.Commit+1 || l.LastHash() != two.LastHash {
		t.Errorf("sealed at %d in commit %d, then at %d in commit %d", one.First, one.Commit, two.First, two.Commit)
	}
}

// TestSyncFails: no commit is acknowledged behind one that was not synced, and
// the ledger ends.
func TestSyncFails(t *testing.T) {
	d, cfg := newHeldDisk(t)
	s := mustCreate(t, cfg)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	l := mustCreateLog(t, s, 1)
	d.hold.Store(true)
	var pending []*Pending
	for i := range 3 {
		p, err := s.Submit(t.Context(), Batch{Log: l, Entries: hostEntries(t, s, i, 10)})
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
		if i == 0 {
			<-d.waiting
		}
	}
	d.hold.Store(false)
	d.release <- errors.New("the disk says no")
	for i, p := range pending {
		if _, err := p.Wait(t.Context()); !errors.Is(err, record.ErrFatal) {
			t.Errorf("batch %d behind a sync that failed: %v", i, err)
		}
	}
	if err := <-ended; !errors.Is(err, record.ErrFatal) {
		t.Errorf("the store ran on: %v", err)
	}
}

// hostEntries are n entries of the host, of kind i.
func hostEntries(t *testing.T, s *Store, i, n int) []Entry {
	t.Helper()
	var entries []Entry
	for j := range n {
		e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint(i, " ", j)})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}
