package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// place is where an entry stands that is remembered: its index, and above that the
// number of its shard where that is an earlier one of the incarnation, 0 in this log.
type place uint64

const (
	shardBits = 24
	indexBits = 64 - shardBits
	// maxIndex bounds the entries of a log, and MaxShard the shards of an incarnation.
	maxIndex = 1 << indexBits
	MaxShard = 1<<shardBits - 1
)

// here is the place of an entry of this log.
func here(index uint64) place { return place(index) }

func placed(shard uint32, index uint64) place {
	return place(uint64(shard)<<indexBits | index&(maxIndex-1))
}

func (p place) shard() uint32 { return uint32(p >> indexBits) }
func (p place) index() uint64 { return uint64(p) & (maxIndex - 1) }

// before reports whether an entry stands ahead of another. This log is the newest.
func (p place) before(o place) bool {
	if p.shard() == o.shard() {
		return p < o
	}
	return p.shard() != 0 && (o.shard() == 0 || p < o)
}

// String names the entry for people.
func (p place) String() string {
	if p.shard() == 0 {
		return strconv.FormatUint(p.index(), 10)
	}
	return fmt.Sprintf("%d of shard %d", p.index(), p.shard())
}

// erasedBy returns what an entry says was erased: records of its log, or of an earlier
// shard.
func erasedBy(m *record.Erased) func(place) bool {
	names := func(ranges []*record.EntryRange, index uint64) bool {
		return slices.ContainsFunc(ranges, func(r *record.EntryRange) bool { return r.First <= index && index <= r.Last })
	}
	return func(p place) bool {
		if p.shard() == 0 {
			return names(m.Ranges, p.index())
		}
		return p.shard() == m.EarlierShard && names(m.Earlier, p.index())
	}
}

// border ends what is remembered in a log where another shard goes on, and notes
// that a log which goes on has said which policies judge.
func (st *State) border(leaf record.Leaf, payload record.Message) {
	if leaf.Origin != record.OriginHost {
		return
	}
	switch m := payload.(type) {
	case *record.BundleActivation:
		if st.carried {
			st.carried, st.engine = false, nil // what these policies do not have goes now
		}
	case *record.Closed:
		if leaf.Header.Class == record.ClassClosed && m.NextOrigin != "" && !st.over {
			heir := *st
			heir.Recall = nil
			heir.relink()
			*st = State{vm: heir.vm, next: heir.next, mono: heir.mono, wall: heir.wall, Recall: st.Recall, over: true, heir: &heir}
		}
	}
}

// held reports whether what is remembered waits for policies that judge: a shard's
// first entries come ahead of the one that names them, and end nothing.
func (st *State) held(e *Engine) bool { return st.carried && len(e.bundle.Policies) == 0 }

// Continue returns the state that begins the next shard, where st is of a log that
// an entry has closed for it: what was remembered behind that entry, and nothing of
// what follows it, is given once. shard is the number of the log that st is of. It is
// a pure function: the same entries give the same bytes. nil: there is none.
//
// Erasures that follow the end of the log, and come ahead of Continue, take their words
// with them; those that come later stand in the next shard, too.
func (st *State) Continue(shard uint32) *State {
	n := st.heir
	if n == nil || shard == 0 || shard > MaxShard {
		return nil
	}
	st.heir = nil
	n.next, n.carried, n.stale = 0, true, true
	n.engine, n.modes, n.judged, n.windows, n.nextEnd = nil, nil, event.ClassSet{}, nil, math.MaxInt64
	old := func(p *place) {
		if p.shard() == 0 {
			*p = placed(shard, p.index())
		}
	}
	for _, c := range n.byID {
		old(&c.place)
	}
	for _, t := range n.tables {
		t.each(func(s *slot) {
			old(&s.place)
			for i := range s.ring.n {
				old(&s.ring.at(i).place)
			}
			for _, all := range s.steps {
				for i := range all {
					for k := range all[i].done {
						old(&all[i].done[k].place)
					}
				}
			}
		})
	}
	for _, a := range n.approvals.active {
		old(&a.loaded)
	}
	for _, u := range n.approvals.late {
		old(&u.cause)
		if u.known {
			old(&u.verdict)
		}
	}
	return n
}

// Ended reports whether a log was closed for another shard, which has not taken over
// what was remembered.
func (st *State) Ended() bool { return st.heir != nil }
