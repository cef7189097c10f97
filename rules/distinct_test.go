package rules

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

const manyDistinct = `policy "p" {
  on = ["file.modify"]
  threshold {
    count    = %d
    distinct = file.path
    window   = "%s"
  }
}
`

// Many values are counted as few are: compared with a list of them, while the state is
// saved, restored and erased from now and then.
func TestManyDistinct(t *testing.T) {
	type value struct {
		mono  int64
		index uint64
		path  int
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	fired, most := 0, 0
	for round := range 8 {
		count, window, paths := 60+r.IntN(120), time.Duration(20+r.IntN(60))*time.Second, 40+r.IntN(200)
		if round == 0 { // which fires
			count, window, paths = 70, 80*time.Second, 200
		}
		e := engine(t, load(t, fmt.Sprintf(manyDistinct, count, window)), Options{})
		s, st := tell(t), &State{}
		var held []value
		done := 0
		for n := range 3000 {
			path := r.IntN(paths)
			if r.IntN(3) == 0 {
				path %= 5 // some come again and again
			}
			at := s.modify(time.Duration(r.IntN(400))*ms, fmt.Sprint("/", path), "x", 1)
			if n%500 == 499 {
				first := uint64(r.IntN(int(at)))
				s.add(t, 0, record.OriginHost, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: first, Last: first + 20}}})
			}
			for ; done < len(s.leaves); done++ {
				vs, err := e.Eval(st, s.leaves[done], s.hashes[done], s.payloads[done])
				if err != nil {
					t.Fatal(err)
				}
				switch p := s.payloads[done].(type) {
				case *record.Erased:
					held = slices.DeleteFunc(held, func(v value) bool { return p.Ranges[0].First <= v.index && v.index <= p.Ranges[0].Last })
				case *record.Event:
					mono := s.leaves[done].Mono
					held = slices.DeleteFunc(held, func(v value) bool { return v.mono <= mono-int64(window) || v.path == path })
					held = append(held, value{mono, uint64(done), path})
					most = max(most, len(held))
					if want := len(held) >= count; want != (len(vs) == 1) || want && vs[0].Counted != uint64(count) {
						t.Fatalf("entry %d: %d values of %d are held, verdicts %v", done, len(held), count, vs)
					} else if want {
						held = nil
						fired++
					}
				}
			}
			if r.IntN(40) == 0 {
				st = restored(t, st)
			}
		}
	}
	if fired == 0 || most < 2*scanned {
		t.Errorf("%d verdicts, %d values at most: nothing was compared", fired, most)
	}
}

// restored saves a state and restores it. It is the same then, and accounted for alike.
func restored(t *testing.T, st *State) *State {
	t.Helper()
	b, err := st.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again := &State{}
	if err := again.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if c, _ := again.MarshalBinary(); !bytes.Equal(b, c) {
		t.Fatal("a restored state saves differently")
	}
	for id, o := range st.tables {
		if n := again.tables[id]; n != nil && n.bytes != o.bytes {
			t.Fatalf("%d bytes are accounted for, restored %d", o.bytes, n.bytes)
		}
	}
	return again
}

// BenchmarkDistinct counts values that all come again, of 10,000 in one window.
func BenchmarkDistinct(b *testing.B) {
	const values = 9_999
	e := engine(b, load(b, fmt.Sprintf(manyDistinct, values+1, "24h")), Options{})
	st := &State{}
	payloads := make([]*record.Event, values)
	for i := range payloads {
		payloads[i] = &record.Event{Process: vim(), File: file(fmt.Sprint("/", i))}
	}
	leaf := record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify}}
	eval := func(i int) {
		leaf.Index, leaf.Mono = st.Next(), int64(st.Next())
		if v, err := e.Eval(st, leaf, record.Hash{1}, payloads[i%values]); err != nil || len(v) > 0 {
			b.Fatal(v, err)
		}
	}
	for i := range values {
		eval(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		eval(i * 7)
	}
}
