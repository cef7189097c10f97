package chain

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// lookAll reads all entries of a log that it has by now, readable or not.
func lookAll(t testing.TB, l *Log, end uint64) []Item {
	t.Helper()
	all := make([]Item, 0, end)
	for i := range end {
		item, err := l.Look(i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

// sameBut wants entries as they were, but for some that cannot be read.
func sameBut(t testing.TB, l *Log, want []Item, lost map[uint64]bool) {
	t.Helper()
	for i, got := range lookAll(t, l, uint64(len(want))) {
		switch w := want[i]; {
		case lost[uint64(i)] != (got.Unreadable != nil):
			t.Errorf("entry %d: unreadable %v", i, got.Unreadable)
		case got.LeafHash != w.LeafHash:
			t.Errorf("entry %d has another hash", i)
		case !lost[uint64(i)] && (!bytes.Equal(got.LeafBytes, w.LeafBytes) || !bytes.Equal(got.Payload, w.Payload) || got.Salt() != w.Salt() || got.Erased != w.Erased):
			t.Errorf("entry %d is another: %+v", i, got)
		}
	}
}

// standing returns of each full bundle how it stands: B packed, E in rows, - not at all.
func standing(t testing.TB, s *Store, l *Log) string {
	t.Helper()
	out := make([]byte, l.Size()/tileWidth)
	for k := range out {
		_, packed, err := get(s.db, keySeq(tableBundle, l.id, uint64(k)))
		rows := 0
		first := uint64(k) * tileWidth
		err = errors.Join(err, scanRange(s.db, keySeq(tableEntry, l.id, first), keySeq(tableEntry, l.id, first+tileWidth), func(_, _ []byte) error { rows++; return nil }))
		if err != nil || packed && rows > 0 {
			t.Fatalf("bundle %d: packed %v, %d leaves, %v", k, packed, rows, err)
		}
		out[k] = '-'
		if packed {
			out[k] = 'B'
		} else if rows > 0 {
			out[k] = 'E'
		}
	}
	return string(out)
}

// spoilRows takes away rows of entries that are not packed: leaf and payload, or the
// latter alone.
func spoilRows(t testing.TB, db *pebble.DB, l *Log, index uint64, leaf bool) {
	t.Helper()
	err := db.Delete(keySeq(tablePayload, l.id, index), pebble.Sync)
	if leaf {
		err = errors.Join(err, db.Delete(keySeq(tableEntry, l.id, index), pebble.Sync))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mustRepair(t testing.TB, cfg Config) {
	t.Helper()
	r, err := Repair(t.Context(), cfg, FsckOptions{Frame: testFrame})
	if err != nil || !r.Fenced() {
		t.Fatalf("repair: %+v, %v", r, err)
	}
}

// looseStore is a closed store whose VM log has seven full bundles of which some entries
// are damaged and fenced off, before they were packed: of the genesis' bundle, of the
// next two, and all of the fourth. It returns what was in it before, and which are lost.
func looseStore(t testing.TB, fs vfs.FS) (cfg Config, l *Log, before []Item, lost map[uint64]bool) {
	t.Helper()
	cfg = testConfig(t, fs)
	cfg.unpacked = true
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l = mustCreateLog(t, s, 1)
	variety(t, s, l)
	for l.Size() < 7*tileWidth+20 {
		newTestAgent(t, s, l, l.Size()).frame(100)
	}
	if err := s.CheckpointNow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	before = lookAll(t, l, l.Size())
	shutdown(t, s, stop)
	lost = map[uint64]bool{40: true, tileWidth + 3: true, tileWidth + 4: true, 3*tileWidth - 1: true}
	edit(t, cfg, func(db *pebble.DB) {
		for i := range lost {
			spoilRows(t, db, l, i, i != 40)
		}
		for i := uint64(3 * tileWidth); i < 4*tileWidth; i++ {
			spoilRows(t, db, l, i, true)
			lost[i] = true
		}
	})
	mustRepair(t, cfg)
	return cfg, l, before, lost
}

// TestPackerGoesOn packs a log of which entries are fenced that were not packed: what
// cannot be packed stays in rows, all else is packed, and everything that reads or
// changes a store knows the difference.
func TestPackerGoesOn(t *testing.T) {
	cfg, l, before, lost := looseStore(t, vfs.NewMem())
	s := mustOpen(t, cfg)
	l, _ = s.LogByID(l.id)
	sameBut(t, l, before, lost)
	packNow(t, s)
	const want = "EEE-BBB"
	if got := standing(t, s, l); got != want || packNow(t, s) != 0 {
		t.Fatalf("bundles stand %s, want %s", got, want)
	}
	sameBut(t, l, before, lost)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := mustFsck(t, cfg); !r.OK() || r.Fenced != uint64(len(lost)) {
		t.Fatalf("fsck: %d fenced, want %d, %v", r.Fenced, len(lost), r.Findings)
	}

	// The next run reads all of it before its packer has come by, and after.
	s = mustOpen(t, cfg)
	stop := run(t, s)
	l, _ = s.LogByID(l.id)
	sameBut(t, l, before, lost)
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 10, Last: 30}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	if packNow(t, s); standing(t, s, l) != want {
		t.Fatalf("bundles stand %s, want %s", standing(t, s, l), want)
	}
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 200, Last: 5*tileWidth + 9}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	for i, item := range lookAll(t, l, uint64(len(before))) {
		n := uint64(i)
		erased := before[i].Leaf.Origin == record.OriginGuest && (n >= 10 && n <= 30 || n >= 200 && n <= 5*tileWidth+9)
		if lost[n] != (item.Unreadable != nil) || !lost[n] && erased != item.Erased {
			t.Errorf("entry %d: erased %v, want %v, %v", n, item.Erased, erased, item.Unreadable)
		}
	}
	if standing(t, s, l) != want {
		t.Errorf("erasing has them stand %s", standing(t, s, l))
	}
	if err := Export(t.Context(), s, l, Selection{Indexes: []uint64{tileWidth + 200, 6 * tileWidth}}, io.Discard); err != nil {
		t.Errorf("export: %v", err)
	}
	if _, err := s.Backup(t.Context(), BackupOptions{Dir: "/backup", Requester: "ann"}); err != nil {
		t.Errorf("backup: %v", err)
	}
	after := lookAll(t, l, uint64(len(before)))
	shutdown(t, s, stop)

	// More damage in rows that were left, and in a bundle behind them.
	edit(t, cfg, func(db *pebble.DB) {
		flipRow(t, db, keySeq(tablePayload, l.id, 100), 40)
		spoilRows(t, db, l, 2*tileWidth, true)
	})
	lost[100], lost[2*tileWidth] = true, true
	if r := mustFsck(t, cfg); len(r.Findings) != 2 || *r.Findings[0].Index != 100 || *r.Findings[1].Index != 2*tileWidth {
		t.Errorf("fsck finds %v", r.Findings)
	}
	mustRepair(t, cfg)
	s = mustOpen(t, cfg)
	l, _ = s.LogByID(l.id)
	stop = run(t, s)
	packNow(t, s)
	sameBut(t, l, after, lost)
	if standing(t, s, l) != want {
		t.Errorf("behind the second repair they stand %s", standing(t, s, l))
	}
	if err := s.CloseLog(t.Context(), l, "end", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Drop(t.Context(), l, dropOf(t, s, l)); err != nil {
		t.Fatal(err)
	}
	if got := standing(t, s, l); strings.Trim(got, "-") != "" {
		t.Errorf("dropped, bundles stand %s", got)
	}
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() {
		t.Errorf("fsck: %v", r.Findings)
	}
}

// TestPackerGoesOnCrash cuts the power behind the packer of such a log: what it has
// written is there, or the rows are.
func TestPackerGoesOnCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cfg, l, before, lost := looseStore(t, fs)
	s := mustOpen(t, cfg)
	l, _ = s.LogByID(l.id)
	for step := uint64(0); ; step++ {
		n, err := s.packSome(l, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, percent := range []int{0, 50, 100} {
			crashed := cfg
			crashed.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(step, 7))})
			again := mustOpen(t, crashed)
			copied, _ := again.LogByID(l.id)
			sameBut(t, copied, before, lost)
			packNow(t, again)
			if got := standing(t, again, copied); got != "EEE-BBB" {
				t.Errorf("step %d, %d percent: bundles stand %s", step, percent, got)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			if r := mustFsck(t, crashed); !r.OK() {
				t.Errorf("step %d, %d percent: fsck: %v", step, percent, r.Findings)
			}
		}
		if n == 0 {
			break
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPackerFindsTheKey loses a payload key before its entries are packed, and brings it
// back: what was left in rows is packed then.
func TestPackerFindsTheKey(t *testing.T) {
	cfg, l, first, last := threeHours(t, false)
	path := newPayloadKeys(cfg, [16]byte{}).path(time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC).Unix() / 3600)
	if err := cfg.FS.Rename(path, "/away"); err != nil {
		t.Fatal(err)
	}
	for _, there := range []bool{false, true} {
		if there {
			if err := cfg.FS.Rename("/away", path); err != nil {
				t.Fatal(err)
			}
		}
		s := mustOpen(t, cfg)
		l, _ = s.LogByID(l.id)
		packNow(t, s)
		for k, how := range []byte(standing(t, s, l)) {
			touched := uint64(k) >= first/tileWidth && uint64(k) <= last/tileWidth
			if (how == 'E') != (touched && !there) {
				t.Errorf("key there %v: bundle %d stands %c", there, k, how)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r := mustFsck(t, cfg)
		if there != r.OK() {
			t.Errorf("key there %v: fsck finds %v", there, r.Findings)
		}
	}
}

// TestRetentionBehindFences prunes a log of which bundles were never packed: one that
// must stay, one that goes, the first one behind the minimum and one of the last.
func TestRetentionBehindFences(t *testing.T) {
	o := newLooseLog(t, vfs.NewMem())
	shutdown(t, o.s, o.stop)
	loose := []uint64{0, 300, 2 * pruneUnit / tileWidth, 2*pruneUnit/tileWidth + 2}
	edit(t, o.cfg, func(db *pebble.DB) {
		for i, k := range loose {
			spoilRows(t, db, o.l, k*tileWidth+40+uint64(i), i%2 == 0)
		}
	})
	mustRepair(t, o.cfg)
	o.s = mustOpen(t, o.cfg)
	o.stop = run(t, o.s)
	o.l, _ = o.s.LogByID(o.l.id)
	packNow(t, o.s)
	stand := func(want ...byte) {
		t.Helper()
		got := standing(t, o.s, o.l)
		for i, k := range loose {
			if got[k] != want[i] {
				t.Errorf("bundle %d stands %c, want %c", k, got[k], want[i])
			}
		}
	}
	stand('E', 'E', 'E', 'E')
	second := o.now
	for _, round := range []struct {
		after   time.Duration
		minimum uint64
		stand   []byte
	}{{2 * day, 0, []byte("EEEE")}, {10 * day, 2 * pruneUnit, []byte("E-EE")}, {100 * day, 2 * pruneUnit, []byte("E-EE")}} {
		o.now = second.Add(round.after).Add(-time.Hour)
		o.retain(t)
		if o.l.Minimum() != round.minimum {
			t.Fatalf("behind %s the minimum is %d, want %d", round.after, o.l.Minimum(), round.minimum)
		}
		stand(round.stand...)
		for range 2 {
			o.proves(t, []uint64{2 * pruneUnit, 2*pruneUnit + 700}, func(size uint64) bool { return round.after < 100*day || size >= 2*pruneUnit })
			if item, err := o.l.Item(41); err != nil || !item.Erased {
				t.Errorf("an entry of a bundle that stays: %+v, %v", item, err)
			}
			if _, err := o.l.Item(40); !errors.Is(err, ErrUnreadable) {
				t.Errorf("a fenced entry of it: %v", err)
			}
			if _, err := o.l.Item(300*tileWidth + 5); errors.Is(err, ErrPruned) != (round.minimum > 0) {
				t.Errorf("entry of a bundle that goes: %v", err)
			}
			o.restart(t) // with fsck
			if packNow(t, o.s); o.l.packed.Load() != o.l.Size()/tileWidth {
				t.Errorf("the packer has come to %d", o.l.packed.Load())
			}
		}
	}
	if o.l.pruned.Load().tiles == 0 {
		t.Error("no tiles were pruned")
	}
	shutdown(t, o.s, o.stop)
	edit(t, o.cfg, func(db *pebble.DB) { flipRow(t, db, keySeq(tableEntry, o.l.id, 50), 30) })
	if r := mustFsck(t, o.cfg); len(r.Findings) == 0 || r.Findings[0].Index == nil || *r.Findings[0].Index != 50 {
		t.Errorf("fsck of a pinned bundle in rows: %v", r.Findings)
	}
}
