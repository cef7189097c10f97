package chain_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/record"
)

// TestRestoreCrash cuts the power ahead of each operation of a restore that
// rolls back, and restores again: what comes up is whole, says that it was
// restored, and goes on.
func TestRestoreCrash(t *testing.T) {
	disk := chaintest.NewDisk()
	cfg := storeConfig(t, disk.FS())
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := chaintest.Run(t, s)
	l := logNumber(t, s, 1)
	add := func(text string) {
		e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: text})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(context.Background(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	add("kept")
	backup := t.TempDir()
	if _, err := s.Backup(context.Background(), chain.BackupOptions{Dir: backup + "/copy", Requester: "root"}); err != nil {
		t.Fatal(err)
	}
	add("lost")
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := disk.FS().RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	o := chain.RestoreOptions{Dir: backup + "/copy", AcceptRollback: true, Reason: "test", Requester: "root"}
	steps := crashRestore(t, cfg, disk, o, -1)
	if steps < 40 {
		t.Fatalf("a restore has only %d steps", steps)
	}
	stride := 1
	if !isLong() {
		stride = 5
		t.Logf("short run: every %dth of %d steps; -long takes each", stride, steps)
	}
	for at := 0; at < steps; at += stride {
		crashRestore(t, cfg, disk, o, at)
	}
}

// crashRestore restores on a copy of the disk, crashing ahead of the operation
// with number at, and restores what is left. It returns how many there are.
func crashRestore(t *testing.T, cfg chain.Config, disk *chaintest.Disk, o chain.RestoreOptions, at int) (steps int) {
	t.Helper()
	work := disk.Copy(t)
	rng := rand.New(rand.NewPCG(uint64(at), 11))
	var mu sync.Mutex // Pebble works in the background too
	var crashes []*chaintest.Disk
	cfg.FS = work.Step(func() {
		mu.Lock()
		defer mu.Unlock()
		if steps == at {
			crashes = append(crashes, work.Crash(rng, 0), work.Crash(rng, 100), work.Crash(rng, 50))
		}
		steps++
	})
	if r, err := chain.Restore(context.Background(), cfg, o); err != nil || r.State != chain.RestoreRolledBack {
		t.Fatalf("restore: %+v %v", r, err)
	}
	for i, crashed := range append(crashes, work.Crash(rng, 0)) {
		cfg.FS = crashed.FS()
		names, err := cfg.FS.List(cfg.Dir)
		if err != nil || len(names) == 0 {
			if r, err := chain.Restore(context.Background(), cfg, o); err != nil || r.State != chain.RestoreRolledBack || r.Lost == 0 {
				t.Fatalf("crash ahead of step %d (%d): restored again: %+v %v", at, i, r, err)
			}
		}
		s, err := chain.Open(cfg)
		if err != nil {
			t.Fatalf("crash ahead of step %d (%d): %v", at, i, err)
		}
		restores := 0
		for item, err := range s.HostLog().Read(context.Background(), 0, s.HostLog().Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if item.Leaf.Header.Class == record.ClassHostRestore {
				restores++
			}
		}
		if err := errors.Join(chaintest.CheckStore(context.Background(), s), s.Close()); err != nil || restores != 1 {
			t.Fatalf("crash ahead of step %d (%d): %d restores are sealed, %v", at, i, restores, err)
		}
	}
	return steps
}
