package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// An R row holds the hash that a full tile stands for on the level above, until
// the tile there is full as well: at most 255 for each level of a log. Opening a
// store reads them, where it would have to read and hash the tiles. They follow
// from the tiles, so that losing them costs time and nothing else.

// keyRoot has the form of keyTile: 1 table, 4 log, 1 level, 8 index.
func keyRoot(id LogID, level uint8, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(keyLog(tableRoot, id), level), index)
}

// writeTile writes the row of a full tile and its root, and takes away the roots
// that it holds itself.
func writeTile(batch *pebble.Batch, id LogID, t fullTile) error {
	op := batch.SetDeferred(len(keyTile(id, t.level, t.index)), tileWidth*len(t.root))
	copy(op.Key, keyTile(id, t.level, t.index))
	for i := range t.hashes {
		copy(op.Value[i*len(t.root):], t.hashes[i][:])
	}
	if err := op.Finish(); err != nil {
		return err
	}
	if t.level > 0 {
		first := t.index * tileWidth
		if err := batch.DeleteRange(keyRoot(id, t.level-1, first), keyRoot(id, t.level-1, first+tileWidth), nil); err != nil {
			return err
		}
	}
	return batch.Set(keyRoot(id, t.level, t.index), t.root[:], nil)
}

// tileRoots appends the roots of the full tiles of a level from first to before
// end. Where there is no row, the tile is hashed: the store is older than R rows,
// or they were dropped.
func tileRoots(db pebble.Reader, id LogID, level uint8, first, end uint64, hashes []record.Hash) ([]record.Hash, error) {
	next := first
	fill := func(to uint64) error {
		for ; next < to; next++ {
			h, err := tileRoot(db, id, level, next)
			if err != nil {
				return err
			}
			hashes = append(hashes, h)
		}
		return nil
	}
	err := scanRange(db, keyRoot(id, level, first), keyRoot(id, level, end), func(key, value []byte) error {
		if len(key) != rootKeySize || len(value) != len(record.Hash{}) {
			return nil // not a root: fsck names it
		}
		at := binary.BigEndian.Uint64(key[6:])
		if err := fill(at); err != nil {
			return err
		}
		hashes = append(hashes, record.Hash(value))
		next++
		return nil
	})
	if err == nil {
		err = fill(end)
	}
	return hashes, err
}

const rootKeySize = 14

// dropRoots forgets the roots of a log, which do not fit its head: the tiles do.
func (s *Store) dropRoots(l *Log) error {
	s.cfg.Log.Warn("rows that follow from tiles do not fit them and were made anew; if no fault of the disk explains this, run fsck", slog.String("origin", l.origin))
	if s.readOnly {
		return nil
	}
	prefix := keyLog(tableRoot, l.id)
	return s.db.DeleteRange(prefix, endOf(prefix), pebble.Sync)
}

// roots checks the R rows of a log against the tree: those that are there must
// be right and must be needed. A missing one is no finding.
func (c *logCheck) roots() error {
	return scan(c.f.s.db, keyLog(tableRoot, c.l.id), func(key, value []byte) error {
		if len(key) != rootKeySize || len(value) != len(record.Hash{}) {
			c.f.find("root", c.l, nil, "key %x with %d bytes is no root of a tile", key, len(value))
			return nil
		}
		level, index := int(key[5])+1, binary.BigEndian.Uint64(key[6:])
		if level >= len(c.tree.tails) || index/tileWidth != c.tree.size>>(tileHeight*(level+1)) || index%tileWidth >= uint64(c.tree.tails[level].width) {
			c.f.find("root", c.l, nil, "level %d index %d has a root, and no partial tile holds it", level-1, index)
			return nil
		}
		if want := c.tree.tails[level].at(0, index%tileWidth); want != record.Hash(value) {
			c.f.find("root", c.l, nil, "level %d index %d has root %s in its row, the leaves make %s", level-1, index, record.Hash(value), want)
		}
		return nil
	})
}

// loadTails reads the hashes that a log of the given size has outside of full
// tiles. Those above the leaves are made by above, from the tiles of a level.
func loadTails(db pebble.Reader, id LogID, size uint64, fenced fences, above tilesAbove) ([]tile, error) {
	var tails []tile
	for level, n := uint8(0), size; n > 0; level, n = level+1, n>>tileHeight {
		first := n &^ (tileWidth - 1)
		hashes := make([]record.Hash, 0, n-first)
		var err error
		if level == 0 {
			hashes, err = leafRowHashes(db, id, first, n, hashes, fenced)
		} else {
			hashes, err = above(db, id, level-1, first, n, hashes)
		}
		if err != nil {
			return nil, err
		}
		tails = append(tails, makeTile(hashes))
	}
	return tails, nil
}

// tilesAbove appends what the full tiles of a level, from first to before end,
// stand for on the level above.
type tilesAbove func(db pebble.Reader, id LogID, level uint8, first, end uint64, hashes []record.Hash) ([]record.Hash, error)

// hashTiles is tileRoots without its rows: it trusts nothing but the tiles.
func hashTiles(db pebble.Reader, id LogID, level uint8, first, end uint64, hashes []record.Hash) ([]record.Hash, error) {
	for i := first; i < end; i++ {
		h, err := tileRoot(db, id, level, i)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

// loadTree rebuilds a log's partial tiles. They must make the right edge of its
// head. Where they do not, and the tiles by themselves do, the rows of their roots
// were wrong.
func (s *Store) loadTree(l *Log, h *head) (tree, error) {
	fits := func(t *tree) bool {
		edge := t.edge()
		return len(edge) == len(h.edge) && foldEdge(edge) == foldEdge(h.edge)
	}
	t := tree{size: h.size}
	var err error
	if t.tails, err = loadTails(s.db, l.id, h.size, l.fences, tileRoots); err == nil && fits(&t) {
		return t, nil
	}
	if t.tails, err = loadTails(s.db, l.id, h.size, l.fences, hashTiles); err != nil {
		return tree{}, err
	}
	if !fits(&t) {
		return tree{}, corrupt("its rows have root %s, its head has %s at size %d", t.root(), foldEdge(h.edge), h.size)
	}
	if err := s.dropRoots(l); err != nil {
		return tree{}, errors.Join(fmt.Errorf("drop roots of tiles"), err)
	}
	return t, nil
}
