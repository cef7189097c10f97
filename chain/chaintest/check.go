package chaintest

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// logCheck verifies a log by other means than the ledger's own: the root follows
// from the definition of RFC 6962, and checkpoint and proofs are held against it.
type logCheck struct {
	l      *chain.Log
	leaves []record.Hash
	mono   int64
}

func (c *logCheck) fail(format string, args ...any) error {
	return fmt.Errorf("check %s: %s", c.l.Origin(), fmt.Sprintf(format, args...))
}

// add takes the next entry of the log.
func (c *logCheck) add(item *chain.Item) error {
	n, last := uint64(len(c.leaves)), record.Hash{}
	if n > 0 {
		last = c.leaves[n-1]
	}
	salt := item.Salt()
	switch {
	case item.Unreadable != nil:
		return c.fail("entry %d: %v", item.Index, item.Unreadable)
	case item.Index != n || item.Leaf.Index != n:
		return c.fail("leaf %d stands at %d, want %d", item.Leaf.Index, item.Index, n)
	case item.Leaf.Prev != last:
		return c.fail("leaf %d does not follow the one before it", n)
	case item.Leaf.Mono < c.mono:
		return c.fail("time steps back at leaf %d", n)
	case !item.Erased && record.Commit(&salt, item.Payload) != item.Leaf.Commitment:
		return c.fail("payload %d is not what its leaf commits to", n)
	}
	hash := record.LeafHash(item.LeafBytes)
	if hash != item.LeafHash {
		return c.fail("leaf %d has hash %s and is given with %s", n, hash, item.LeafHash)
	}
	c.leaves, c.mono = append(c.leaves, hash), item.Leaf.Mono
	return nil
}

// end holds all of the log's leaves against its root and its checkpoint.
func (c *logCheck) end() error {
	size, root := c.l.Root()
	if n := uint64(len(c.leaves)); n != size {
		return c.fail("%d leaves can be read of %d", n, size)
	}
	if want := record.Root(c.leaves); root != want {
		return c.fail("root %s at size %d, the leaves make %s", root, size, want)
	}
	if p, ok := c.l.Checkpoint(); ok {
		return CheckCheckpoint(c.l, p.Note, rand.New(rand.NewPCG(size, 1)))
	}
	return nil
}

// CheckLog reads a whole log and verifies it.
func CheckLog(ctx context.Context, l *chain.Log) error {
	c := &logCheck{l: l}
	for item, err := range l.Read(ctx, 0, l.Size()) {
		if err == nil {
			err = c.add(&item)
		}
		if err != nil {
			return fmt.Errorf("check %s: %w", l.Origin(), err)
		}
	}
	return c.end()
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

// CheckStore verifies every log of a store, and that commits cover every entry
// once and in order: it reads all of them as a follower does.
func CheckStore(ctx context.Context, s *chain.Store) error {
	logs := map[chain.LogID]*logCheck{}
	for _, l := range s.Logs() {
		logs[l.ID()] = &logCheck{l: l}
	}
	f := s.Tail(chain.Position{})
	defer f.Close()
	for ctx.Err() == nil {
		item, ok, err := f.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := logs[item.Log.ID()].add(&item); err != nil {
			return fmt.Errorf("in the order of commits: %w", err)
		}
	}
	for _, c := range logs {
		if err := c.end(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
