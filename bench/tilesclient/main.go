// Command tilesclient reads a log with Tessera's client and verifies with
// transparency-dev/merkle, of which nothing is ours: every entry by an inclusion
// proof under the signed checkpoint, and the consistency of that with smaller sizes, whose
// roots it makes from the entries. It prints "verified N entries" only if all of
// it holds, and ends with 1 otherwise. The conformance tests run it.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: tilesclient URL VKEY")
		os.Exit(2)
	}
	n, err := verify(context.Background(), os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tilesclient:", err)
		os.Exit(1)
	}
	fmt.Printf("verified %d entries\n", n)
}

func verify(ctx context.Context, base, vkey string) (uint64, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	u, err := url.Parse(base)
	if err != nil {
		return 0, err
	}
	f, err := client.NewHTTPFetcher(u, nil)
	if err != nil {
		return 0, err
	}
	head, _, _, err := client.FetchCheckpoint(ctx, f.ReadCheckpoint, v, v.Name())
	if err != nil {
		return 0, err
	}
	proofs, err := client.NewProofBuilder(ctx, head.Size, f.ReadTile)
	if err != nil {
		return 0, err
	}
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree := factory.NewEmptyRange(0)
	for b := uint64(0); tree.End() < head.Size; b++ {
		bundle, err := client.GetEntryBundle(ctx, f.ReadEntryBundle, b, head.Size)
		if err != nil {
			return 0, err
		}
		if len(bundle.Entries) == 0 {
			return 0, fmt.Errorf("bundle %d is empty", b)
		}
		for _, e := range bundle.Entries {
			i, leaf := tree.End(), rfc6962.DefaultHasher.HashLeaf(e)
			path, err := proofs.InclusionProof(ctx, i)
			if err != nil {
				return 0, fmt.Errorf("entry %d: %w", i, err)
			}
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i, head.Size, leaf, path, head.Hash); err != nil {
				return 0, fmt.Errorf("entry %d: %w", i, err)
			}
			if err := tree.Append(leaf, nil); err != nil {
				return 0, err
			}
			if err := consistent(ctx, proofs, tree, head.Size, head.Hash); err != nil {
				return 0, fmt.Errorf("from size %d: %w", tree.End(), err)
			}
		}
	}
	return head.Size, nil
}

// consistent verifies that the tree so far is a prefix of the whole.
func consistent(ctx context.Context, proofs *client.ProofBuilder, tree *compact.Range, size uint64, head []byte) error {
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	path, err := proofs.ConsistencyProof(ctx, tree.End(), size)
	if err != nil {
		return err
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, tree.End(), size, path, root, head)
}
