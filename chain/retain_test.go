package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const day = 24 * time.Hour

func TestRetentionCheck(t *testing.T) {
	for _, r := range []Retention{{}, {Payloads: day}, {Payloads: day, Leaves: day, Tiles: day}, {Payloads: time.Hour, Leaves: day, Tiles: 2 * day}} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []Retention{{Leaves: day}, {Payloads: 2 * day, Leaves: day}, {Payloads: day, Tiles: day}, {Payloads: day, Leaves: 3 * day, Tiles: 2 * day}, {Payloads: time.Minute}, {Payloads: -day}} {
		if err := r.Check(); !errors.Is(err, record.ErrReject) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	cfg := testConfig(t, vfs.NewMem())
	cfg.DomainRetention = map[string]Retention{"x": {Leaves: day}}
	if _, err := Create(cfg); !errors.Is(err, record.ErrReject) {
		t.Errorf("a retention that cannot be kept: %v", err)
	}
}

// oldLog is a store whose one VM log has more than two prune units of entries,
// sealed on the first day but for the last few thousand, on the second. Its packer
// rests.
type oldLog struct {
	cfg  Config
	now  time.Time
	s    *Store
	stop func() error
	l    *Log
	// heads are sizes with checkpoints, roots those they had.
	heads []uint64
	roots map[uint64]record.Hash
}

func newOldLog(t testing.TB, fs vfs.FS) *oldLog {
	t.Helper()
	o := newLooseLog(t, fs)
	packNow(t, o.s)
	return o
}

// newLooseLog is newOldLog before anything of it is packed.
func newLooseLog(t testing.TB, fs vfs.FS) *oldLog {
	t.Helper()
	o := &oldLog{cfg: testConfig(t, fs), now: time.Date(2026, 5, 1, 0, 30, 0, 0, time.UTC), roots: map[uint64]record.Hash{}}
	o.cfg.unpacked, o.cfg.unretained = true, true
	o.cfg.Now = func() time.Time { return o.now }
	o.cfg.Boot = func() time.Duration { return time.Duration(o.now.UnixNano()) }
	o.cfg.Retention = Retention{Payloads: 2 * day, Leaves: 10 * day, Tiles: 100 * day}
	o.s = mustCreate(t, o.cfg)
	o.stop = run(t, o.s)
	o.l = mustCreateLog(t, o.s, 1)
	a := newTestAgent(t, o.s, o.l, 1)
	a.frame(300)
	o.head(t)
	for o.l.Size() < 2*pruneUnit+600 {
		a.frame(4000)
	}
	verdicts(t, o.s, o.l, 5, 2*pruneUnit+7)
	o.head(t)
	o.now = o.now.Add(day)
	a.frame(3000)
	o.head(t)
	return o
}

func (o *oldLog) head(t testing.TB) {
	t.Helper()
	if err := o.s.CheckpointNow(t.Context(), o.l); err != nil {
		t.Fatal(err)
	}
	size, root := o.l.Root()
	o.heads, o.roots[size] = append(o.heads, size), root
}

func (o *oldLog) restart(t testing.TB) {
	t.Helper()
	shutdown(t, o.s, o.stop)
	if r := mustFsck(t, o.cfg); !r.OK() {
		t.Fatalf("fsck: %v", r.Findings)
	}
	o.s = mustOpen(t, o.cfg)
	o.stop = run(t, o.s)
	o.l, _ = o.s.LogByID(o.l.id)
}

// retain makes rounds until nothing is left to do.
func (o *oldLog) retain(t testing.TB) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = o.s.Retain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// proves checks proofs between every two of the heads that are provable, and of
// entries, against the roots of before.
func (o *oldLog) proves(t testing.TB, indexes []uint64, provable func(size uint64) bool) {
	t.Helper()
	for i, older := range o.heads {
		for _, newer := range o.heads[i:] {
			p, err := o.l.ProveConsistency(older, newer)
			if older != newer && !provable(older) {
				if !errors.Is(err, ErrPruned) {
					t.Errorf("consistency of %d and %d, which is pruned: %v", older, newer, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("consistency of %d and %d: %v", older, newer, err)
			}
			if err := tlog.CheckTree(p, int64(newer), tlog.Hash(o.roots[newer]), int64(older), tlog.Hash(o.roots[older])); err != nil {
				t.Errorf("consistency of %d and %d: %v", older, newer, err)
			}
		}
	}
	newest := o.heads[len(o.heads)-1]
	for _, i := range indexes {
		h, err := o.l.LeafHash(i)
		if err != nil {
			t.Fatalf("leaf hash %d: %v", i, err)
		}
		p, err := o.l.ProveInclusion(i, newest)
		if err != nil {
			t.Fatalf("inclusion of %d: %v", i, err)
		}
		if err := tlog.CheckRecord(p, int64(newest), tlog.Hash(o.roots[newest]), int64(i), tlog.Hash(h)); err != nil {
			t.Errorf("inclusion of %d: %v", i, err)
		}
	}
}

// TestRetention lets a log grow old: its payloads go, then its entries, then their
// hashes, and after each step proofs, evidence, followers and fsck are asked.
func TestRetention(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	second := o.now
	all := func(uint64) bool { return true }
	o.proves(t, []uint64{0, 7, 70_000, 2*pruneUnit + 5}, all)
	if o.retain(t); o.l.Minimum() != 0 || o.s.retention.Erased.Load() != 0 {
		t.Fatal("something went that is not old enough")
	}

	// Payloads of the first day.
	o.now = second.Add(2 * day).Add(-time.Hour)
	o.retain(t)
	item := func(i uint64) Item {
		t.Helper()
		it, err := o.l.Item(i)
		if err != nil {
			t.Fatal(err)
		}
		return it
	}
	if !item(5).Erased || !item(2*pruneUnit+7).Erased || item(o.heads[1]+5).Erased || o.l.Minimum() != 0 {
		t.Fatal("payloads of the first day should be gone, and no others")
	}
	size := o.l.Size()
	if o.retain(t); o.l.Size() != size {
		t.Errorf("another round seals %d entries", o.l.Size()-size)
	}
	o.restart(t)
	if o.retain(t); o.l.Size() != size {
		t.Errorf("a round after a restart seals %d entries", o.l.Size()-size)
	}

	// Entries of the first day, as far as whole units go.
	o.now = second.Add(10 * day).Add(-time.Hour)
	o.retain(t)
	check := func() {
		t.Helper()
		if o.l.Minimum() != 2*pruneUnit {
			t.Fatalf("the minimum is %d", o.l.Minimum())
		}
		for _, i := range []uint64{300, 70_000, 2*pruneUnit - 1} {
			_, err := o.l.Item(i)
			var gone *PrunedError
			if !errors.As(err, &gone) || !errors.Is(err, record.ErrReject) || gone.Minimum != 2*pruneUnit {
				t.Fatalf("entry %d: %v", i, err)
			}
			it := item(gone.Index)
			m, err := it.Decode()
			if p, ok := m.(*record.Pruned); err != nil || !ok || p.What != "leaves" || p.Range.Last != 2*pruneUnit-1 || p.Rule != "retention: leaves are kept for 10 days" {
				t.Fatalf("entry %d, which tells of it: %v %v", gone.Index, m, err)
			}
		}
		if it := item(0); it.Leaf.Header.Class != record.ClassGenesis || it.Erased {
			t.Error("the genesis is gone")
		}
		if _, err := o.l.Bundle(2, tileWidth); !errors.Is(err, ErrPruned) {
			t.Errorf("an entry bundle that was pruned: %v", err)
		}
		if b, err := o.l.Bundle(2*pruneUnit/tileWidth, 1); err != nil || len(b) == 0 {
			t.Errorf("the first entry bundle that was not: %v", err)
		}
		n := 0
		for f := o.s.Tail(Position{}); ; n++ {
			it, ok, err := f.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if it.Log == o.l && it.Index >= tileWidth && it.Index < 2*pruneUnit {
				t.Fatalf("a follower is given entry %d", it.Index)
			}
		}
		if want := int(o.s.host.Size() + o.l.Size() - 2*pruneUnit + tileWidth); n != want {
			t.Errorf("a follower is given %d entries, want %d", n, want)
		}
		report, err := verifyZip(t, exported(t, o.s, o.l, Selection{Indexes: []uint64{o.heads[1] + 9}}), o.s.host.vkey)
		if err != nil || !report.Valid {
			t.Errorf("evidence from a pruned log: %v %+v", err, report.Failures)
		}
	}
	check()
	o.proves(t, []uint64{0, 300, 70_000, 2*pruneUnit + 5}, all)
	o.restart(t)
	check()
	o.proves(t, []uint64{0, 300, 70_000, 2*pruneUnit + 5}, all)

	// Their hashes.
	o.now = second.Add(100 * day).Add(-time.Hour)
	o.retain(t)
	over := func(size uint64) bool { return size >= 2*pruneUnit }
	for range 2 {
		check()
		var gone *PrunedError
		if _, err := o.l.LeafHash(70_000); !errors.As(err, &gone) || gone.Minimum != 2*pruneUnit {
			t.Errorf("the hash of a pruned entry: %v", err)
		}
		o.proves(t, []uint64{0, 2 * pruneUnit, 2*pruneUnit + 5}, over)
		o.heads = append(o.heads[:0:0], o.heads...)
		o.head(t)
		o.restart(t)
	}
	if n := tiles(t, o.s, o.l); n > 30 {
		t.Errorf("%d tiles of level 0 are left", n)
	}
	shutdown(t, o.s, o.stop)
}

// tiles counts the level-0 rows of a log.
func tiles(t testing.TB, s *Store, l *Log) (n int) {
	t.Helper()
	if err := scan(s.db, append(keyLog(tableTile, l.id), 0), func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFsckFindsTakenEntries takes entries away, and leaves some that were pruned,
// by hand: fsck names both, and a changed tile below what is pruned.
func TestFsckFindsTakenEntries(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	shutdown(t, o.s, o.stop)
	byHand := pruned{leaves: pruneUnit, leavesBy: 3, pins: []uint64{0}}
	var rows [pruneUnit / tileWidth][]byte
	edit(t, o.cfg, func(db *pebble.DB) {
		if err := db.Set(keyPruned(o.l.id), byHand.row(), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		for k := uint64(1); k < pruneUnit/tileWidth; k++ {
			key := keySeq(tableBundle, o.l.id, k)
			row, _, err := get(db, key)
			if rows[k] = row; err == nil {
				err = db.Delete(key, pebble.NoSync)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	if r := mustFsck(t, o.cfg); len(r.Findings) != 1 || !strings.Contains(r.Findings[0].String(), "entry 3 does not say so") {
		t.Fatalf("fsck of a log whose entries were taken: %v", r.Findings)
	}
	edit(t, o.cfg, func(db *pebble.DB) {
		for k := uint64(1); k < pruneUnit/tileWidth; k++ {
			if err := db.Set(keySeq(tableBundle, o.l.id, k), rows[k], pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Delete(keyPruned(o.l.id), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	o.s = mustOpen(t, o.cfg)
	o.stop = run(t, o.s)
	o.l, _ = o.s.LogByID(o.l.id)
	o.now = o.now.Add(10 * day).Add(-time.Hour)
	o.retain(t)
	row, _, err := get(o.s.db, keySeq(tableBundle, o.l.id, 2*pruneUnit/tileWidth))
	if err != nil {
		t.Fatal(err)
	}
	p := *o.l.pruned.Load()
	shutdown(t, o.s, o.stop)
	tile := keyTile(o.l.id, 0, 300)
	var was []byte
	finds := func(want string, change, back func(db *pebble.DB) error) {
		t.Helper()
		edit(t, o.cfg, func(db *pebble.DB) {
			if err := change(db); err != nil {
				t.Fatal(err)
			}
		})
		r := mustFsck(t, o.cfg)
		found := false
		for _, f := range r.Findings {
			found = found || strings.Contains(f.String(), want)
		}
		if !found {
			t.Errorf("fsck does not say %q: %v", want, r.Findings)
		}
		edit(t, o.cfg, func(db *pebble.DB) {
			if err := back(db); err != nil {
				t.Fatal(err)
			}
		})
	}
	finds("entries 65536 to 131071 are missing", func(db *pebble.DB) error {
		q := p
		q.leaves -= pruneUnit
		return db.Set(keyPruned(o.l.id), q.row(), pebble.Sync)
	}, func(db *pebble.DB) error { return db.Set(keyPruned(o.l.id), p.row(), pebble.Sync) })
	stray := keySeq(tableBundle, o.l.id, 9)
	finds("is still there", func(db *pebble.DB) error { return db.Set(stray, row, pebble.Sync) },
		func(db *pebble.DB) error { return db.Delete(stray, pebble.Sync) })
	finds("has root", func(db *pebble.DB) error {
		if was, _, err = get(db, tile); err != nil {
			return err
		}
		now := append([]byte{}, was...)
		now[100] ^= 1
		return db.Set(tile, now, pebble.Sync)
	}, func(db *pebble.DB) error { return db.Set(tile, was, pebble.Sync) })
	// The genesis stays: its hash in a tile stands for it in the tree.
	genesis := keySeq(tableBundle, o.l.id, 0)
	finds("entries 0 to 255 are missing", func(db *pebble.DB) error {
		if was, _, err = get(db, genesis); err != nil {
			return err
		}
		return db.Delete(genesis, pebble.Sync)
	}, func(db *pebble.DB) error { return db.Set(genesis, was, pebble.Sync) })
	// A payload that was taken is not covered by naming an entry that was pruned.
	last := keySeq(tablePayload, o.l.id, o.l.Size()-5)
	finds("which does not say so", func(db *pebble.DB) error {
		if was, _, err = get(db, last); err != nil {
			return err
		}
		return db.Set(last, binary.BigEndian.AppendUint64([]byte{payloadErased}, 9000), pebble.Sync)
	}, func(db *pebble.DB) error { return db.Set(last, was, pebble.Sync) })
	if r := mustFsck(t, o.cfg); !r.OK() {
		t.Errorf("fsck behind all: %v", r.Findings)
	}
}

// TestRetentionBehindErasure has nothing pruned while an erasure is not finished: the
// entry that tells of it may be among what goes.
func TestRetentionBehindErasure(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	o.l.erase(newErasure(o.l, 2*pruneUnit-10, &record.Erased{Ranges: []*record.EntryRange{{First: 5000, Last: 5010}}}))
	o.now = o.now.Add(11 * day)
	for more := true; more; {
		var err error
		if more, err = o.s.Retain(t.Context()); !more && (err == nil || !strings.Contains(err.Error(), "erasure in entry 131062")) {
			t.Errorf("retention says %v", err)
		}
	}
	if o.l.Minimum() != 0 {
		t.Errorf("entries before %d are pruned", o.l.Minimum())
	}
	o.l.erasing.Store(nil)
	if o.retain(t); o.l.Minimum() != 2*pruneUnit {
		t.Errorf("entries before %d are pruned", o.l.Minimum())
	}
	shutdown(t, o.s, o.stop)
}

// TestRetentionCrash cuts the power amid pruning. Where the entry that prunes has
// survived, the next run finishes; where it has not, nothing is gone.
func TestRetentionCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := newOldLog(t, fs)
	o.now = o.now.Add(10 * day).Add(-time.Hour)
	if _, err := o.s.Retain(t.Context()); err != nil { // payloads, as far as a round goes
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 5))
	done := make(chan error, 1)
	o.l.kept.leaves = 0
	before := o.l.pruned.Load()
	if before == nil || before.leaves != 2*pruneUnit {
		t.Fatalf("pruned %+v", before)
	}
	go func() {
		o.s.retainMu.Lock()
		defer o.s.retainMu.Unlock()
		o.s.eraseMu.Lock()
		defer o.s.eraseMu.Unlock()
		done <- o.s.prune(t.Context(), o.l, prunedTiles, 2*pruneUnit, o.now, "a test")
	}()
	var crashed []*vfs.MemFS
	for pruning := true; pruning; {
		crashed = append(crashed, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
		select {
		case err := <-done:
			if pruning = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	shutdown(t, o.s, o.stop)
	cut := 0
	for i := 0; i < len(crashed); i += 1 + len(crashed)/5 {
		c := *o
		c.cfg.FS = crashed[i]
		if r := mustFsck(t, c.cfg); !r.OK() {
			t.Fatalf("crash %d: fsck: %v", i, r.Findings)
		}
		c.s = mustOpen(t, c.cfg)
		c.l, _ = c.s.LogByID(o.l.id)
		if c.l.pruned.Load().pending {
			cut++
		}
		c.stop = run(t, c.s)
		c.proves(t, []uint64{0, 2 * pruneUnit}, func(size uint64) bool { return size >= 2*pruneUnit || c.l.pruned.Load().tiles == 0 })
		shutdown(t, c.s, c.stop)
		if r := mustFsck(t, c.cfg); !r.OK() {
			t.Fatalf("crash %d: fsck behind a run: %v", i, r.Findings)
		}
	}
	t.Logf("%d crashes, %d of those looked at amid pruning", len(crashed), cut)
}

// TestRetainBounded has a round stop at its bound, and the next one go on.
func TestRetainBounded(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	now := time.Date(2026, 5, 1, 0, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	cfg.Boot = func() time.Duration { return time.Duration(now.UnixNano()) }
	cfg.DomainRetention = map[string]Retention{fmt.Sprintf("6a2f41a3-c54c-4f54-9d3b-%012x", 2): {Payloads: day}}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	kept, l := mustCreateLog(t, s, 1), mustCreateLog(t, s, 2)
	newTestAgent(t, s, kept, 1).frame(10)
	a := newTestAgent(t, s, l, 2)
	a.frame(1000)
	now = now.Add(2 * day)
	at := uint64(100)
	if more, err := l.aged(t.Context(), &at, 200, now.Add(-day)); more || err != nil || at != 200 {
		t.Errorf("aged up to %d, more %v, %v", at, more, err)
	}
	more, err := s.Retain(t.Context())
	if more || err != nil {
		t.Fatal(more, err)
	}
	if it, err := l.Item(5); err != nil || !it.Erased {
		t.Errorf("an old record of a domain with a retention: erased %v, %v", it.Erased, err)
	}
	if it, err := kept.Item(5); err != nil || it.Erased {
		t.Errorf("an old record of a domain without one: erased %v, %v", it.Erased, err)
	}
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 0, Last: 100}}, "r", "a"); !errors.Is(err, record.ErrReject) {
		t.Errorf("erasing what is gone: %v", err)
	}
}

// TestRetentionOfHashesInLog has a log that goes on: the entry which told of the
// first pruning is pruned itself before the hashes are old enough, and they go all
// the same when they are.
func TestRetentionOfHashesInLog(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	first := o.now
	go1 := func(age time.Duration) {
		t.Helper()
		o.now = first.Add(age).Add(-time.Hour)
		o.retain(t)
	}
	go1(10 * day)
	if o.l.Minimum() != 2*pruneUnit {
		t.Fatalf("the minimum is %d", o.l.Minimum())
	}
	a := newTestAgent(t, o.s, o.l, 2)
	for o.l.Size() < 3*pruneUnit+600 {
		a.frame(4000)
	}
	if err := o.s.CheckpointNow(t.Context(), o.l); err != nil {
		t.Fatal(err)
	}
	packNow(t, o.s)
	go1(21 * day)
	if o.l.Minimum() != 3*pruneUnit {
		t.Fatalf("the minimum is %d", o.l.Minimum())
	}
	o.restart(t)
	go1(100*day - 26*time.Hour)
	if p := o.l.pruned.Load(); p.tiles != 0 {
		t.Fatalf("hashes before %d went early", p.tiles)
	}
	go1(101 * day)
	if p := o.l.pruned.Load(); p.tiles != 2*pruneUnit {
		t.Fatalf("hashes before %d are gone, want %d", p.tiles, 2*pruneUnit)
	}
	go1(112 * day)
	if p := o.l.pruned.Load(); p.tiles != 3*pruneUnit {
		t.Fatalf("hashes before %d are gone, want %d", p.tiles, 3*pruneUnit)
	}
	o.restart(t)
	shutdown(t, o.s, o.stop)
}
