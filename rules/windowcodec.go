package rules

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/policy"
)

// Bounds of a saved state.
const (
	maxTables  = 1 << 16
	maxKeys    = 100_000
	maxRing    = 10_000
	maxSteps   = 7
	maxValues  = 64
	maxExempts = 1 << 16
)

func (st *State) appendExempts(b []byte) []byte {
	ids := slices.SortedFunc(maps.Keys(st.exempts), compareExempts)
	b = binary.BigEndian.AppendUint32(b, uint32(len(ids)))
	for _, id := range ids {
		x := st.exempts[id]
		b = appendText(appendText(b, id.policy), id.name)
		b = binary.BigEndian.AppendUint64(b, x.covered)
		b = binary.BigEndian.AppendUint64(b, uint64(x.told))
	}
	return b
}

func compareExempts(a, b exceptionID) int {
	return cmp.Or(strings.Compare(a.policy, b.policy), strings.Compare(a.name, b.name))
}

func (r *reader) exempts(st *State) {
	var last exceptionID
	for i := range r.count(maxExempts) {
		id := exceptionID{r.text(), r.text()}
		if i > 0 && compareExempts(last, id) >= 0 {
			r.bad = true // one form for each state
		}
		if r.bad {
			return
		}
		*st.exempt(id) = exempt{covered: r.uint64(), told: int64(r.uint64())}
		last = id
	}
}

// empty reports whether a table says nothing that a new one would not.
func (t *table) empty() bool {
	return len(t.byKey) == 0 && !t.seen && t.givenUp == 0 && t.reported == 0
}

func (st *State) appendWindows(b []byte) []byte {
	all := slices.Collect(maps.Values(st.tables))
	all = slices.DeleteFunc(all, (*table).empty)
	slices.SortFunc(all, func(a, b *table) int { return bytes.Compare(a.id[:], b.id[:]) })
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	for _, t := range all {
		b = t.append(b)
	}
	return b
}

func (t *table) append(b []byte) []byte {
	b = appendText(append(b, t.id[:]...), t.policy)
	b = appendFlag(appendFlag(b, t.seen), t.plain)
	for _, n := range []uint64{uint64(t.since), t.givenUp, uint64(t.reported)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.byKey)))
	t.each(func(s *slot) { b = s.append(b) })
	return b
}

func appendFlag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (s *slot) append(b []byte) []byte {
	b = append(b, s.key[:]...)
	for _, n := range []uint64{uint64(s.mono), uint64(s.place), s.run} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(s.counted()))
	for i := range s.ring.n {
		x := s.ring.at(i)
		if s.stale(i) {
			continue
		}
		b = binary.BigEndian.AppendUint64(b, uint64(x.mono))
		b = binary.BigEndian.AppendUint64(b, uint64(x.place))
		b = append(b, x.value[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.steps)))
	for _, all := range s.steps {
		b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
		for i := range all {
			b = all[i].append(b)
		}
	}
	return b
}

func (g *progress) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(g.start))
	b = binary.BigEndian.AppendUint64(b, g.taken)
	b = binary.BigEndian.AppendUint32(b, uint32(len(g.values)))
	for _, v := range g.values {
		b = binary.BigEndian.AppendUint64(b, uint64(v.number))
		b = binary.BigEndian.AppendUint64(b, v.value.Num)
		b = appendText(b, v.value.Str)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(g.done)))
	for _, d := range g.done {
		b = binary.BigEndian.AppendUint64(b, uint64(d.place))
		b = binary.BigEndian.AppendUint64(b, d.count)
	}
	return b
}

func (r *reader) windows(st *State, version int) {
	var last policy.Digest
	for i := range r.count(maxTables) {
		t := r.table(version)
		if i > 0 && bytes.Compare(last[:], t.id[:]) >= 0 || t.empty() {
			r.bad = true
		}
		if r.bad {
			return
		}
		if st.tables == nil {
			st.tables = make(map[policy.Digest]*table)
		}
		st.tables[t.id] = t
		st.windowBytes += t.bytes
		last = t.id
	}
}

func (r *reader) flag() bool {
	b := r.take(1)
	if b != nil && b[0] > 1 {
		r.bad = true
	}
	return b != nil && b[0] == 1
}

func (r *reader) table(version int) *table {
	var id policy.Digest
	copy(id[:], r.take(len(id)))
	t := newTable(id, r.text())
	t.seen = r.flag()
	t.plain = version >= 4 && r.flag() // else known with the policy
	t.since, t.givenUp, t.reported = int64(r.uint64()), r.uint64(), int64(r.uint64())
	for range r.count(maxKeys) {
		r.slot(t, version)
		if r.bad {
			break
		}
	}
	return t
}

func (r *reader) slot(t *table, version int) {
	var k key
	copy(k[:], r.take(len(k)))
	if r.bad || t.find(k) != nil {
		r.bad = true
		return
	}
	s := t.take(k, int64(r.uint64()), place(r.uint64()))
	s.run = r.uint64()
	for range r.count(maxRing) {
		x := instant{mono: int64(r.uint64()), place: place(r.uint64())}
		copy(x.value[:], r.take(len(x.value)))
		if r.bad {
			return
		}
		s.ring.push(x)
	}
	for range r.count(maxSteps) {
		s.steps = append(s.steps, r.attempts(version))
	}
	t.account(s)
}

// attempts reads those that wait for one step: version 2 had one, or none.
func (r *reader) attempts(version int) (all []progress) {
	n := 0
	if version > 2 {
		n = r.count(MaxAttempts)
	} else if r.flag() {
		n = 1
	}
	for range n {
		all = append(all, r.progress())
	}
	return all
}

func (r *reader) progress() progress {
	g := progress{start: int64(r.uint64()), taken: r.uint64()}
	for range r.count(maxValues) {
		n := r.uint64()
		if n >= maxValues {
			r.bad = true
			return g
		}
		v := captured{number: int(n)}
		v.value.Present, v.value.Num, v.value.Str = true, r.uint64(), r.text()
		g.values = append(g.values, v)
	}
	for range r.count(maxSteps) {
		g.done = append(g.done, doneStep{place(r.uint64()), r.uint64()})
	}
	return g
}
