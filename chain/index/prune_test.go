package index

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// TestPruningReachesTheIndex prunes entries of a log that an index follows: it
// forgets them as a whole, and one that is made anew does not miss them.
func TestPruningReachesTheIndex(t *testing.T) {
	const unit, more, day = 1 << 16, 900, 24 * time.Hour
	var ahead atomic.Int64
	l := newLedger(t, func(c *chain.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		c.Boot = func() time.Duration { return time.Duration(c.Now().UnixNano()) }
		c.Retention = chain.Retention{Payloads: day, Leaves: 2 * day}
	})
	vm := l.vm(1)
	for n := 0; n < unit+more; {
		var events []event
		for ; len(events) < 4000 && n < unit+more; n++ {
			events = append(events, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), "/qzxjv-5f81c7"))
		}
		l.guest(vm, 1, events...)
	}
	if err := l.CheckpointNow(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	x, stop := l.start(filepath.Join(l.dir, "index"))
	defer stop()
	modified := func(x *Index) int {
		return len(find(t, x, Query{Logs: []chain.LogID{vm.ID()}, Classes: []record.Class{record.ClassFileModify}}))
	}
	if n := modified(x); n != unit+more {
		t.Fatalf("%d entries are found before, want %d", n, unit+more)
	}
	ahead.Store(int64(3 * day))
	kept := l.guest(vm, 1, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), "/mhtrd-77d4aa"))
	// A round prunes what the packer has come to.
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(time.Minute); vm.Minimum() != unit; {
		if _, err := l.Retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("pruned up to %d", vm.Minimum())
		}
	}
	l.wait(x)
	check := func(x *Index) {
		t.Helper()
		// Entry 0 is the genesis, so the first records stand in entry 1 and on; its
		// bundle stays, and the index has forgotten it all the same.
		if n := modified(x); n < more+1 || n > more+256 {
			t.Errorf("%d entries are found, want the %d that are left", n, more+2)
		}
		if got := find(t, x, Query{Path: Exactly([]byte("/mhtrd-77d4aa"))}); len(got) != 1 || got[0].Index != kept {
			t.Errorf("%d entries are found by a path that was kept", len(got))
		}
		if got := find(t, x, Query{Path: Exactly([]byte("/qzxjv-5f81c7"))}); len(got) != 0 {
			t.Errorf("%d entries are found by a path that is gone", len(got))
		}
		if got := find(t, x, Query{Until: time.Now().Add(day).UnixNano(), Logs: []chain.LogID{vm.ID()}}); len(got) > more+258 {
			t.Errorf("%d entries are found by their time", len(got))
		}
	}
	check(x)
	stop()
	if in := holds(t, filepath.Join(l.dir, "index"), "qzxjv-5f81c7"); in != "" {
		t.Errorf("%s holds a word that is gone", in)
	}
	x, _ = l.start(filepath.Join(l.dir, "anew"))
	check(x)
}
