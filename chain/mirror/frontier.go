package mirror

import (
	"crypto/sha256"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// frontier is the right edge of a tree that grows: the roots of the perfect
// subtrees that make it up, the largest first.
type frontier struct {
	size uint64
	edge []record.Hash
}

// push appends a perfect subtree of 2^level leaves, which the tree's size must
// be a multiple of.
func (f *frontier) push(h record.Hash, level uint) {
	for carry := f.size >> level; carry&1 == 1; carry >>= 1 {
		h = record.NodeHash(f.edge[len(f.edge)-1], h)
		f.edge = f.edge[:len(f.edge)-1]
	}
	f.edge = append(f.edge, h)
	f.size += 1 << level
}

// root is the RFC 6962 tree head.
func (f *frontier) root() record.Hash {
	if len(f.edge) == 0 {
		return sha256.Sum256(nil)
	}
	h := f.edge[len(f.edge)-1]
	for _, left := range slices.Backward(f.edge[:len(f.edge)-1]) {
		h = record.NodeHash(left, h)
	}
	return h
}

// perfect returns the root over a power of two of hashes, which it overwrites.
func perfect(hashes []record.Hash) record.Hash {
	for n := len(hashes); n > 1; n /= 2 {
		for i := range n / 2 {
			hashes[i] = record.NodeHash(hashes[2*i], hashes[2*i+1])
		}
	}
	return hashes[0]
}
