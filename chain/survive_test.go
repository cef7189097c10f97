package chain

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRepairClosedLog damages a store one of whose logs is closed: it is mended, and
// the log stays closed.
func TestRepairClosedLog(t *testing.T) {
	for _, lose := range []string{"head", "closed", "closed damaged"} {
		t.Run(lose, func(t *testing.T) {
			cfg := testConfig(t, vfs.NewMem())
			s := mustCreate(t, cfg)
			stop := run(t, s)
			l := mustCreateLog(t, s, 1)
			newTestAgent(t, s, l, 1).frame(5)
			if err := s.CloseLog(t.Context(), l, "a test", ""); err != nil {
				t.Fatal(err)
			}
			index, _ := l.Closed()
			shutdown(t, s, stop)
			edit(t, cfg, func(db *pebble.DB) {
				var err error
				switch lose {
				case "head":
					err = db.Delete(keyLog(tableHead, l.id), pebble.Sync)
				case "closed":
					err = db.Delete(keyClosed(l.id), pebble.Sync)
				default:
					err = db.Set(keyClosed(l.id), []byte{1, 2}, pebble.Sync)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			if _, err := Repair(t.Context(), cfg, FsckOptions{}); err != nil {
				t.Fatal(err)
			}
			if r := mustFsck(t, cfg); !r.OK() {
				t.Fatal(r.Findings)
			}
			s = mustOpen(t, cfg)
			l, _ = s.LogByID(l.id)
			if at, ok := l.Closed(); !ok || at != index {
				t.Errorf("the log is closed by entry %d (%v), want %d", at, ok, index)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRestoreBehindErasure restores a backup that was made before something was
// erased: the keys that were destroyed since are no damage of the backup.
func TestRestoreBehindErasure(t *testing.T) {
	cfg, _ := backedUp(t, func(s *Store, l *Log) {
		if _, err := s.Erase(context.Background(), EraseSelection{Log: l}, "r", "a"); err != nil {
			t.Fatal(err)
		}
	})
	lose(t, cfg)
	if _, err := Restore(t.Context(), cfg, accepted); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, cfg)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUnfinishedErasureWithoutKeys opens a store with an erasure that is not done
// and whose entry cannot be read.
func TestUnfinishedErasureWithoutKeys(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(50)
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	index := l.Size() - 1
	shutdown(t, s, stop)
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Set(keyErasure(l.id, index), []byte{erasureVersion}, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	if err := errors.Join(cfg.FS.RemoveAll(cfg.PayloadKeys), cfg.FS.MkdirAll(cfg.PayloadKeys, 0o700)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatalf("the host cannot seal any more: %v", err)
	}
	stop = run(t, s)
	shutdown(t, s, stop)
}

// TestRetentionWrongClock seals while the wall clock is wrong, and has it step
// forward: nothing goes before it is old enough.
func TestRetentionWrongClock(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	now := time.Date(2026, 5, 1, 0, 30, 0, 0, time.UTC)
	var boot time.Duration
	cfg.Now, cfg.Boot = func() time.Time { return now }, func() time.Duration { return boot }
	cfg.Retention = Retention{Payloads: 30 * day}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(10)
	now = now.Add(-1000 * day) // a clock without a battery
	other := mustCreateLog(t, s, 2)
	newTestAgent(t, s, other, 2).frame(10)
	now, boot = now.Add(1000*day).Add(time.Minute), time.Minute
	retained := func(what string) {
		t.Helper()
		if _, err := s.Retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, l := range []*Log{l, other} {
			if it, err := l.Item(5); err != nil || it.Erased {
				t.Errorf("%s: a record of a minute ago in %s is erased: %v", what, l.origin, err)
			}
		}
	}
	retained("sealed while the clock was behind")
	now = now.Add(1000 * day)
	retained("the clock steps forward")
	shutdown(t, s, stop)
}

// TestRestoreWithoutKeys restores a backup where the payload keys are given up: an
// empty directory in their place says so.
func TestRestoreWithoutKeys(t *testing.T) {
	cfg, _ := backedUp(t, nil)
	lose(t, cfg)
	if err := errors.Join(cfg.FS.RemoveAll(cfg.PayloadKeys), cfg.FS.MkdirAll(cfg.PayloadKeys, 0o700)); err != nil {
		t.Fatal(err)
	}
	r, err := Restore(t.Context(), cfg, accepted)
	if err != nil {
		t.Fatal(err)
	}
	if r.Report.NoKey == 0 {
		t.Error("the report counts no payloads without a key")
	}
	s := mustOpen(t, cfg)
	stop := run(t, s)
	shutdown(t, s, stop)
}
