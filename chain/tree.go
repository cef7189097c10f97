package chain

import (
	"math/bits"

	"github.com/provostd/provost/chain/record"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tree is the part of a log's Merkle tree that no full tile holds yet. It is
// grown by the committer alone; a clone of it is what everybody else reads.
type tree struct {
	size uint64
	// edge holds the roots of the perfect subtrees that make up the tree,
	// the largest first: one for each set bit of size.
	edge []record.Hash
	// tails[l] holds the hashes of the last, partial tile of tile level l,
	// which are nodes of tree level 8l. A clone shares the arrays: the
	// committer writes only behind the clone's length.
	tails [][]record.Hash
}

// clone returns a tree that stays as it is while t grows.
func (t *tree) clone() tree {
	return tree{
		size:  t.size,
		edge:  append([]record.Hash(nil), t.edge...),
		tails: append([][]record.Hash(nil), t.tails...),
	}
}

// fullTile is a tile that an append has filled.
type fullTile struct {
	level  uint8
	index  uint64
	hashes []record.Hash // tileWidth
}

// push appends one leaf hash and calls emit for each tile that it fills.
func (t *tree) push(leaf record.Hash, emit func(fullTile)) {
	t.node(0, leaf, emit)
	h := leaf
	// Each trailing one bit of the old size is a perfect subtree which this
	// leaf completes to one of twice the size.
	for level := 1; level <= bits.TrailingZeros64(t.size+1); level++ {
		h = nodeHash(t.edge[len(t.edge)-1], h)
		t.edge = t.edge[:len(t.edge)-1]
		if level%tileHeight == 0 {
			t.node(level/tileHeight, h, emit)
		}
	}
	t.edge = append(t.edge, h)
	t.size++
}

// node adds a hash to the partial tile of a tile level.
func (t *tree) node(level int, h record.Hash, emit func(fullTile)) {
	if level == len(t.tails) {
		t.tails = append(t.tails, nil)
	}
	tail := append(t.tails[level], h)
	if len(tail) == tileWidth {
		emit(fullTile{level: uint8(level), index: t.size >> (tileHeight * (level + 1)), hashes: tail})
		tail = nil
	}
	t.tails[level] = tail
}

// root returns the RFC 6962 root.
func (t *tree) root() record.Hash { return foldEdge(t.edge) }

// foldEdge hashes the perfect subtrees of a tree together to its root.
func foldEdge(edge []record.Hash) record.Hash {
	if len(edge) == 0 {
		root, _ := tlog.TreeHash(0, nil) // the empty tree needs no reader and cannot fail
		return record.Hash(root)
	}
	h := edge[len(edge)-1]
	for i := len(edge) - 2; i >= 0; i-- {
		h = nodeHash(edge[i], h)
	}
	return h
}

func nodeHash(left, right record.Hash) record.Hash {
	return record.Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right)))
}

// perfectRoot returns the root over hashes, whose number is a power of two.
// It does not change them.
func perfectRoot(hashes []record.Hash) record.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	next := make([]record.Hash, len(hashes)/2)
	for i := range next {
		next[i] = nodeHash(hashes[2*i], hashes[2*i+1])
	}
	for len(next) > 1 {
		for i := range len(next) / 2 {
			next[i] = nodeHash(next[2*i], next[2*i+1])
		}
		next = next[:len(next)/2]
	}
	return next[0]
}

// edgeOfTails recomputes the right edge from the partial tiles, for recovery.
func edgeOfTails(tails [][]record.Hash) []record.Hash {
	var edge []record.Hash
	for level := len(tails) - 1; level >= 0; level-- {
		for rest := tails[level]; len(rest) > 0; {
			n := 1 << (bits.Len(uint(len(rest))) - 1)
			edge = append(edge, perfectRoot(rest[:n]))
			rest = rest[n:]
		}
	}
	return edge
}
