package chain

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestFlippedBytes changes one byte of one file of a store at a time: that of
// its rows in the write-ahead log, and in sorted files. A store that opens has
// all that it had. What cannot be read any more is an error, for its reader and
// for fsck; nothing is another, and no log is shorter. A repair mends the store
// or leaves it.
func TestFlippedBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 2))
	for _, c := range []struct {
		name string
		make func() *original
	}{
		{"write-ahead log", func() *original { return unflushed(t) }},
		{"sorted, not packed", func() *original { return wellKnown(t, false) }},
		{"sorted and packed", func() *original { return wellKnown(t, true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := c.make()
			names, err := listFiles(o.cfg.FS, o.cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			outcomes := map[string]int{}
			for _, name := range names {
				path := o.cfg.FS.PathJoin(o.cfg.Dir, name)
				size := len(readFile(t, o.cfg.FS, path))
				places := 2
				if *long {
					places = 40 // Pebble takes 50 ms for a read of a damaged block: it looks for the bit
				}
				stride := max(1, size/places)
				for at := rng.IntN(max(1, stride)); at < size; at += stride {
					outcomes[o.flip(t, rng, path, at)]++
				}
			}
			t.Logf("outcomes %v; short run: two places of each file, -long changes 40", outcomes)
			if outcomes["refused"]+outcomes["mended"]+outcomes["left"] == 0 || outcomes["unharmed"] == 0 {
				t.Error("the changes have met no rows, or nothing else")
			}
		})
	}
}

// unflushed is a store whose rows are in the write-ahead log.
func unflushed(t *testing.T) *original {
	t.Helper()
	cfg, _ := closedStore(t, vfs.NewMem())
	o := &original{cfg: cfg}
	copied := o.copy(t)
	s := mustOpen(t, copied)
	o.read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// flip changes a byte and says what became of the store.
func (o *original) flip(t *testing.T, rng *rand.Rand, path string, at int) string {
	t.Helper()
	cfg := o.copy(t)
	cfg.Exit = func(int) {} // Pebble gives up in the background
	data := readFile(t, cfg.FS, path)
	data[at] ^= byte(1 + rng.IntN(255))
	writeFile(t, cfg.FS, path, data)
	whole, opened := o.opens(t, cfg, path, at)
	cfg.Exit = func(int) { panic("a check ends the process") }
	r, err := Fsck(context.Background(), cfg, FsckOptions{Frame: testFrame})
	if err == nil && r.OK() && (!opened || !whole) {
		t.Fatalf("byte %d of %s: opens %v, can be read as a whole %v, and fsck finds nothing", at, path, opened, whole)
	}
	if err == nil && r.OK() {
		return "unharmed"
	}
	done, err := Repair(context.Background(), cfg, FsckOptions{Frame: testFrame})
	if err != nil {
		if !opened {
			return "refused"
		}
		return "left"
	}
	if done.Kept != "" {
		o.holds(t, cfg, path)
		return "mended"
	}
	return "unharmed"
}

// opens opens a store and reads all of it: what can be read must be what was
// there.
func (o *original) opens(t *testing.T, cfg Config, path string, at int) (whole, opened bool) {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		return false, false
	}
	whole = true
	for origin, items := range o.items {
		l, ok := s.LogByOrigin(origin)
		if !ok || l.Size() < o.sizes[origin] {
			t.Fatalf("byte %d of %s: %s is gone or shorter", at, path, origin)
		}
		root, err := l.RootAt(o.sizes[origin])
		if whole = whole && err == nil; err == nil && root != o.roots[origin] {
			t.Fatalf("byte %d of %s: %s has another root", at, path, origin)
		}
		for i, want := range items {
			got, err := l.Item(uint64(i))
			if err != nil {
				whole = false
			} else if !bytes.Equal(got.LeafBytes, want.LeafBytes) || !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("byte %d of %s: entry %d of %s is another", at, path, i, origin)
			}
		}
	}
	return s.Close() == nil && whole, true
}
