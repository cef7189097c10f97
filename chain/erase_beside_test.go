package chain

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// spoil has entry 20 of a log be damaged and fenced off, as a repair leaves it.
func spoil(t *testing.T, s *Store, l *Log, packed bool) {
	t.Helper()
	const index = 20
	f := fence{first: index, last: index, reason: "a test"}
	err := s.db.Set(keyFence(l.id, index), f.append(nil), pebble.Sync)
	if !packed {
		err = errors.Join(err, s.db.Delete(keySeq(tableEntry, l.id, index), pebble.Sync), s.db.Delete(keySeq(tablePayload, l.id, index), pebble.Sync))
	} else {
		e := &eraser{erasure: newErasure(l, 0, nil), s: s, l: l}
		rows, _, rerr := e.read(t.Context(), 0)
		if rerr != nil {
			t.Fatal(rerr)
		}
		out := make([]packRow, len(rows))
		for i := range rows {
			out[i] = packRow{leaf: rows[i].leaf, open: rows[i].open}
		}
		out[index].open.payload = []byte("something else")
		row, perr := packBundle(out, s.keys, l.id)
		err = errors.Join(err, perr, s.flushKeys(), s.db.Set(keySeq(tableBundle, l.id, 0), row, pebble.Sync))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEraseBesideFence erases records of a bundle in which another entry is fenced
// off: they are gone, and nothing else is.
func TestEraseBesideFence(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("encrypted=%v/packed=%v", encrypted, packed), func(t *testing.T) {
				cfg := testConfig(t, vfs.NewMem())
				if cfg.unpacked = true; !encrypted {
					cfg.PayloadKeys = ""
				}
				s := mustCreate(t, cfg)
				stop := run(t, s)
				l := mustCreateLog(t, s, 1)
				erasable(t, s, l)
				if packed {
					packNow(t, s)
				}
				before := contents(t, l)
				spoil(t, s, l, packed)
				shutdown(t, s, stop)
				s = mustOpen(t, cfg)
				stop = run(t, s)
				l, _ = s.LogByID(l.id)
				r := proof.Range{First: 30, Last: 40}
				if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "r", "a"); err != nil {
					t.Fatal(err)
				}
				for i := range before {
					old := &before[i]
					item, err := l.Item(old.Index)
					if i == 20 {
						if !errors.Is(err, ErrUnreadable) {
							t.Errorf("the fenced entry: %v", err)
						}
						continue
					}
					gone := old.Leaf.Origin == record.OriginGuest && r.First <= old.Index && old.Index <= r.Last || quotes(old, r)
					if err != nil || item.Erased != gone || !gone && string(item.Payload) != string(old.Payload) {
						t.Fatalf("entry %d: erased %v, want %v, %v", i, item.Erased, gone, err)
					}
				}
				untilGone(t, cfg, []string{string(before[35].Payload)})
				shutdown(t, s, stop)
				if r := mustFsck(t, cfg); !r.OK() || r.Fenced != 1 {
					t.Errorf("fsck: %d fenced, %v", r.Fenced, r.Findings)
				}
			})
		}
	}
}

// TestEraseBesideLostKey erases part of an hour, in a bundle that holds entries of
// another hour whose key is lost. Where the bundle is packed it cannot be packed anew:
// then the key which others need is not destroyed, and the erasure is finished when
// the lost key is back.
func TestEraseBesideLostKey(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed=%v", packed), func(t *testing.T) {
			cfg := testConfig(t, vfs.NewMem())
			cfg.unpacked = true
			now := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
			cfg.Now = func() time.Time { return now }
			s := mustCreate(t, cfg)
			stop := run(t, s)
			l := mustCreateLog(t, s, 1)
			a := newTestAgent(t, s, l, 1)
			a.frame(50)
			lost := s.keys.path(hourOf(now.UnixNano()))
			now = now.Add(time.Hour)
			second := l.Size()
			a.frame(400)
			if packed {
				packNow(t, s)
			}
			before := contents(t, l)
			shutdown(t, s, stop)
			if err := cfg.FS.Rename(lost, "/lost"); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, cfg)
			stop = run(t, s)
			l, _ = s.LogByID(l.id)
			r := proof.Range{First: second + 10, Last: second + 20}
			if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "r", "a"); (err != nil) != packed {
				t.Fatal(err)
			}
			check := func(first uint64) {
				t.Helper()
				for i := first; i < uint64(len(before)); i++ {
					item, err := l.Item(i)
					if gone := i >= r.First && i <= r.Last; err != nil || item.Erased != gone || !gone && string(item.Payload) != string(before[i].Payload) {
						t.Fatalf("entry %d: erased %v, want %v, %v", i, item.Erased, gone, err)
					}
				}
			}
			check(second)
			if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "r", "a"); !errors.Is(err, record.ErrReject) {
				t.Errorf("erasing it again: %v", err)
			}
			shutdown(t, s, stop)
			if err := cfg.FS.Rename("/lost", lost); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, cfg)
			l, _ = s.LogByID(l.id)
			if (len(s.unfinished) == 1) != packed {
				t.Fatalf("%d erasures are not finished", len(s.unfinished))
			}
			if err := s.resumeErasures(t.Context()); err != nil {
				t.Fatal(err)
			}
			if list := l.erasing.Load(); list != nil && len(*list) != 0 {
				t.Fatal("it is not finished")
			}
			check(0)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if r := mustFsck(t, cfg); !r.OK() {
				t.Errorf("fsck: %v", r.Findings)
			}
		})
	}
}

// TestEraseDamagedKeys erases from an hour whose file of keys is damaged: it is refused,
// the host goes on sealing, and the keeper goes on with other logs.
func TestEraseDamagedKeys(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	now := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	cfg.Boot = func() time.Duration { return time.Duration(now.UnixNano()) }
	cfg.Retention = Retention{Payloads: day}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	newTestAgent(t, s, mustCreateLog(t, s, 1), 1).frame(10)
	damaged := s.keys.path(hourOf(now.UnixNano()))
	now = now.Add(time.Hour)
	newTestAgent(t, s, mustCreateLog(t, s, 2), 2).frame(10)
	now = now.Add(2 * day)
	shutdown(t, s, stop)
	f, err := cfg.FS.OpenReadWrite(damaged, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.WriteAt([]byte("????"), 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	stop = run(t, s)
	if _, err := s.Retain(t.Context()); err == nil || s.Err() != nil {
		t.Errorf("retention says %v, the store %v", err, s.Err())
	}
	l, _ := s.LogByID(1)
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l}, "r", "a"); err == nil {
		t.Error("erased without keys")
	}
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "on")}})
	other, _ := s.LogByID(2)
	if it, err := other.Item(5); err != nil || !it.Erased {
		t.Errorf("a record of another log, as old: erased %v, %v", it.Erased, err)
	}
	shutdown(t, s, stop)
}
