package chain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// cutShort has a store say that the erasure in an entry is not done.
func cutShort(t *testing.T, cfg Config, p *erasure) {
	t.Helper()
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Set(keyErasure(p.log.id, p.index), p.row(), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUnfinishedErasureFenced opens a store with an erasure that is not done and whose
// entry is fenced: the host seals, what the erasure may name is held back, and fsck
// says so.
func TestUnfinishedErasureFenced(t *testing.T) {
	for _, keys := range []bool{true, false} {
		t.Run(fmt.Sprintf("keys=%v", keys), func(t *testing.T) {
			cfg := testConfig(t, vfs.NewMem())
			cfg.unpacked = true
			if !keys {
				plain(&cfg)
			}
			s := mustCreate(t, cfg)
			stop := run(t, s)
			l := mustCreateLog(t, s, 1)
			other := mustCreateLog(t, s, 2)
			newTestAgent(t, s, other, 2).frame(5)
			newTestAgent(t, s, l, 1).frame(50)
			verdicts(t, s, l, 7)
			if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 20, Last: 20}}, "r", "a"); err != nil {
				t.Fatal(err)
			}
			index := l.Size() - 1
			p := &erasure{log: l, index: index}
			if keys {
				p.retired = []retiredKey{{hourOf(l.Head().Wall), 1}}
			}
			newTestAgent(t, s, l, 3).frame(4)
			later := l.Size() - 2
			shutdown(t, s, stop)
			cutShort(t, cfg, p)
			edit(t, cfg, func(db *pebble.DB) {
				if err := db.Delete(keySeq(tablePayload, l.id, index), pebble.Sync); err != nil {
					t.Fatal(err)
				}
			})
			if r, err := Repair(t.Context(), cfg, FsckOptions{Frame: testFrame}); err != nil || !r.Fenced() {
				t.Fatalf("%+v %v", r, err)
			}
			s = mustOpen(t, cfg)
			stop = run(t, s)
			l, _ = s.LogByID(l.id)
			other, _ = s.LogByID(other.id)
			held := 0
			for i := range l.Size() {
				item, err := l.Look(i)
				if err != nil {
					t.Fatal(err)
				}
				hold := i < index && (item.Leaf.Origin == record.OriginGuest || isVerdict(&item.Leaf)) && i != 20
				if hold {
					held++
				}
				var e *UnreadableError
				if hold != (errors.As(item.Unreadable, &e) && e.heldBy == index) || hold && (item.Payload != nil || item.Salt() != record.Salt{}) {
					t.Errorf("entry %d: held back %v, want %v", i, item.Unreadable, hold)
				}
				if _, err := l.Item(i); hold != (errors.Is(err, ErrUnreadable) && i != index) {
					t.Errorf("item %d: %v", i, err)
				}
			}
			if held != 50 { // 49 records and the verdict
				t.Errorf("%d entries are held back", held)
			}
			for _, at := range []struct {
				l     *Log
				index uint64
			}{{l, later}, {other, other.Size() - 2}} {
				if item, err := at.l.Item(at.index); err != nil || item.Erased {
					t.Errorf("entry %d of %s, which the erasure cannot name: %v", at.index, at.l.origin, err)
				}
			}
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "on")}})
			shutdown(t, s, stop)
			r := mustFsck(t, cfg)
			if len(r.Findings) != 1 || r.Findings[0].Table != "erasure" || r.Findings[0].Log != l.origin || *r.Findings[0].Index != index {
				t.Errorf("fsck finds %v", r.Findings)
			}
		})
	}
}

// TestEraseAroundFences erases all records of a log of which some entries are
// fenced: packed and not, by themselves and as a whole bundle. Nothing of a record
// is left, and what is not erased stays.
func TestEraseAroundFences(t *testing.T) {
	for _, keys := range []bool{true, false} {
		for _, packed := range []bool{true, false} {
			t.Run(fmt.Sprintf("keys=%v packed=%v", keys, packed), func(t *testing.T) {
				cfg := testConfig(t, vfs.NewMem())
				cfg.unpacked = true
				if !keys {
					plain(&cfg)
				}
				s := mustCreate(t, cfg)
				stop := run(t, s)
				l := mustCreateLog(t, s, 1)
				a := newTestAgent(t, s, l, 1)
				for range 4 {
					a.frame(tileWidth)
					verdicts(t, s, l, l.Size()-5)
				}
				if packed {
					packNow(t, s)
				}
				shutdown(t, s, stop)
				damaged := map[uint64]bool{}
				edit(t, cfg, func(db *pebble.DB) {
					if packed {
						for i := range uint64(tileWidth) {
							damaged[tileWidth+i] = true
						}
						flipRow(t, db, keySeq(tableBundle, l.id, 1), 9)
						return
					}
					for _, i := range []uint64{10, tileWidth + 3, tileWidth + 4} {
						damaged[i] = true
						flipRow(t, db, keySeq(tablePayload, l.id, i), 40)
					}
				})
				if r, err := Repair(t.Context(), cfg, FsckOptions{Frame: testFrame}); err != nil || !r.Fenced() {
					t.Fatalf("%+v %v", r, err)
				}
				if packed { // a fence around one entry of a bundle that others need
					damaged[20] = true
					edit(t, cfg, func(db *pebble.DB) {
						f := fence{first: 20, last: 20, reason: "a test"}
						if err := db.Set(keyFence(l.id, 20), f.append(nil), pebble.Sync); err != nil {
							t.Fatal(err)
						}
					})
				}
				s = mustOpen(t, cfg)
				stop = run(t, s)
				l, _ = s.LogByID(l.id)
				before := l.Size()
				if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 0, Last: before - 20}}, "r", "a"); err != nil {
					t.Fatal(err)
				}
				for i := range before {
					item, err := l.Look(i)
					if err != nil {
						t.Fatal(err)
					}
					gone := item.Leaf.Origin == record.OriginGuest && i <= before-20
					switch {
					case damaged[i] != (item.Unreadable != nil):
						t.Errorf("entry %d: %v", i, item.Unreadable)
					case !damaged[i] && gone != item.Erased && !isVerdict(&item.Leaf):
						t.Errorf("entry %d: erased %v", i, item.Erased)
					}
				}
				shutdown(t, s, stop)
				if r := mustFsck(t, cfg); !r.OK() {
					t.Errorf("fsck finds %v", r.Findings)
				}
				var texts []string
				for n := range a.next - 20 {
					texts = append(texts, fmt.Sprintf("/etc/file-%d\"", n), fmt.Sprintf("/etc/file-%d\x00", n))
				}
				if found := filesWith(t, cfg.FS, cfg.Dir, texts...); found != nil {
					t.Errorf("erased bytes stand in %v", found)
				}
			})
		}
	}
}
