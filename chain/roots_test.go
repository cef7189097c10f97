package chain

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// rootsOf counts the R rows of a log.
func rootsOf(t testing.TB, s *Store, id LogID) (n int) {
	t.Helper()
	if err := scan(s.db, keyLog(tableRoot, id), func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOpenReadsRoots opens a store whose rows of tile roots are right, missing,
// wrong and nonsense. It must come up with the same tree each time, go on growing
// it, and be whole in the end.
func TestOpenReadsRoots(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	id, origin := l.id, l.origin
	for l.Size() < 5*tileWidth+100 {
		mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, l.Size(), 97)})
	}
	if n := rootsOf(t, s, id); n != 5 {
		t.Fatalf("%d roots for 5 full tiles", n)
	}
	_, root := l.Root()
	shutdown(t, s, stop)
	for _, c := range []struct {
		name  string
		edit  func(*pebble.DB) error
		roots int // after opening
	}{
		{"as it was", func(*pebble.DB) error { return nil }, 5},
		{"one missing", func(db *pebble.DB) error { return db.Delete(keyRoot(id, 0, 2), pebble.Sync) }, 4},
		{"one wrong", func(db *pebble.DB) error { return db.Set(keyRoot(id, 0, 3), make([]byte, 32), pebble.Sync) }, 0},
		{"none", func(*pebble.DB) error { return nil }, 0},
		{"nonsense", func(db *pebble.DB) error { return db.Set(append(keyRoot(id, 0, 1), 7), []byte{1}, pebble.Sync) }, 1},
	} {
		edit(t, cfg, func(db *pebble.DB) {
			if err := c.edit(db); err != nil {
				t.Fatal(err)
			}
		})
		s := mustOpen(t, cfg)
		l, ok := s.LogByOrigin(origin)
		if !ok {
			t.Fatal("the log is gone")
		}
		if _, got := l.Root(); got != root {
			t.Errorf("%s: root %s, want %s", c.name, got, root)
		}
		if n := rootsOf(t, s, id); n != c.roots {
			t.Errorf("%s: %d rows of roots, want %d", c.name, n, c.roots)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Delete(append(keyRoot(id, 0, 1), 7), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByOrigin(origin)
	for l.Size() < 7*tileWidth {
		mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, l.Size(), 64)})
	}
	_, root = l.Root()
	shutdown(t, s, stop)
	s = mustOpen(t, cfg)
	l, _ = s.LogByOrigin(origin)
	if _, got := l.Root(); got != root {
		t.Errorf("root %s after growing, want %s", got, root)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Frames of these entries are signed by nobody: without them all is checked.
	if r, err := Fsck(t.Context(), cfg, FsckOptions{}); err != nil || !r.OK() {
		t.Errorf("fsck: %v %v", r.Findings, err)
	}
}

// TestRootsGoWithTheirTile fills a tile of the second level: the roots that it
// holds itself must be gone.
func TestRootsGoWithTheirTile(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	batch := s.db.NewBatch()
	var tr tree
	for i := range tileWidth * (tileWidth + 2) {
		tr.push([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, func(f fullTile) {
			if err := writeTile(batch, 9, f); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		t.Fatal(err)
	}
	var keys [][]byte
	if err := scan(s.db, keyLog(tableRoot, 9), func(k, _ []byte) error { keys = append(keys, append([]byte{}, k...)); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 3 || string(keys[0]) != string(keyRoot(9, 0, tileWidth)) || string(keys[2]) != string(keyRoot(9, 1, 0)) {
		t.Errorf("roots %x, want those of two tiles of level 0 and of one of level 1", keys)
	}
	for level := range uint8(2) {
		first, end := tr.size>>(tileHeight*(level+1))&^(tileWidth-1), tr.size>>(tileHeight*(level+1))
		got, err := tileRoots(s.db, 9, level, first, end, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hashTiles(s.db, 9, level, first, end, nil)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d roots, want %d (%v)", len(got), len(want), err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("root %d of level %d is %s, the tile makes %s", i, level, got[i], want[i])
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
