package chain

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// eventually waits for a condition that the store's own cadence brings about.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain waited for %s", what)
		}
	}
}

// TestCadence lets Run make checkpoints by itself: the VM log's, its quote in
// the host log, and the host's with the anchor.
func TestCadence(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.CheckpointEvery, cfg.HostEvery, cfg.WitnessEvery = 5*time.Millisecond, 5*time.Millisecond, 20*time.Millisecond
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	for n := range 3 {
		sealed := mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, uint64(n)*10, 10)})
		eventually(t, "the VM log's checkpoint", func() bool {
			p, ok := l.Checkpoint()
			return ok && p.Size > sealed.First
		})
		eventually(t, "its quote in an anchored host checkpoint", func() bool {
			hp, _ := s.HostLog().Checkpoint()
			for item, err := range s.HostLog().Read(t.Context(), 2, hp.Size) {
				if err != nil {
					t.Fatal(err)
				}
				if m, err := item.Decode(); err != nil {
					t.Fatal(err)
				} else if q, ok := m.(*record.VMCheckpoint); ok && q.Origin == l.Origin() && q.Size == l.Size() {
					return true
				}
			}
			return false
		})
		text, err := readAnchor(cfg.FS, cfg.Anchor)
		if err != nil {
			t.Fatal(err)
		}
		_, note, err := parseAnchor(text)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := proof.OpenCheckpoint(note, s.HostLog().Verifier()); err != nil || c.Size < 3+uint64(n) {
			t.Fatalf("the anchor holds %+v: %v", c, err)
		}
	}
	// An idle store seals nothing: quotes do not beget quotes.
	size := s.HostLog().Size()
	n := 0
	eventually(t, "some idle rounds", func() bool { n++; return n > 100 })
	if got := s.HostLog().Size(); got != size {
		t.Errorf("the host log of an idle store grew from %d to %d", size, got)
	}
	if err := s.Run(context.Background()); !errors.Is(err, record.ErrReject) {
		t.Errorf("second Run: %v", err)
	}
}

// TestTimeNeverStepsBack sets the wall clock back, while a store runs and
// between two runs.
func TestTimeNeverStepsBack(t *testing.T) {
	var wall, boot atomic.Int64
	wall.Store(1_795_387_200_000_000_000)
	cfg := testConfig(t, vfs.NewMem())
	cfg.Now = func() time.Time { return time.Unix(0, wall.Load()) }
	cfg.Boot = func() time.Duration { return time.Duration(boot.Load()) }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	var last Sealed
	seal := func(what string) Sealed {
		sealed := mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, what)}})
		if sealed.Mono < last.Mono {
			t.Fatalf("%s: time steps back from %d to %d", what, last.Mono, sealed.Mono)
		}
		item, err := l.Item(sealed.First)
		if err != nil || item.Leaf.Mono != sealed.Mono || item.Leaf.Wall != sealed.Wall || item.Leaf.Header.Time != uint64(sealed.Mono) {
			t.Fatalf("%s: leaf %+v (%v)", what, item.Leaf, err)
		}
		last = sealed
		return sealed
	}
	seal("first")
	boot.Add(int64(time.Minute))
	before := last
	if after := seal("a minute later"); after.Mono != before.Mono+int64(time.Minute) {
		t.Fatalf("a minute took from %d to %d", before.Mono, after.Mono)
	}
	wall.Add(-int64(time.Hour))
	if sealed := seal("the wall clock was set back"); sealed.Wall != wall.Load() {
		t.Fatalf("wall time %d, the clock says %d", sealed.Wall, wall.Load())
	}
	boot.Add(-int64(time.Hour)) // a boot clock that is broken, or that of another host
	seal("the boot clock stepped back")
	shutdown(t, s, stop)
	boot.Store(7) // another boot
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByOrigin(l.Origin())
	seal("after another boot with an older clock")
	shutdown(t, s, stop)
}

// TestFatalExits: what Pebble cannot return ends the process.
func TestFatalExits(t *testing.T) {
	cfg, err := testConfig(t, vfs.NewMem()).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	code := 0
	cfg.Exit = func(c int) { code = c }
	pebbleOptions(cfg, false).Logger.Fatalf("disk is gone: %d", 5)
	if code == 0 {
		t.Fatal("the exit hook was not called")
	}
}
