package chain

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestRepairCrash cuts the power ahead of operations of a repair, and repairs
// what is left: the ledger comes out whole, whatever was lost.
func TestRepairCrash(t *testing.T) {
	o := wellKnown(t, false)
	edit(t, o.cfg, func(db *pebble.DB) { flipRow(t, db, keyTile(1, 0, 0), 32*17) })
	rng := rand.New(rand.NewPCG(1, 3))
	round := func(at int) (steps int) {
		disk := vfs.NewCrashableMem()
		if _, err := vfs.Clone(o.cfg.FS, disk, "/", "/", vfs.CloneSync); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // Pebble works in the background too
		var crashes []*vfs.MemFS
		cfg := o.cfg
		cfg.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if steps == at {
				for _, keep := range []int{0, 50, 100} {
					crashes = append(crashes, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng}))
				}
			}
			steps++
			return nil
		}))
		if r, err := Repair(context.Background(), cfg, FsckOptions{Frame: testFrame}); err != nil || r.Kept == "" {
			t.Fatalf("repair: %+v %v", r, err)
		}
		for _, crashed := range crashes {
			cfg.FS = crashed
			if r, err := Repair(context.Background(), cfg, FsckOptions{Frame: testFrame}); err != nil || r.Fenced() {
				t.Fatalf("crash ahead of step %d: repaired again: %+v %v", at, r, err)
			}
			o.holds(t, cfg, "after a crash")
		}
		return steps
	}
	steps := round(-1)
	if steps < 40 {
		t.Fatalf("a repair has only %d steps", steps)
	}
	stride := 1
	if !*long {
		stride = 11
		t.Logf("short run: every %dth of %d steps; -long takes each", stride, steps)
	}
	for at := 0; at < steps; at += stride {
		round(at)
	}
}
