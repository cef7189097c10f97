package chain

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// ErrNotFound is returned for a tile or bundle that the published checkpoint
// of a log does not cover.
var ErrNotFound = errors.New("not found")

// Tile returns the first width hashes of the tile at (level, index), as
// c2sp.org/tlog-tiles has it. width is 1 to 256; 256 is the full tile. Tiles
// are served as far as the published checkpoint goes.
func (l *Log) Tile(level uint8, index uint64, width int) ([]byte, error) {
	if err := l.Gone(); err != nil {
		return nil, err
	}
	if err := l.covered(level, index, width); err != nil {
		return nil, fmt.Errorf("tile level %d index %d width %d of %s: %w", level, index, width, l.origin, err)
	}
	hashes, err := l.tileHashes(l.state.Load(), int(level), index*tileWidth, width)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, width*len(record.Hash{}))
	for i := range hashes {
		data = append(data, hashes[i][:]...)
	}
	return data, nil
}

// Bundle returns the first width entries of the entry bundle at index, each
// with its length before it in two bytes (c2sp.org/tlog-tiles). What is in it
// are leaves: payloads are never served this way.
func (l *Log) Bundle(index uint64, width int) (data []byte, err error) {
	if err := l.Gone(); err != nil {
		return nil, err
	}
	if err := l.covered(0, index, width); err != nil {
		return nil, fmt.Errorf("entry bundle %d width %d of %s: %w", index, width, l.origin, err)
	}
	first := index * tileWidth
	data = make([]byte, 0, width*(2+record.LeafSize))
	err = l.leafRows(first, first+uint64(width), func(leaf []byte) error {
		if len(leaf) > 0xffff {
			return corrupt("a leaf in entry bundle %d of %s has %d bytes", index, l.origin, len(leaf))
		}
		data = binary.BigEndian.AppendUint16(data, uint16(len(leaf)))
		data = append(data, leaf...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("entry bundle %d of %s: %w", index, l.origin, err)
	}
	return data, nil
}

// covered checks that the published checkpoint covers part of a tile.
func (l *Log) covered(level uint8, index uint64, width int) error {
	p := l.published.Load()
	if level > 7 || width < 1 || width > tileWidth {
		return fmt.Errorf("level must be 0 to 7 and width 1 to %d: %w: %w", tileWidth, ErrNotFound, record.ErrReject)
	}
	if p == nil {
		return fmt.Errorf("the log has no checkpoint yet: %w", ErrNotFound)
	}
	have := p.Size >> (tileHeight * level) // whole hashes on this level
	if index > have/tileWidth || index*tileWidth+uint64(width) > have {
		return fmt.Errorf("the checkpoint covers %d entries: %w", p.Size, ErrNotFound)
	}
	return nil
}
