package chaintest

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// CheckLog reads a whole log and verifies it by other means than the ledger's
// own: the root follows from the definition of RFC 6962, and checkpoint and
// proofs are held against it.
func CheckLog(ctx context.Context, l *chain.Log) error {
	size, root := l.Root()
	var leaves []record.Hash
	fail := func(format string, args ...any) error {
		return fmt.Errorf("check %s: %s", l.Origin(), fmt.Sprintf(format, args...))
	}
	n, last, mono := uint64(0), record.Hash{}, int64(0)
	for item, err := range l.Read(ctx, 0, size) {
		if err != nil {
			return fmt.Errorf("check %s: %w", l.Origin(), err)
		}
		switch {
		case item.Leaf.Index != n:
			return fail("leaf %d stands at %d", item.Leaf.Index, n)
		case item.Leaf.Prev != last:
			return fail("leaf %d does not follow the one before it", n)
		case item.Leaf.Mono < mono:
			return fail("time steps back at leaf %d", n)
		case !item.Erased && record.Commit(&item.Salt, item.Payload) != item.Leaf.Commitment:
			return fail("payload %d is not what its leaf commits to", n)
		}
		leaves = append(leaves, record.LeafHash(item.LeafBytes))
		n, last, mono = n+1, item.LeafHash, item.Leaf.Mono
	}
	if n != size {
		return fail("%d leaves can be read of %d", n, size)
	}
	if want := record.Root(leaves); root != want {
		return fail("root %s at size %d, the leaves make %s", root, n, want)
	}
	if p, ok := l.Checkpoint(); ok {
		if err := CheckCheckpoint(l, p.Note, rand.New(rand.NewPCG(size, 1))); err != nil {
			return err
		}
	}
	return nil
}

// CheckCheckpoint verifies a signed checkpoint of l, that l goes on from it,
// and an inclusion proof under it, as an auditor would who has kept it.
func CheckCheckpoint(l *chain.Log, note []byte, rng *rand.Rand) error {
	c, err := proof.OpenCheckpoint(note, l.Verifier())
	if err != nil {
		return err
	}
	size, root := l.Root()
	if c.Size > size {
		return fmt.Errorf("check %s: checkpoint at size %d, the log has %d", l.Origin(), c.Size, size)
	}
	consistency, err := l.ProveConsistency(c.Size, size)
	if err != nil {
		return err
	}
	if err := proof.VerifyConsistency(c, proof.Checkpoint{Origin: l.Origin(), Size: size, Root: root}, hashes(consistency)); err != nil {
		return fmt.Errorf("check %s: %w", l.Origin(), err)
	}
	index := rng.Uint64N(c.Size)
	inclusion, err := l.ProveInclusion(index, c.Size)
	if err != nil {
		return err
	}
	leaf, err := l.LeafHash(index)
	if err != nil {
		return err
	}
	if err := proof.VerifyInclusion(leaf, index, hashes(inclusion), c); err != nil {
		return fmt.Errorf("check %s: %w", l.Origin(), err)
	}
	return nil
}

// hashes converts the proofs of x/mod, whatever they are called there.
func hashes[H ~[32]byte, P ~[]H](p P) []record.Hash {
	out := make([]record.Hash, len(p))
	for i := range p {
		out[i] = record.Hash(p[i])
	}
	return out
}

// CheckStore checks every log of a store and that commits cover every entry
// once and in order.
func CheckStore(ctx context.Context, s *chain.Store) error {
	for _, l := range s.Logs() {
		if err := CheckLog(ctx, l); err != nil {
			return err
		}
	}
	next := map[chain.LogID]uint64{}
	f := s.Tail(chain.Position{})
	for {
		item, ok, err := f.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if want := next[item.Log.ID()]; item.Index != want {
			return fmt.Errorf("check order: entry %d of %s, want %d", item.Index, item.Log.Origin(), want)
		}
		next[item.Log.ID()]++
	}
	for _, l := range s.Logs() {
		if next[l.ID()] != l.Size() {
			return fmt.Errorf("check order: commits show %d entries of %s, it has %d", next[l.ID()], l.Origin(), l.Size())
		}
	}
	return nil
}
