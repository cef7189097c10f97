package chain

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// original is what a store held before it was damaged.
type original struct {
	cfg   Config
	roots map[string]record.Hash
	sizes map[string]uint64
	items map[string][]Item
	keys  [][]byte // of all rows
}

// wellKnown makes a store, packed or not, and reads all of it.
func wellKnown(t *testing.T, packed bool) *original {
	t.Helper()
	cfg, _ := closedStore(t, vfs.NewMem())
	s := mustOpen(t, cfg)
	if packed {
		packNow(t, s)
	}
	o := &original{cfg: cfg}
	o.read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// read takes note of all that a store holds.
func (o *original) read(t *testing.T, s *Store) {
	t.Helper()
	o.roots, o.sizes, o.items = map[string]record.Hash{}, map[string]uint64{}, map[string][]Item{}
	for _, l := range s.Logs() {
		o.sizes[l.origin], o.roots[l.origin] = l.Root()
		o.items[l.origin] = contents(t, l)
	}
	if err := scan(s.db, nil, func(key, _ []byte) error { o.keys = append(o.keys, bytes.Clone(key)); return nil }); err != nil {
		t.Fatal(err)
	}
}

// copy returns the configuration of a copy of the store.
func (o *original) copy(t *testing.T) Config {
	t.Helper()
	cfg := o.cfg
	cfg.FS = vfs.NewMem()
	if _, err := vfs.Clone(o.cfg.FS, cfg.FS, "/", "/"); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// holds opens a mended store: it must have every entry that the original had,
// at its place and with its hash, and read it unless it is fenced.
func (o *original) holds(t *testing.T, cfg Config, name string) (fenced int) {
	t.Helper()
	s := mustOpen(t, cfg)
	for origin, items := range o.items {
		l, ok := s.LogByOrigin(origin)
		if !ok {
			t.Fatalf("%s: %s is gone", name, origin)
		}
		if root, err := l.RootAt(o.sizes[origin]); err != nil || root != o.roots[origin] {
			t.Fatalf("%s: %s has root %s at size %d, want %s (%v)", name, origin, root, o.sizes[origin], o.roots[origin], err)
		}
		for i, want := range items {
			got, err := l.Look(uint64(i))
			if err != nil || got.LeafHash != want.LeafHash {
				t.Fatalf("%s: entry %d of %s has hash %s, want %s (%v)", name, i, origin, got.LeafHash, want.LeafHash, err)
			}
			if _, err := l.ProveInclusion(uint64(i), o.sizes[origin]); err != nil {
				t.Fatalf("%s: entry %d of %s: %v", name, i, origin, err)
			}
			if got.Unreadable != nil {
				fenced++
				continue
			}
			if !bytes.Equal(got.LeafBytes, want.LeafBytes) || !bytes.Equal(got.Payload, want.Payload) || got.Salt() != want.Salt() {
				t.Fatalf("%s: entry %d of %s is another", name, i, origin)
			}
		}
	}
	f := s.Tail(Position{})
	next := map[LogID]uint64{}
	for {
		item, ok, err := f.TryNext()
		if err != nil {
			t.Fatalf("%s: the follower stops: %v", name, err)
		}
		if !ok {
			break
		}
		if item.Index != next[item.Log.id] {
			t.Fatalf("%s: the follower sees entry %d of %s, want %d", name, item.Index, item.Log.origin, next[item.Log.id])
		}
		next[item.Log.id]++
	}
	for _, l := range s.Logs() {
		if next[l.id] != l.Size() {
			t.Fatalf("%s: the follower sees %d entries of %s, want %d", name, next[l.id], l.origin, l.Size())
		}
	}
	stop := run(t, s)
	l, _ := s.LogByID(1)
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "after")}})
	if err := s.CheckpointNow(context.Background(), l); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() || r.Fenced != uint64(fenced) {
		t.Fatalf("%s: %d entries are fenced of %d, findings %v", name, r.Fenced, fenced, r.Findings)
	}
	return fenced
}

// derived reports whether a row can be made again from others.
func derived(key []byte) bool {
	switch key[0] {
	case tableTile, tableRoot, tableHead, tableCommit, tableQuote, tableFollower:
		return true
	case tableMeta:
		return key[1] != metaUser
	}
	return false
}

// TestRepairEveryRow changes, or takes away, each row of a store and repairs it:
// no log is shorter afterwards, no entry is another, and nothing is fenced that
// was not damaged.
func TestRepairEveryRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for _, packed := range []bool{false, true} {
		o := wellKnown(t, packed)
		stride := 1
		if !*long {
			stride = 29
			t.Logf("short run: every %dth of %d rows; -long takes each", stride, len(o.keys))
		}
		for at := rng.IntN(stride); at < len(o.keys); at += stride {
			key := o.keys[at]
			for _, remove := range []bool{false, true} {
				o.repair(t, rng, key, remove)
			}
		}
	}
}

func (o *original) repair(t *testing.T, rng *rand.Rand, key []byte, remove bool) {
	t.Helper()
	cfg := o.copy(t)
	name := string(key[:1]) + " " + record.Printable(key)
	edit(t, cfg, func(db *pebble.DB) {
		if remove {
			name += " removed"
			if err := db.Delete(key, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			return
		}
		row, _, err := get(db, key)
		if err != nil || len(row) == 0 {
			return
		}
		flipRow(t, db, key, rng.IntN(len(row)))
	})
	before := mustFsck(t, cfg)
	r, err := Repair(context.Background(), cfg, FsckOptions{Frame: testFrame})
	if err != nil {
		t.Fatalf("%s: %v (fsck: %v)", name, err, before.Findings)
	}
	if !before.OK() && mended(before) && r.Kept == "" {
		return // the row names another key now: that key is what lacks
	}
	if before.OK() != (r.Kept == "") {
		t.Fatalf("%s: fsck finds %v, the repair has done %v", name, before.Findings, r.Done)
	}
	fenced := o.holds(t, cfg, name)
	// A bundle holds 256 entries, every other row of evidence one.
	most := 1
	if derived(key) {
		most = 0
	} else if key[0] == tableBundle {
		most = tileWidth
	}
	if fenced > most || r.Fenced() != (fenced > 0) && derived(key) {
		t.Fatalf("%s: %d entries are fenced, want at most %d: %v", name, fenced, most, r.Done)
	}
	if r.Kept == "" {
		return
	}
	// What was damaged is kept, and what was done is sealed.
	if names, err := cfg.FS.List(r.Kept); err != nil || len(names) == 0 {
		t.Fatalf("%s: the damaged store is not kept: %v", name, err)
	}
	s := mustOpen(t, cfg)
	sealed := slices.ContainsFunc(contentsFrom(t, s.host, o.sizes[s.host.origin]), func(i Item) bool { return i.Leaf.Header.Class == record.ClassDamage })
	if err := s.Close(); err != nil || !sealed {
		t.Fatalf("%s: nothing is sealed (%v)", name, err)
	}
}

func contentsFrom(t *testing.T, l *Log, first uint64) (all []Item) {
	t.Helper()
	for item, err := range l.Read(context.Background(), first, l.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

// TestRepairRefuses leaves alone what it cannot mend.
func TestRepairRefuses(t *testing.T) {
	o := wellKnown(t, false)
	for name, damage := range map[string]func(db *pebble.DB) error{
		"tail truncated": truncateTail(1),
		"tail leaves gone": func(db *pebble.DB) error {
			size := o.sizes[proofOrigin(o, 1)]
			return db.DeleteRange(keySeq(tableEntry, 1, size-9), keySeq(tableEntry, 1, size-2), pebble.Sync)
		},
		"tile and leaf changed": func(db *pebble.DB) error {
			flipRow(t, db, keySeq(tableEntry, 1, 9), 40)
			flipRow(t, db, keyTile(1, 0, 0), 32*7)
			return nil
		},
	} {
		cfg := o.copy(t)
		edit(t, cfg, func(db *pebble.DB) {
			if err := damage(db); err != nil {
				t.Fatal(err)
			}
		})
		r, err := Repair(context.Background(), cfg, FsckOptions{Frame: testFrame})
		if err == nil || r.Before.OK() || r.Kept != "" {
			t.Errorf("%s: %v, done %v", name, err, r.Done)
		}
		if after := mustFsck(t, cfg); after.OK() || len(after.Findings) != len(r.Before.Findings) {
			t.Errorf("%s: fsck finds %v afterwards, %v before", name, after.Findings, r.Before.Findings)
		}
	}
	cfg := o.copy(t)
	if err := cfg.FS.Remove(cfg.Anchor); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(context.Background(), cfg, FsckOptions{}); !errors.Is(err, record.ErrReject) {
		t.Errorf("without an anchor: %v", err)
	}
}

// proofOrigin returns the name of a log by its number.
func proofOrigin(o *original, n int) string {
	var names []string
	for origin := range o.sizes {
		names = append(names, origin)
	}
	slices.Sort(names)
	return names[n] // host/log sorts ahead of host/vm
}

// TestRepairPruned mends a log whose beginning is not kept any longer.
func TestRepairPruned(t *testing.T) {
	old := newOldLog(t, vfs.NewMem())
	old.now = old.now.Add(10 * day).Add(-time.Hour)
	old.retain(t)
	size, root := old.l.Root()
	minimum := old.l.Minimum()
	if minimum == 0 {
		t.Fatal("nothing is pruned")
	}
	shutdown(t, old.s, old.stop)
	edit(t, old.cfg, func(db *pebble.DB) {
		flipRow(t, db, keyTile(old.l.id, 0, minimum/tileWidth+3), 40)
		flipRow(t, db, keyLog(tableHead, old.l.id), 20)
	})
	r, err := Repair(context.Background(), old.cfg, FsckOptions{Frame: testFrame})
	if err != nil || r.Fenced() || r.Kept == "" {
		t.Fatalf("%+v %v", r, err)
	}
	s := mustOpen(t, old.cfg)
	l, _ := s.LogByID(old.l.id)
	if got, err := l.RootAt(size); err != nil || got != root || l.Minimum() != minimum {
		t.Errorf("root %s, want %s; entries from %d, want %d (%v)", got, root, l.Minimum(), minimum, err)
	}
	if _, err := l.Item(minimum); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
