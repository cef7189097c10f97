package chain

import (
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// pinnedBundles looks for the bundles that must stay: their hashes stand in tiles, so
// that nothing else would miss them.
func (c *logCheck) pinnedBundles() error {
	for _, k := range c.gap.pins {
		first := k * tileWidth
		there, err := c.stands(k)
		if err != nil {
			return err
		}
		if !there && c.fences.at(first) == nil {
			c.f.find("bundle", c.l, &first, "entries %d to %d are missing, which were not pruned", first, first+tileWidth-1)
		}
	}
	if !c.gap.pinned(0) && c.gap.leaves > 0 {
		c.f.find("pruned", c.l, nil, "the row of what is pruned does not keep the genesis")
	}
	return nil
}

// stands reports whether a bundle is there, packed or in rows.
func (c *logCheck) stands(k uint64) (there bool, err error) {
	if _, there, err = get(c.f.s.db, keySeq(tableBundle, c.l.id, k)); there || err != nil {
		return there, err
	}
	err = scanRange(c.f.s.db, keySeq(tableEntry, c.l.id, k*tileWidth), keySeq(tableEntry, c.l.id, (k+1)*tileWidth), func(_, _ []byte) error {
		there = true
		return nil
	})
	return there, err
}

// prunedBundle deals with a bundle that lies before the minimum. done says that it
// needs no further check.
func (c *logCheck) prunedBundle(first uint64, row []byte) (done bool, err error) {
	if c.gap == nil || first >= c.gap.leaves {
		return false, nil
	}
	if !c.gap.pinned(first / tileWidth) {
		if !c.gap.pending {
			c.f.find("bundle", c.l, &first, "it was pruned, by entry %d, and is still there", c.gap.leavesBy)
		}
		return true, nil
	}
	if first >= c.gap.tiles {
		return false, nil
	}
	b, err := parseBundle(c.l.id, first, row)
	if err == nil {
		err = b.place(c.f.s.db, c.l.id)
	}
	if err != nil {
		c.f.find("bundle", c.l, &first, "entries %d to %d: %v", first, first+tileWidth-1, err)
		return true, nil
	}
	c.f.r.Packed += tileWidth
	c.pinned(first, func(index uint64) (Item, error) { return c.l.entry(b, int(index-first)) })
	return true, nil
}

// prunedRows is prunedBundle for one that stands in rows.
func (c *logCheck) prunedRows(first uint64) (done bool, err error) {
	switch {
	case c.gap == nil || first >= c.gap.leaves:
		return false, nil
	case !c.gap.pinned(first / tileWidth):
		if !c.gap.pending {
			c.f.find("leaf", c.l, &first, "entries from it on were pruned, by entry %d, and rows of them are still there", c.gap.leavesBy)
		}
		return true, nil
	case first >= c.gap.tiles:
		return false, nil
	}
	hashes, err := readTile(c.f.s.db, c.l.id, 0, first/tileWidth)
	if err != nil {
		return true, c.tileProblem(err)
	}
	c.pinned(first, func(index uint64) (Item, error) {
		item, ok, err := c.l.readRows(index)
		switch {
		case err != nil:
			return item, err
		case !ok:
			return item, errors.New("its leaf, or its payload, is missing")
		case item.LeafHash != hashes[index-first]:
			return item, fmt.Errorf("its leaf has hash %s, the tree has %s", item.LeafHash, hashes[index-first])
		}
		if salt := item.Salt(); !item.Erased && record.Commit(&salt, item.Payload) != item.Leaf.Commitment {
			return item, errors.New("salt and payload are not what its leaf commits to")
		}
		return item, nil
	})
	return true, nil
}

// pinned checks the entries of a bundle whose hashes the tree has by its tiles.
func (c *logCheck) pinned(first uint64, read func(index uint64) (Item, error)) {
	for index := first; index < first+tileWidth; index++ {
		if c.fences.at(index) != nil {
			c.f.r.Entries++
			c.f.r.Fenced++
			c.unread()
			continue
		}
		item, err := read(index)
		if err != nil {
			c.f.find("bundle", c.l, &index, "%v", err)
		} else if c.f.r.Entries++; item.Erased {
			c.gone(&item.Leaf, item.ErasedBy)
		} else {
			c.f.r.Payloads++
			c.opened(&item.Leaf, item.Payload)
		}
	}
	c.frames.cut, c.frames.records = true, nil
}
