package record

import (
	"crypto/sha256"
	"math/bits"
)

// NodeHash is the RFC 6962 hash of an interior node.
func NodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// Root is the RFC 6962 tree head over hashes that are already leaf hashes of
// that tree: the frame's tree takes record hashes as they are. The root of no
// hashes is SHA-256 of the empty string.
func Root(hashes []Hash) Hash {
	switch len(hashes) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return hashes[0]
	}
	k := split(len(hashes))
	return NodeHash(Root(hashes[:k]), Root(hashes[k:]))
}

// Path is the RFC 6962 audit path of hashes[i] under Root(hashes), lowest
// level first.
func Path(hashes []Hash, i int) []Hash {
	if len(hashes) <= 1 {
		return nil
	}
	k := split(len(hashes))
	if i < k {
		return append(Path(hashes[:k], i), Root(hashes[k:]))
	}
	return append(Path(hashes[k:], i-k), Root(hashes[:k]))
}

// RootFromPath recomputes the root of a tree of n hashes from the one at i and
// its audit path. ok is false where the path has a length that cannot be.
func RootFromPath(h Hash, i, n uint64, path []Hash) (root Hash, ok bool) {
	if i >= n {
		return Hash{}, false
	}
	last := n - 1
	for _, p := range path {
		if last == 0 {
			return Hash{}, false
		}
		if i&1 == 1 || i == last {
			h = NodeHash(p, h)
			for i&1 == 0 && i != 0 {
				i, last = i>>1, last>>1
			}
		} else {
			h = NodeHash(h, p)
		}
		i, last = i>>1, last>>1
	}
	return h, last == 0
}

// split returns the largest power of two smaller than n, for n > 1.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }
