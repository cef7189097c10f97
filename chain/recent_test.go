package chain

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
)

// followed are all entries, as a follower is given them from the beginning.
func followed(t *testing.T, s *Store) (all []Item) {
	t.Helper()
	f := s.Tail(Position{})
	for {
		i, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, i)
	}
}

func sameItems(t *testing.T, what string, got, want []Item) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d entries, want %d", what, len(got), len(want))
	}
	for n := range got {
		g, w := &got[n], &want[n]
		if g.Log.Origin() != w.Log.Origin() || g.Index != w.Index || g.Pos != w.Pos || g.LeafHash != w.LeafHash || g.Salt() != w.Salt() ||
			g.Erased != w.Erased || g.ErasedBy != w.ErasedBy || !bytes.Equal(g.LeafBytes, w.LeafBytes) || (g.Payload == nil) != (w.Payload == nil) ||
			!bytes.Equal(g.Payload, w.Payload) || !reflect.DeepEqual(g.Leaf, w.Leaf) {
			t.Errorf("%s: entry %d of %s is %+v, want %+v", what, w.Index, w.Log.Origin(), g, w)
		}
	}
}

// remembered counts the commits that are remembered.
func (s *Store) remembered() int {
	s.recent.mu.RLock()
	defer s.recent.mu.RUnlock()
	return len(s.recent.commits)
}

// fillBoth seals entries of all kinds of salts in several logs, in commits of one log
// and of two.
func fillBoth(t *testing.T, s *Store, a, b *Log) {
	t.Helper()
	for n := range uint64(40) {
		batches := []Batch{{Log: a, Entries: guestEntries(t, 1, n*7, 7)}}
		if n%3 == 0 {
			batches = append(batches, Batch{Log: b, Entries: append([]Entry{hostEntry(t, s, "host")}, guestEntries(t, 2, n*3, 3)...)})
		}
		if _, err := s.AppendAll(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecentIsWhatTheRowsSay compares what followers are given of what was just
// sealed with what they are given of the rows, with all, some and nothing
// remembered.
func TestRecentIsWhatTheRowsSay(t *testing.T) {
	for _, limit := range []int{recentBytes, 20 << 10, 0} {
		s := mustCreate(t, testConfig(t, vfs.NewMem()))
		s.recent.limit = limit
		stop := run(t, s)
		fillBoth(t, s, mustCreateLog(t, s, 1), mustCreateLog(t, s, 2))
		if n := s.remembered(); (n == 0) != (limit == 0) || limit < recentBytes && n > 30 || limit == recentBytes && n < 40 {
			t.Errorf("limit %d: %d commits are remembered", limit, n)
		}
		if s.recent.bytes > limit || s.recent.bytes < 0 {
			t.Errorf("limit %d: %d bytes are remembered", limit, s.recent.bytes)
		}
		got := followed(t, s)
		s.recent.clear()
		if s.remembered() != 0 || s.recent.bytes != 0 {
			t.Error("something is remembered after all was to be forgotten")
		}
		sameItems(t, "remembered", got, followed(t, s)[:len(got)])
		shutdown(t, s, stop)
	}
}

// TestRecentForgetsErased erases entries that are remembered: nobody is shown them,
// and a reader who was in the middle of it reads the rows.
func TestRecentForgetsErased(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	sealed := mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, 0, 20)})
	if i, ok, err := l.lookRecent(sealed.First); !ok || err != nil || i.Payload == nil {
		t.Fatalf("the first entry is not remembered: %v", err)
	}
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: sealed.First + 5, Last: sealed.First + 9}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := l.lookRecent(sealed.First); ok {
		t.Error("what was sealed before an erasure is remembered")
	}
	f := s.Tail(Position{Commit: sealed.Commit})
	for n := range uint64(20) {
		i, err := f.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := n >= 5 && n <= 9; i.Erased != want || (i.Payload == nil) != want {
			t.Errorf("entry %d: erased %v, payload %q", n, i.Erased, i.Payload)
		}
	}
	later := mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, 20, 2)})
	if i, ok, _ := l.lookRecent(later.First); !ok || i.Payload == nil {
		t.Error("what was sealed behind an erasure is not remembered")
	}
}

// TestRecentWhileErasing: from the entry that erases on, and before any row is
// changed, a follower is shown the erasure.
func TestRecentWhileErasing(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	sealed := mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, 0, 4)})
	p := newErasure(l, 99, nil)
	p.unread = true // nobody knows what it names: all of it is held back
	l.erase(p)
	f := s.Tail(Position{Commit: sealed.Commit})
	if _, ok, _ := l.lookRecent(sealed.First); ok {
		t.Error("what is remembered is shown")
	}
	i, err := f.Next(t.Context())
	if err != nil || i.Unreadable == nil || i.Payload != nil {
		t.Errorf("held back: %v, payload %q, %v", i.Unreadable, i.Payload, err)
	}
	l.erased(p)
	if i, err = f.Next(t.Context()); err != nil || i.Payload == nil {
		t.Errorf("behind it: %v, %v", i.Unreadable, err)
	}
}
