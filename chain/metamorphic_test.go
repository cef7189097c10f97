package chain

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// TestSameRecordsSameRoots seals the same records of a guest in copies of one
// store, in batches of other sizes, with restarts, flushes, compactions and
// packing in between: leaves and roots are the same, at every size.
func TestSameRecordsSameRoots(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	at := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return at }
	cfg.Boot = func() time.Duration { return 0 }
	cfg.unpacked = true // it packs when it is told to
	s := mustCreate(t, cfg)
	stop := run(t, s)
	id := mustCreateLog(t, s, 1).id
	shutdown(t, s, stop)
	records := make([]Entry, 0, 1200)
	for first := uint64(0); len(records) < cap(records); first += 100 {
		records = append(records, guestEntries(t, 1, first, 100)...)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	var want [][]byte
	var roots []record.Hash
	for round, way := range []struct {
		most           int
		restart, clean int // in percent, behind a batch
	}{{1, 0, 0}, {len(records), 0, 0}, {400, 10, 10}, {90, 10, 30}, {7, 2, 2}} {
		copied := cfg
		copied.FS = vfs.NewMem()
		if _, err := vfs.Clone(cfg.FS, copied.FS, "/", "/"); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, copied)
		stop := run(t, s)
		for rest := records; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(way.most))
			l, _ := s.LogByID(id)
			mustAppend(t, s, Batch{Log: l, Entries: append([]Entry{}, rest[:n]...)})
			rest = rest[n:]
			if rng.IntN(100) < way.clean {
				packNow(t, s)
				if err := s.db.Flush(); err != nil {
					t.Fatal(err)
				}
				if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
					t.Fatal(err)
				}
			}
			if rng.IntN(100) < way.restart {
				shutdown(t, s, stop)
				s = mustOpen(t, copied)
				stop = run(t, s)
			}
		}
		l, _ := s.LogByID(id)
		for i := uint64(0); i < l.Size(); i++ {
			item, err := l.Item(i)
			if err != nil {
				t.Fatal(err)
			}
			root, err := l.RootAt(i + 1)
			if err != nil {
				t.Fatal(err)
			}
			if round == 0 {
				want, roots = append(want, item.LeafBytes), append(roots, root)
			} else if !bytes.Equal(item.LeafBytes, want[i]) || root != roots[i] {
				t.Fatalf("round %d: leaf %d is %x with root %s, want %x with %s", round, i, item.LeafBytes, root, want[i], roots[i])
			}
		}
		if l.Size() != uint64(len(want)) || len(want) != len(records)+1 {
			t.Fatalf("round %d: %d entries, want %d", round, l.Size(), len(records)+1)
		}
		shutdown(t, s, stop)
	}
}
