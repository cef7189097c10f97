package chain

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

// TestDifferential compares roots and proofs of every size up to 2,000 with two
// implementations by others: x/mod's, and that of transparency-dev.
func TestDifferential(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	const most = 2000
	for l.Size() < most {
		b := Batch{Log: l}
		for range min(250, most-l.Size()) {
			b.Entries = append(b.Entries, hostEntry(t, s, "x"))
		}
		mustAppend(t, s, b)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	hasher := rfc6962.DefaultHasher
	theirs := (&compact.RangeFactory{Hash: hasher.HashChildren}).NewEmptyRange(0)
	var xmod oracle
	var roots [][]byte // as transparency-dev has them
	if got, want := foldEdge(nil), hasher.EmptyRoot(); string(got[:]) != string(want) {
		t.Errorf("the empty tree has root %s, want %x", got, want)
	}
	bytesOf := func(path []tlog.Hash) (out [][]byte) {
		for i := range path {
			out = append(out, path[i][:])
		}
		return out
	}
	for size := uint64(1); size <= most; size++ {
		item, err := l.Item(size - 1)
		if err != nil {
			t.Fatal(err)
		}
		leaf := hasher.HashLeaf(item.LeafBytes)
		if string(leaf) != string(item.LeafHash[:]) {
			t.Fatalf("leaf %d has hash %s, want %x", size-1, item.LeafHash, leaf)
		}
		if err := theirs.Append(leaf, nil); err != nil {
			t.Fatal(err)
		}
		want, err := theirs.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, want)
		xmod.push(t, item.LeafHash)
		root, err := l.RootAt(size)
		if err != nil || string(root[:]) != string(want) || root != xmod.root(t, int64(size)) {
			t.Fatalf("size %d has root %s, want %x (%v)", size, root, want, err)
		}
		index, older := rng.Uint64N(size), 1+rng.Uint64N(size)
		at, err := l.LeafHash(index)
		if err != nil {
			t.Fatal(err)
		}
		inclusion, err := l.ProveInclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(hasher, index, size, at[:], bytesOf(inclusion), want); err != nil {
			t.Fatalf("entry %d at size %d: %v", index, size, err)
		}
		consistency, err := l.ProveConsistency(older, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyConsistency(hasher, older, size, bytesOf(consistency), roots[older-1], want); err != nil {
			t.Fatalf("size %d to %d: %v", older, size, err)
		}
		if bad := (record.Hash{1}); proof.VerifyInclusion(hasher, index, size, bad[:], bytesOf(inclusion), want) == nil {
			t.Fatalf("entry %d at size %d: any hash is proven", index, size)
		}
	}
}
