package chain

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

// oracle is the tree as x/mod builds it.
type oracle struct {
	n     int64
	nodes []tlog.Hash
}

func (o *oracle) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = o.nodes[x]
	}
	return out, nil
}

func (o *oracle) push(t testing.TB, h record.Hash) {
	t.Helper()
	more, err := tlog.StoredHashesForRecordHash(o.n, tlog.Hash(h), o)
	if err != nil {
		t.Fatal(err)
	}
	o.nodes = append(o.nodes, more...)
	o.n++
}

func (o *oracle) root(t testing.TB, n int64) record.Hash {
	t.Helper()
	h, err := tlog.TreeHash(n, o)
	if err != nil {
		t.Fatal(err)
	}
	return record.Hash(h)
}

// TestTreeGrowsAsXMod pushes leaves over two tile levels and compares roots,
// edges and every full tile.
func TestTreeGrowsAsXMod(t *testing.T) {
	var tr tree
	var o oracle
	n := 600
	if *long {
		n = 256*256 + 600
	} else {
		t.Log("short run: sizes to 600; -long goes over the second tile level")
	}
	emit := func(f fullTile) {
		want, err := tlog.ReadTileData(tlog.Tile{H: 8, L: int(f.level), N: int64(f.index), W: 256}, &o)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range f.hashes {
			if string(h[:]) != string(want[i*32:i*32+32]) {
				t.Fatalf("tile level %d index %d differs at %d", f.level, f.index, i)
			}
		}
	}
	for i := range n {
		if got, want := tr.root(), o.root(t, int64(i)); got != want {
			t.Fatalf("root at size %d is %s, want %s", i, got, want)
		}
		if i%7 == 0 || i > n-300 {
			if got := foldEdge(edgeOfTails(tr.tails)); i > 0 && got != tr.root() {
				t.Fatalf("the partial tiles at size %d make root %s", i, got)
			}
		}
		h := record.Hash{byte(i), byte(i >> 8), byte(i >> 16), 7}
		o.push(t, h) // first: the tile is compared with it
		tr.push(h, emit)
	}
}

// TestProofs verifies proofs for all sizes to 600 with x/mod's checkers, taken
// from a log of 600 leaves and its rows.
func TestProofs(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	const n = 600
	for l.Size() < n {
		mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, l.Size(), int(min(37, n-l.Size())))})
	}
	var o oracle
	var hashes []record.Hash
	for i := uint64(0); i < n; i++ {
		h, err := l.LeafHash(i)
		if err != nil {
			t.Fatal(err)
		}
		o.push(t, h)
		hashes = append(hashes, h)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for size := uint64(1); size <= n; size++ {
		root := o.root(t, int64(size))
		if got, err := l.RootAt(size); err != nil || got != root {
			t.Fatalf("root at size %d is %s, want %s (%v)", size, got, root, err)
		}
		for _, index := range []uint64{0, size - 1, rng.Uint64N(size), rng.Uint64N(size)} {
			p, err := l.ProveInclusion(index, size)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(p, int64(size), tlog.Hash(root), int64(index), tlog.Hash(hashes[index])); err != nil {
				t.Fatalf("inclusion of %d at size %d: %v", index, size, err)
			}
		}
		older := 1 + rng.Uint64N(size)
		p, err := l.ProveConsistency(older, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(p, int64(size), tlog.Hash(root), int64(older), tlog.Hash(o.root(t, int64(older)))); err != nil {
			t.Fatalf("consistency from %d to %d: %v", older, size, err)
		}
	}
	for _, bad := range [][2]uint64{{n, n}, {0, n + 1}, {5, 5}, {0, 0}} {
		if _, err := l.ProveInclusion(bad[0], bad[1]); err == nil {
			t.Errorf("inclusion of %d at size %d is proved", bad[0], bad[1])
		}
	}
	for _, bad := range [][2]uint64{{0, 5}, {6, 5}, {1, n + 1}} {
		if _, err := l.ProveConsistency(bad[0], bad[1]); err == nil {
			t.Errorf("consistency from %d to %d is proved", bad[0], bad[1])
		}
	}
}

// TestTileCacheIsBounded proves entries of more tiles than are cached: what is
// dropped is read again, and nothing more than the bound is kept.
func TestTileCacheIsBounded(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	s.tiles = newTileCache(2)
	l := mustCreateLog(t, s, 1)
	for l.Size() < 5*tileWidth {
		mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, l.Size(), tileWidth)})
	}
	size, root := l.Root()
	for i := range 3 * size / 100 {
		index := i * 100 % size
		h, err := l.LeafHash(index)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.ProveInclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, int64(size), tlog.Hash(root), int64(index), tlog.Hash(h)); err != nil {
			t.Fatalf("inclusion of %d at size %d: %v", index, size, err)
		}
	}
	if n := len(s.tiles.tiles); n != 2 || s.tiles.used.Len() != n {
		t.Errorf("%d tiles are cached in a list of %d, want 2", n, s.tiles.used.Len())
	}
}

// TestReadersSeeOldStates reads proofs at one size while the log grows: what
// readers hold must not move under them.
func TestReadersSeeOldStates(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, 0, 200)})
	size, root := l.Root()
	ctx, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		for i := range 100 {
			if _, err := s.Append(context.Background(), Batch{Log: l, Entries: guestEntries(t, 1, 200+uint64(i)*10, 10)}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := uint64(0); ctx.Err() == nil; i++ {
		index := i % size
		h, err := l.LeafHash(index)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.ProveInclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, int64(size), tlog.Hash(root), int64(index), tlog.Hash(h)); err != nil {
			t.Fatalf("inclusion of %d at size %d while the log has %d: %v", index, size, l.Size(), err)
		}
	}
}
