package rules

import (
	"iter"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/provostd/provost/rules/policy"
)

// attempts is a set of the attempts of one key that wait for one step, by number.
type attempts uint8

// each yields the numbers, the lowest first.
func (a attempts) each() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; a != 0; a &= a - 1 {
			if !yield(bits.TrailingZeros8(uint8(a))) {
				return
			}
		}
	}
}

// within reports whether an attempt is not too old. What is too old stays until another
// one comes or its slot goes: whether it was looked for must not change what the slot is
// accounted for.
func (g *progress) within(now int64, q *policy.Sequence) bool { return g.start > now-int64(q.Within) }

// and returns the attempt with one more step done.
func (g *progress) and(d doneStep, values []captured) progress {
	return progress{start: g.start, values: append(slices.Clone(g.values), values...), done: append(slices.Clone(g.done), d)}
}

// like reports whether two attempts that have done the same steps take the same events
// from here on: none is part of the way through the next step, and what conditions and
// exceptions read of them is the same. What only messages read may differ.
func (g *progress) like(o *progress, p *policy.Policy) bool {
	if g.taken != 0 || o.taken != 0 {
		return false
	}
	for n, c := range p.Captures[:p.Deciding] {
		switch c.Kind {
		case policy.CaptureField:
			if g.value(n) != o.value(n) {
				return false
			}
		case policy.CaptureTaken:
			if c.Step < len(g.done) && g.done[c.Step].count != o.done[c.Step].count {
				return false
			}
		}
	}
	return true
}

// value returns what was kept under a number, the zero value where nothing was.
func (g *progress) value(number int) (v captured) {
	if i := slices.IndexFunc(g.values, func(v captured) bool { return v.number == number }); i >= 0 {
		v = g.values[i]
	}
	return v
}

// size is what an attempt is accounted for.
func (g *progress) size() int {
	n := int(unsafe.Sizeof(progress{})) + len(g.done)*int(unsafe.Sizeof(doneStep{})) + len(g.values)*int(unsafe.Sizeof(captured{}))
	for _, v := range g.values {
		n += len(v.value.Str)
	}
	return n
}
