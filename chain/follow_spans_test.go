package chain_test

import (
	"fmt"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/record"
)

// TestSpans reads a ledger by spans from every position in it: they name the entries
// that a follower gives, in its order, with their positions.
func TestSpans(t *testing.T) {
	s := chaintest.Start(t, storeConfig(t, chaintest.NewDisk().FS()))
	for i := range 4 {
		var batches []chain.Batch
		for n := range 1 + i%3 {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint(i)})
			if err != nil {
				t.Fatal(err)
			}
			batches = append(batches, chain.Batch{Log: logNumber(t, s, n), Entries: []chain.Entry{e, e, e}})
		}
		if _, err := s.AppendAll(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
	}
	type place struct {
		log   *chain.Log
		index uint64
		pos   chain.Position // in front of it
	}
	var all []place
	f := s.Tail(chain.Position{Commit: 1})
	for {
		before := f.Reached()
		it, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if it.Pos.Commit != before.Commit { // the ends of commits were passed
			before = chain.Position{Commit: it.Pos.Commit}
		}
		all = append(all, place{it.Log, it.Index, before})
	}
	if len(all) < 24 {
		t.Fatalf("%d entries", len(all))
	}
	for n, from := range all {
		want := all[n:]
		f := s.Tail(from.pos)
		for {
			spans, ok, err := f.Spans()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			for _, sp := range spans {
				for i := sp.First; i < sp.End(); i++ {
					pos := chain.Position{Commit: sp.Pos.Commit, Offset: sp.Pos.Offset + uint32(i-sp.First)}
					if len(want) == 0 || want[0] != (place{sp.Log, i, pos}) {
						t.Fatalf("from %v: entry %d of %s at %v", from.pos, i, sp.Log.Origin(), pos)
					}
					it, ok, err := sp.Log.From(i, sp.End())
					if err != nil || !ok || it.Index != i {
						t.Fatalf("entry %d: %v %v", i, ok, err)
					}
					want = want[1:]
				}
			}
		}
		if len(want) != 0 || f.Reached() != s.End() {
			t.Fatalf("from %v: %d entries are left, at %v", from.pos, len(want), f.Reached())
		}
	}
	l := logNumber(t, s, 0)
	if _, ok, err := l.From(l.Size(), l.Size()+9); ok || err != nil {
		t.Errorf("behind the end: %v %v", ok, err)
	}
}
