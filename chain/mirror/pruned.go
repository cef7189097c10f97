package mirror

import (
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// pruneUnit is what the index that entries are pruned before is a multiple of.
const pruneUnit = bundleWidth * bundleWidth

// prunedEntries is what a log that was pruned is held against. Its entries may be
// gone before an index that an entry of the log names, together with the root over
// them; some bundles before that index stay.
type prunedEntries struct {
	end   uint64                 // behind the last bundle that is gone
	roots map[uint64]record.Hash // at each unit that was passed over
	told  uint64                 // entries before it may be gone, by told
	by    uint64                 // entry
	fresh bool                   // no entry of the host was seen behind the last gap

	count, claims uint64 // entries that are gone; checkpoints inside them, which nothing can be held against
}

// before reports whether what stands right before index is gone.
func (p *prunedEntries) before(index uint64) bool { return p.end == index }

// overPruned grows the tree over a bundle whose entries are gone.
func (c *logCheck) overPruned(b *bundle) error {
	p, end := &c.pruned, b.first()+bundleWidth
	if c.coverage != nil {
		c.coverage.AddUnreadable(b.first(), "entries were pruned")
	}
	if p.roots == nil {
		p.roots = map[uint64]record.Hash{}
	}
	for {
		next, err := c.nextClaim()
		if err != nil {
			return err
		}
		if next >= end {
			break
		}
		p.claims++
		if len(c.claims) > 0 && c.claims[0].size == next {
			c.claims = c.claims[1:]
		} else {
			c.quotes.Skip()
		}
	}
	c.tree.push(b.root, bundleHeight)
	if err := c.compare(); err != nil {
		return err
	}
	if end%pruneUnit == 0 {
		p.roots[end] = c.tree.root()
	}
	p.end, p.fresh = end, true
	p.count += bundleWidth
	if c.agents != nil {
		c.agents.cut()
	}
	c.r.Size, c.r.Pruned = c.tree.size, p.count
	return nil
}

// barely takes an entry of pruning whose payload the source does not have: it may
// mean as much as an entry at that place can.
func (p *prunedEntries) barely(c *logCheck, index uint64) {
	if end := index / pruneUnit * pruneUnit; c.bare.Load() && end > p.told {
		p.told, p.by = end, index
	}
}

// tellsPruned takes an entry which says that entries were pruned.
func (c *logCheck) tellsPruned(index uint64, m *record.Pruned) {
	if m.What != "leaves" {
		return
	}
	if m.Range == nil || m.Range.First%pruneUnit != 0 || m.Range.First > m.Range.Last || m.Range.Last >= index || (m.Range.Last+1)%pruneUnit != 0 {
		c.fail(KindEntry, &index, "it says that entries were pruned which cannot be: %v", m.Range)
		return
	}
	end := m.Range.Last + 1
	if root, gone := c.pruned.roots[end]; gone && string(root[:]) != string(m.Root) {
		c.fail(KindFork, &index, "it says that the pruned entries before entry %d have root %x, what is left of them makes %s", end, m.Root, root)
		return
	}
	if end > c.pruned.told {
		c.pruned.told, c.pruned.by = end, index
	}
}

// checkPruned holds what is gone against what the log says.
func (c *logCheck) checkPruned() {
	p := &c.pruned
	switch {
	case p.end == 0 || !c.ours:
		return
	case p.told < p.end:
		at := p.told
		why := ""
		if f, ok := c.v.damaged.within(c.origin, p.told, p.end-1); ok {
			why = "; " + f.String()
		}
		c.fail(KindGap, &at, "entries from here to entry %d are missing, %d in the whole log, and no entry of it says that they were pruned%s", p.end-1, p.count, why)
		return
	}
	text := fmt.Sprintf("Anything of %d entries of %s that were pruned, as entry %d says: of them there is the root.", p.count, c.origin, p.by)
	if p.claims > 0 {
		text += fmt.Sprintf(" Of %d checkpoints inside them nothing is left to compare.", p.claims)
	}
	c.v.r.Unclaimed = append(c.v.r.Unclaimed, text)
	if c.agents != nil {
		c.agents.settle(c)
	}
}
