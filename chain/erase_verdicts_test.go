package chain

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// verdictsFor returns the entries of the verdicts that an erasure of a range takes along.
func verdictsFor(t *testing.T, s *Store, l *Log, r proof.Range) (all []uint64) {
	t.Helper()
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	m, err := s.selectErased(t.Context(), l, EraseSelection{Log: l, Range: &r})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range m.Verdicts {
		all = append(all, v.Entries...)
	}
	if !slices.IsSorted(all) && len(m.Verdicts) == 1 {
		t.Fatalf("entries %v do not ascend", all)
	}
	slices.Sort(all)
	return all
}

// TestVerdictsAreRemembered selects ranges in any order while the log grows and is
// erased from: with what is remembered the verdicts are those that reading all finds.
func TestVerdictsAreRemembered(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer func() { shutdown(t, s, stop) }()
	l := mustCreateLog(t, s, 1)
	a := newTestAgent(t, s, l, 1)
	found := 0
	for step := range 60 {
		a.frame(1 + rng.IntN(40))
		var causes []uint64
		for range rng.IntN(4) {
			if i := 1 + rng.Uint64N(l.Size()-1); l.isGuest(t, i) {
				causes = append(causes, i)
			}
		}
		if len(causes) > 0 {
			verdicts(t, s, l, causes...)
		}
		first := rng.Uint64N(l.Size())
		r := proof.Range{First: first, Last: first + rng.Uint64N(l.Size()-first)}
		got := verdictsFor(t, s, l, r)
		kept := l.verdicts
		l.verdicts = verdictsOf{}
		if want := verdictsFor(t, s, l, r); !slices.Equal(got, want) {
			t.Fatalf("seed %d step %d: entries %d to %d: %v, want %v", seed, step, r.First, r.Last, got, want)
		}
		found += len(got)
		l.verdicts = kept
		if step%7 == 6 {
			if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: first, Last: min(first+20, l.Size()-1)}}, "r", "a"); err != nil && !errors.Is(err, record.ErrReject) {
				t.Fatal(err)
			}
			l.verdicts.forget(rng.Uint64N(first + 1))
		}
	}
	if found == 0 {
		t.Error("no verdict was ever selected")
	}
}

// TestVerdictsAreReadOnce takes away an entry that a round has read: the next one does
// not come to it any more, and one that remembers nothing does.
func TestVerdictsAreReadOnce(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer func() { shutdown(t, s, stop) }()
	l := mustCreateLog(t, s, 1)
	a := newTestAgent(t, s, l, 1)
	a.frame(20)
	cause := l.Size() - 5
	verdicts(t, s, l, cause)
	at := l.Size() - 1
	early := proof.Range{First: 1, Last: 6}
	if got := verdictsFor(t, s, l, early); len(got) != 0 {
		t.Fatalf("verdicts %v", got)
	}
	if err := s.db.Delete(keySeq(tableEntry, l.id, cause+2), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	verdicts(t, s, l, cause)
	if got := verdictsFor(t, s, l, proof.Range{First: cause, Last: cause}); !slices.Equal(got, []uint64{at, at + 1}) {
		t.Errorf("verdicts %v, want %d and %d", got, at, at+1)
	}
	l.verdicts = verdictsOf{}
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	if _, err := s.selectErased(t.Context(), l, EraseSelection{Log: l, Range: &early}); err == nil {
		t.Error("the entry that is gone was not missed: the test proves nothing")
	}
}

func (l *Log) isGuest(t *testing.T, i uint64) bool {
	t.Helper()
	item, err := l.Item(i)
	if err != nil {
		t.Fatal(err)
	}
	return item.Leaf.Origin == record.OriginGuest && !item.Erased
}
