package chain

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

// tileHashes returns count hashes of tile level 8*level from index on, which
// all lie in one tile. The tile may be partial in state.
func (l *Log) tileHashes(state *logState, level int, index uint64, count int) ([]record.Hash, error) {
	tile, offset := index/tileWidth, index%tileWidth
	width := state.size >> (tileHeight * level) // hashes on this level
	if offset+uint64(count) > tileWidth || index+uint64(count) > width {
		return nil, fmt.Errorf("%d hashes from %d on tile level %d of %s: the log has %d leaves: %w", count, index, level, l.origin, state.size, record.ErrReject)
	}
	if tile == width/tileWidth {
		return state.tails[level].hashes(make([]record.Hash, 0, count), offset, count), nil
	}
	if err := l.goneTile(uint8(level), tile); err != nil {
		return nil, fmt.Errorf("%s: %w", l.origin, err)
	}
	hashes, err := readTile(l.store.db, l.id, uint8(level), tile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.origin, err)
	}
	return hashes[offset : offset+uint64(count)], nil
}

// node returns node n of a level of the tree.
func (l *Log) node(state *logState, level int, n uint64) (record.Hash, error) {
	tileLevel, inside := level/tileHeight, level%tileHeight
	width := state.size >> (tileHeight * tileLevel) // hashes on this tile level
	if (n+1)<<inside > width {
		return record.Hash{}, fmt.Errorf("node %d on tree level %d of %s: the log has %d leaves: %w", n, level, l.origin, state.size, record.ErrReject)
	}
	index, offset := n>>(tileHeight-inside), n&(tileWidth>>inside-1)
	if index == width/tileWidth {
		return state.tails[tileLevel].at(inside, offset), nil
	}
	if err := l.goneTile(uint8(tileLevel), index); err != nil {
		return record.Hash{}, fmt.Errorf("%s: %w", l.origin, err)
	}
	t, err := l.store.tiles.get(l, uint8(tileLevel), index)
	if err != nil {
		return record.Hash{}, fmt.Errorf("%s: %w", l.origin, err)
	}
	return t.at(inside, offset), nil
}

// reader reads tree nodes for x/mod's proofs. The rows are this store's own,
// checked by recovery and fsck, so they are not authenticated again.
type reader struct {
	log   *Log
	state *logState
}

var _ tlog.HashReader = reader{}

// ReadHashes returns the nodes with the given stored hash indexes.
func (r reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		h, err := r.log.node(r.state, level, uint64(n))
		if err != nil {
			return nil, err
		}
		hashes[i] = tlog.Hash(h)
	}
	return hashes, nil
}

// rootAt returns the root the log had at size.
func (l *Log) rootAt(state *logState, size uint64) (record.Hash, error) {
	if size == state.size {
		return state.root(), nil
	}
	root, err := tlog.TreeHash(int64(size), reader{l, state})
	if err != nil {
		return record.Hash{}, fmt.Errorf("root of %s at size %d: %w", l.origin, size, err)
	}
	return record.Hash(root), nil
}

// RootAt returns the RFC 6962 root of the first size leaves.
func (l *Log) RootAt(size uint64) (record.Hash, error) {
	state := l.state.Load()
	if size > state.size {
		return record.Hash{}, fmt.Errorf("root of %s at size %d: the log has %d leaves: %w", l.origin, size, state.size, record.ErrReject)
	}
	return l.rootAt(state, size)
}

// ProveInclusion returns the proof that the leaf at index is in the tree of
// the first size leaves.
func (l *Log) ProveInclusion(index, size uint64) (tlog.RecordProof, error) {
	if err := l.Gone(); err != nil {
		return nil, err
	}
	state := l.state.Load()
	if size > state.size || index >= size {
		return nil, fmt.Errorf("prove leaf %d of %s at size %d: the log has %d leaves: %w", index, l.origin, size, state.size, record.ErrReject)
	}
	p, err := tlog.ProveRecord(int64(size), int64(index), reader{l, state})
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d of %s at size %d: %w", index, l.origin, size, err)
	}
	return p, nil
}

// ProveConsistency returns the proof that the tree of the first older leaves is
// a prefix of the tree of the first newer ones. older is at least 1.
func (l *Log) ProveConsistency(older, newer uint64) (tlog.TreeProof, error) {
	state := l.state.Load()
	if newer > state.size || older > newer || older == 0 {
		return nil, fmt.Errorf("prove consistency of %s from size %d to %d: the log has %d leaves: %w", l.origin, older, newer, state.size, record.ErrReject)
	}
	p, err := tlog.ProveTree(int64(newer), int64(older), reader{l, state})
	if err != nil {
		return nil, fmt.Errorf("prove consistency of %s from size %d to %d: %w", l.origin, older, newer, err)
	}
	return p, nil
}
