package chain

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// TestBackward goes through a store both ways: backward must meet what a
// follower meets, with the same positions, however few it looks at in a step.
func TestBackward(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer func() { shutdown(t, s, stop) }()
	logs := []*Log{mustCreateLog(t, s, 1), mustCreateLog(t, s, 2), mustCreateLog(t, s, 3)}
	for i := range 40 {
		var all []Batch
		for j, l := range logs {
			if (i+j)%3 == 0 {
				continue
			}
			b := Batch{Log: l}
			for k := range 1 + (i*j)%4 {
				b.Entries = append(b.Entries, hostEntry(t, s, fmt.Sprint(i, j, k)))
			}
			all = append(all, b)
		}
		if _, err := s.AppendAll(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	want := func(l *Log) bool { return l == logs[0] || l == logs[2] }
	admits := func(leaf *record.Leaf) bool { return leaf.Index%3 != 1 }
	var forward []Place
	for f := s.Tail(Position{}); ; {
		item, at, err := f.Scan(want, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if at == ScanEnd {
			break
		}
		if admits(&item.Leaf) {
			forward = append(forward, Place{item.Log, item.Index, item.Pos})
		}
	}
	if len(forward) < 50 {
		t.Fatalf("only %d entries", len(forward))
	}
	for _, commits := range []int{1, 7, 1000} {
		for _, limit := range []int{1, 10, len(forward), len(forward) + 5} {
			b := s.Back(s.End())
			var got []Place
			for more := true; more; {
				places, m, err := b.Step(want, admits, commits, limit-len(got))
				if err != nil {
					t.Fatal(err)
				}
				got, more = append(got, places...), m && len(got)+len(places) < limit
			}
			slices.Reverse(got)
			if !slices.Equal(got, forward[max(0, len(forward)-limit):]) {
				t.Errorf("%d commits a step, the newest %d: %d places", commits, limit, len(got))
			}
		}
	}
	// A position in the past: nothing behind it is met.
	mid := forward[len(forward)/2]
	places, _, err := s.Back(mid.Pos).Step(want, admits, 1<<30, 1)
	if err != nil || len(places) != 1 || places[0].Pos.Commit >= mid.Pos.Commit {
		t.Errorf("before %+v: %+v %v", mid.Pos, places, err)
	}
	if places, more, err := s.Back(Position{}).Step(want, admits, 10, 10); err != nil || more || len(places) > 0 {
		t.Errorf("before the beginning: %d, %v, %v", len(places), more, err)
	}
}
