package chain

import (
	"errors"

	"github.com/provostd/provost/chain/record"
)

// beginPruned starts the check of a log behind what was pruned of it: with the tree
// that the tiles which stay make.
func (c *logCheck) beginPruned() error {
	row, ok, err := get(c.f.s.db, keyPruned(c.l.id))
	if err != nil || !ok {
		return err
	}
	p, err := parsePruned(row)
	if err != nil {
		c.f.find("pruned", c.l, nil, "%v", err)
		return nil
	}
	if p.leaves > c.head.size {
		c.f.find("pruned", c.l, nil, "entries before %d are said to be pruned, the head says size %d", p.leaves, c.head.size)
		return nil
	}
	c.gap = p
	c.f.r.Pruned += p.leaves
	c.l.pruned.Store(p)
	if p.tiles == 0 {
		return nil
	}
	if c.tree.tails, err = loadTails(c.f.s.db, c.l.id, p.tiles, c.fences, hashTiles); err != nil {
		return c.tileProblem(err)
	}
	c.tree.size, c.next = p.tiles, p.tiles
	if last, err := readTile(c.f.s.db, c.l.id, 0, p.tiles/tileWidth-1); err == nil {
		c.last = last[tileWidth-1]
	} else if err := c.tileProblem(err); err != nil {
		return err
	}
	return c.prunedTiles()
}

// tileProblem reports a tile that is damaged, and returns what is no damage.
func (c *logCheck) tileProblem(err error) error {
	if errors.Is(err, record.ErrFatal) {
		c.f.find("tile", c.l, nil, "%v", err)
		return nil
	}
	return err
}

// prunedTiles compares every tile before the first that the check makes anew with
// the hash that stands for it a level above, and what was signed with what they
// still tell.
func (c *logCheck) prunedTiles() error {
	for level := uint8(0); level < uint8(len(c.tree.tails)); level++ {
		end := c.gap.tiles >> (tileHeight * (level + 1))
		for i := range end {
			if level == 0 && !c.gap.keepsTile(i) {
				continue
			}
			got, err := tileRoot(c.f.s.db, c.l.id, level, i)
			if err != nil {
				if err := c.tileProblem(err); err != nil {
					return err
				}
				continue
			}
			c.f.r.Tiles++
			want, err := c.above(level, i)
			if err != nil {
				if err := c.tileProblem(err); err != nil {
					return err
				}
			} else if got != want {
				c.f.find("tile", c.l, nil, "level %d index %d makes %s, the tile above it holds %s: one of the two was changed", level, i, got, want)
			}
		}
	}
	for {
		k, err := c.claims.next()
		if err != nil || k == nil || k.size >= c.gap.tiles {
			return err
		}
		if k.size%pruneUnit == 0 { // else its leaf hashes are gone
			tails, err := loadTails(c.f.s.db, c.l.id, k.size, c.fences, hashTiles)
			if err != nil {
				if err := c.tileProblem(err); err != nil {
					return err
				}
			} else if root := foldEdge(edgeOfTails(tails)); root != k.root {
				c.f.find(k.table, c.l, nil, "%sat size %d it has root %s, the tiles make %s", k.where(), k.size, k.root, root)
			}
		}
		if err := c.claims.skip(); err != nil {
			return err
		}
	}
}

// above returns the hash that stands for a full tile on the level above.
func (c *logCheck) above(level uint8, index uint64) (record.Hash, error) {
	tail, width := &c.tree.tails[level+1], c.gap.tiles>>(tileHeight*(level+1))
	if index >= width&^(tileWidth-1) {
		return tail.at(0, index%tileWidth), nil
	}
	hashes, err := readTile(c.f.s.db, c.l.id, level+1, index/tileWidth)
	if err != nil {
		return record.Hash{}, err
	}
	return hashes[index%tileWidth], nil
}

// overPruned grows the tree over pruned entries up to the bundle that begins with
// entry first, by their leaf hashes.
func (c *logCheck) overPruned(first uint64) error {
	if c.gap == nil {
		return nil
	}
	for c.next < min(first, c.gap.leaves) {
		hashes, err := readTile(c.f.s.db, c.l.id, 0, c.next/tileWidth)
		if err != nil {
			return c.tileProblem(err) // then the bundle is reported as missing, too
		}
		for i := range hashes {
			c.grow(hashes[i])
		}
		c.next += tileWidth
		c.frames.cut, c.frames.records = true, nil
	}
	return nil
}

// checkPruned holds an entry that tells of pruning against the tiles.
func (c *logCheck) checkPruned(index uint64, m *record.Pruned) {
	c.prunings[index] = m
	end := m.Range.GetLast() + 1
	if end%pruneUnit != 0 || end > index {
		c.f.find("pruned", c.l, &index, "it prunes up to entry %d", end-1)
		return
	}
	tails, err := loadTails(c.f.s.db, c.l.id, end, c.fences, hashTiles)
	if err != nil {
		c.err = errors.Join(c.err, c.tileProblem(err))
		return
	}
	if root := foldEdge(edgeOfTails(tails)); string(root[:]) != string(m.Root) {
		c.f.find("pruned", c.l, &index, "it says that the first %d leaves have root %x, the tiles make %s", end, m.Root, root)
	}
}

// finishPruned holds the row that says what is gone against the entries that say
// so: else taking entries away by hand would look like pruning them.
func (c *logCheck) finishPruned() {
	if c.gap == nil {
		return
	}
	for _, tier := range []struct {
		what    string
		end, by uint64
	}{{prunedLeaves, c.gap.leaves, c.gap.leavesBy}, {prunedTiles, c.gap.tiles, c.gap.tilesBy}} {
		if m := c.prunings[tier.by]; tier.end > 0 && (m == nil || m.What != tier.what || m.Range.GetLast()+1 != tier.end) {
			c.f.find("pruned", c.l, nil, "%s before entry %d are gone, and entry %d does not say so", tier.what, tier.end, tier.by)
		}
	}
}
