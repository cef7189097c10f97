package chain

import (
	"bytes"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// dropped checks what is left of a log that was dropped: that an entry of the host log
// says so, at its last checkpoint; that head, tiles and what was signed agree; and that
// nothing else is left. gone is false for every other log.
func (c *logCheck) dropped() (gone bool, err error) {
	f, l := c.f, c.l
	row, ok, err := get(f.s.db, keyDropped(l.id))
	if err != nil || !ok {
		return false, err
	}
	d, err := parseDropped(row)
	if err != nil {
		f.find("dropped", l, nil, "%v", err)
		return true, nil
	}
	l.dropped.Store(d)
	f.r.Dropped += c.head.size
	root := foldEdge(c.head.edge)
	if m := f.drops[d.index]; m == nil && !f.blind {
		f.find("dropped", l, nil, "a row says that entry %d of the host log dropped it, and the entry does not", d.index)
	} else if m != nil {
		p, _, err := f.s.openNote(l, m.Note, f.s.vmKeys)
		if m.Origin != l.origin || m.Size != c.head.size || err != nil || p.Size != c.head.size || p.Root != root {
			f.find("dropped", l, nil, "entry %d of the host log drops %s at %d entries (%v), the head says %d with root %s", d.index, m.Origin, m.Size, err, c.head.size, root)
		}
	}
	if row, ok, err := get(f.s.db, keyClosed(l.id)); err != nil {
		return true, err
	} else if !ok || len(row) != 8 {
		f.find("closed", l, nil, "it was dropped, and no row says that it was closed")
	}
	if err := c.droppedTiles(d); err != nil {
		return true, err
	}
	return true, c.leftOvers(d)
}

// droppedTiles holds the tiles that stay against each other, the head, and what was
// signed for sizes that they still tell of.
func (c *logCheck) droppedTiles(d *dropped) error {
	f, l, size := c.f, c.l, c.head.size
	var err error
	if c.tree, err = d.tree(f.s.db, l.id, size); err != nil {
		return c.tileProblem(err)
	}
	tails := c.tree.tails
	if !slices.Equal(c.tree.edge(), c.head.edge) {
		f.find("head", l, nil, "its right edge has root %s, what is left of the log makes %s", foldEdge(c.head.edge), c.tree.root())
	}
	for level := uint8(1); int(level) < len(tails); level++ {
		for i := range size >> (tileHeight * (level + 1)) {
			hashes, err := readTile(f.s.db, l.id, level, i)
			if err != nil {
				if err := c.tileProblem(err); err != nil {
					return err
				}
				continue
			}
			f.r.Tiles++
			want, n := tails[level+1], size>>(tileHeight*(level+1))
			var above record.Hash
			if i >= n&^(tileWidth-1) {
				above = want.at(0, i%tileWidth)
			} else if up, err := readTile(f.s.db, l.id, level+1, i/tileWidth); err == nil {
				above = up[i%tileWidth]
			} else if err := c.tileProblem(err); err != nil {
				return err
			}
			if got := perfectRoot(hashes); got != above {
				f.find("tile", l, nil, "level %d index %d makes %s, the tile above it holds %s: one of the two was changed", level, i, got, above)
			}
		}
	}
	for {
		k, err := c.claims.next()
		if err != nil {
			return err
		}
		if k == nil {
			return c.roots()
		}
		if k.size > size {
			f.find(k.table, l, nil, "%sit has size %d, the log had %d leaves: the end is cut off", k.where(), k.size, size)
		} else if k.size == size && k.root != c.tree.root() {
			f.find(k.table, l, nil, "%sat size %d it has root %s, the log had %s", k.where(), k.size, k.root, c.tree.root())
		} // else its leaf hashes are gone
		if err := c.claims.skip(); err != nil {
			return err
		}
	}
}

// leftOvers looks for rows that a log which was dropped must not have.
func (c *logCheck) leftOvers(d *dropped) error {
	if d.pending {
		return nil // the next start takes them away
	}
	for _, left := range []struct {
		table    string
		from, to []byte
	}{
		{"leaf", keyLog(tableEntry, c.l.id), endOf(keyLog(tableEntry, c.l.id))},
		{"bundle", keyLog(tableBundle, c.l.id), endOf(keyLog(tableBundle, c.l.id))},
		{"payload", keyLog(tablePayload, c.l.id), endOf(keyLog(tablePayload, c.l.id))},
		{"tile", keyTile(c.l.id, 0, 0), keyTile(c.l.id, 1, 0)},
	} {
		n, first := 0, []byte(nil)
		if err := scanRange(c.f.s.db, left.from, left.to, func(key, _ []byte) error {
			if n++; n == 1 {
				first = bytes.Clone(key)
			}
			return nil
		}); err != nil {
			return err
		}
		if n > 0 {
			c.f.find(left.table, c.l, nil, "it was dropped, and %d rows are still there, from key %x on", n, first)
		}
	}
	return nil
}
