package mirror

import (
	"fmt"
	"sort"

	"github.com/provostd/provost/chain/record"
)

// maxDamaged bounds how many fences of one host are remembered: more are counted
// only, and a gap in their place is told without them.
const maxDamaged = 10_000

// damage is what the host log says of evidence that was damaged: which entries of
// other logs are fenced off.
type damage struct {
	fences map[string][]toldFence // by origin
	kept   int
	count  uint64 // told, whatever log they are of
}

// toldFence is one range of entries.
type toldFence struct {
	first, last uint64
	by          uint64 // entry of the host log
	problem     string
}

// String says what became of them.
func (f toldFence) String() string {
	return fmt.Sprintf("%s fenced off as damaged (%s), as entry %d of the host log says", entriesAre(f.first, f.last), f.problem, f.by)
}

// entriesAre begins a sentence on some entries.
func entriesAre(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("entry %d is", first)
	}
	return fmt.Sprintf("entries %d to %d are", first, last)
}

// maxFenceProblem bounds what is kept of the words of a fence.
const maxFenceProblem = 256

// add takes an entry of the host log which tells of damage.
func (d *damage) add(index uint64, m *record.Damage) {
	if m.Done != "fenced" || m.First > m.Last {
		return
	}
	d.count++
	if d.kept >= maxDamaged {
		return
	}
	if d.fences == nil {
		d.fences = map[string][]toldFence{}
	}
	d.kept++
	d.fences[m.Origin] = append(d.fences[m.Origin], toldFence{m.First, m.Last, index, m.Problem[:min(len(m.Problem), maxFenceProblem)]})
}

// sort makes it ready to be asked: fences that touch become one.
func (d *damage) sort() {
	for origin, all := range d.fences {
		sort.SliceStable(all, func(i, j int) bool { return all[i].first < all[j].first })
		merged := all[:1]
		for _, f := range all[1:] {
			if last := &merged[len(merged)-1]; f.first <= last.last {
				last.last = max(last.last, f.last)
			} else {
				merged = append(merged, f)
			}
		}
		d.fences[origin] = merged
	}
}

// within returns the first fence of a log around entries from first to last.
func (d *damage) within(origin string, first, last uint64) (toldFence, bool) {
	all := d.fences[origin]
	i := sort.Search(len(all), func(i int) bool { return all[i].last >= first })
	if i == len(all) || all[i].first > last {
		return toldFence{}, false
	}
	return all[i], true
}

// explain has what is missing of a bundle name the entries that cannot be read any
// more, where the host log or the server tells. That the host log does is part of what is
// verified; what the server says is its own word.
func (c *logCheck) explain(m *missing, b *bundle) {
	first, last := b.first(), b.first()+uint64(b.width)-1
	if !m.absent {
		return
	}
	if f, ok := c.v.damaged.within(c.origin, first, last); ok {
		at := max(f.first, first)
		m.at = &at
		m.problem += "; " + f.String()
	} else if g := m.gone; g != nil && g.First <= last && g.Last >= first {
		at := max(g.First, first)
		m.at = &at
		m.problem = fmt.Sprintf("%s; the server says of it: %v", m.problem, g)
	}
}
