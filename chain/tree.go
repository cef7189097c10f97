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
	// tails[l] is the last, partial tile of tile level l. Its hashes are nodes
	// of tree level 8l. A clone shares the arrays: the committer writes only
	// behind the clone's length.
	tails []tile
}

// tile is a tile, full or partial, with all nodes of the tree inside it. They
// stand in the order in which they come to be: each behind the two below it. So
// a proof hashes nothing, and growing writes only behind the end.
type tile struct {
	width int // hashes of the lowest level
	nodes []record.Hash
}

// tileNodes is how many nodes a full tile has.
const tileNodes = 2*tileWidth - 1

// at returns node n of a level of the tile, 0 to 8: the one over the hashes
// from n<<level to before (n+1)<<level.
func (t *tile) at(level int, n uint64) record.Hash {
	last := (n+1)<<level - 1 // below it; the nodes over those before it come first
	return t.nodes[2*last-uint64(bits.OnesCount64(last))+uint64(level)]
}

// push adds a hash at the lowest level and the nodes that it completes.
func (t *tile) push(h record.Hash) {
	t.nodes = append(t.nodes, h)
	t.width++
	for level := 1; t.width&(1<<level-1) == 0; level++ {
		n := len(t.nodes)
		t.nodes = append(t.nodes, nodeHash(t.nodes[n-1<<level], t.nodes[n-1]))
	}
}

// hashes appends count hashes of the lowest level from first on to to.
func (t *tile) hashes(to []record.Hash, first uint64, count int) []record.Hash {
	for i := range uint64(count) {
		to = append(to, t.at(0, first+i))
	}
	return to
}

// makeTile makes a tile of its hashes.
func makeTile(hashes []record.Hash) tile {
	t := tile{nodes: make([]record.Hash, 0, 2*len(hashes))}
	for i := range hashes {
		t.push(hashes[i])
	}
	return t
}

// clone returns a tree that stays as it is while t grows.
func (t *tree) clone() tree {
	return tree{size: t.size, tails: append([]tile(nil), t.tails...)}
}

// fullTile is a tile that an append has filled.
type fullTile struct {
	level  uint8
	index  uint64
	hashes []record.Hash // tileWidth
	root   record.Hash   // what it stands for on the level above
}

// push appends one leaf hash and calls emit for each tile that it fills.
func (t *tree) push(leaf record.Hash, emit func(fullTile)) {
	h := leaf
	for level := 0; ; level++ {
		if level == len(t.tails) {
			t.tails = append(t.tails, tile{})
		}
		tail := &t.tails[level]
		tail.push(h)
		if tail.width < tileWidth {
			break
		}
		h = tail.at(tileHeight, 0)
		emit(fullTile{level: uint8(level), index: t.size >> (tileHeight * (level + 1)), hashes: tail.hashes(make([]record.Hash, 0, tileWidth), 0, tileWidth), root: h})
		*tail = tile{}
		if level == 0 { // the next one is about to be filled, and copied into
			tail.nodes = make([]record.Hash, 0, 2*tileWidth)
		}
	}
	t.size++
}

// edge returns the roots of the perfect subtrees that make up the tree, the
// largest first: one for each set bit of its size.
func (t *tree) edge() []record.Hash { return edgeOfTails(t.tails) }

// root returns the RFC 6962 root.
func (t *tree) root() record.Hash { return foldEdge(t.edge()) }

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

// edgeOfTails returns the right edge that partial tiles make.
func edgeOfTails(tails []tile) []record.Hash {
	edge := make([]record.Hash, 0, tileHeight*len(tails))
	for i := len(tails) - 1; i >= 0; i-- {
		for level, rest := tileHeight-1, uint64(tails[i].width); level >= 0; level-- {
			if n := rest >> level; n&1 == 1 {
				edge = append(edge, tails[i].at(level, n-1))
			}
		}
	}
	return edge
}
