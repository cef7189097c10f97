package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// LinkState says how a log hangs on the one before it.
type LinkState int

// The states of a link.
const (
	LinkFirst     LinkState = iota // nothing is quoted, and nothing was to be
	LinkWhole                      // the genesis quotes a checkpoint of the log before, which is as quoted
	LinkElsewhere                  // the log before is of another host
	LinkBroken                     // Problem says why
	LinkDropped                    // this log, or too much of the one before, is not kept any longer
)

var linkStates = [...]string{LinkFirst: "first", LinkWhole: "whole", LinkElsewhere: "elsewhere", LinkBroken: "broken", LinkDropped: "dropped"}

// String returns the state's word.
func (s LinkState) String() string { return linkStates[s] }

// Link is how one log of a domain hangs on the one before it.
type Link struct {
	Genesis  record.Hash       // leaf hash of entry 0
	Begun    int64             // host wall time of entry 0, Unix nanoseconds
	Cause    string            // of the log, as its genesis says
	Previous *proof.Checkpoint // what the genesis quotes; nil: nothing
	State    LinkState
	Problem  string // what is wrong, or to be known
}

// Links checks the logs of one domain, given from the first one on: that the
// genesis of each quotes a checkpoint of the log before it, that this verifies,
// and that the log before has the root quoted. A link that is broken is no
// error.
func (s *Store) Links(ctx context.Context, logs []*Log) ([]Link, error) {
	s.checkpointMu.Lock()
	certified := append([]vmKey(nil), s.vmKeys...)
	s.checkpointMu.Unlock()
	out := make([]Link, 0, len(logs))
	for i, l := range logs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var before *Log
		if i > 0 {
			before = logs[i-1]
		}
		k, err := s.link(l, before, certified)
		if err != nil {
			return nil, fmt.Errorf("check the links of %s: %w", l.origin, err)
		}
		out = append(out, k)
	}
	return out, nil
}

func (s *Store) link(l, before *Log, certified []vmKey) (Link, error) {
	item, err := l.Look(0)
	if errors.Is(err, ErrPruned) { // a log without its genesis: it was dropped
		return Link{State: LinkDropped, Problem: err.Error()}, nil
	}
	if err != nil {
		return Link{}, err
	}
	k := Link{Genesis: item.LeafHash, Begun: item.Leaf.Wall}
	broken := func(format string, args ...any) (Link, error) {
		k.State, k.Problem = LinkBroken, fmt.Sprintf(format, args...)
		return k, nil
	}
	m, err := item.Decode()
	if errors.Is(err, ErrErased) || errors.Is(err, ErrUnreadable) {
		return broken("the payload of its genesis: %v", err)
	}
	g, ok := m.(*record.Genesis)
	if err != nil || !ok {
		return broken("entry 0 is no genesis that can be read")
	}
	k.Cause = g.Cause
	if g.Origin != l.origin {
		return broken("its genesis is that of %s", record.Printable([]byte(g.Origin)))
	}
	if g.PreviousOrigin == "" {
		if before != nil {
			return broken("its genesis quotes nothing, and %s stands before it", before.origin)
		}
		if l.name.Incarnation > 1 || l.name.Shard > proof.FirstShard {
			return broken("its genesis quotes nothing, and no log stands before incarnation %d, shard %d", l.name.Incarnation, l.name.Shard)
		}
		return k, nil
	}
	name, err := proof.ParseOrigin(g.PreviousOrigin)
	if err != nil {
		return broken("its genesis quotes a log of no name: %v", err)
	}
	if name.HostID != l.name.HostID {
		k.State, k.Problem = LinkElsewhere, "the log before is of host "+name.HostID+": verify it there"
		return k, nil
	}
	if before == nil || before.origin != g.PreviousOrigin {
		return broken("its genesis quotes %s, which does not stand before it", g.PreviousOrigin)
	}
	if len(g.PreviousCheckpoint) == 0 {
		return broken("its genesis names %s and quotes no checkpoint of it", g.PreviousOrigin)
	}
	c, _, err := s.openNote(before, g.PreviousCheckpoint, certified)
	if err != nil {
		return broken("the checkpoint that its genesis quotes does not verify: %v", err)
	}
	k.Previous = &c
	if err := before.contains(c); errors.Is(err, ErrPruned) {
		k.State, k.Problem = LinkDropped, fmt.Sprintf("the checkpoint that its genesis quotes cannot be compared any more: %v", err)
		return k, nil
	} else if err != nil {
		return broken("the checkpoint of %s that its genesis quotes is not of that log: %v", before.origin, err)
	}
	k.State = LinkWhole
	if size := before.Size(); size > c.Size { // outcomes of actions may come late
		k.Problem = fmt.Sprintf("%d entries of %s were sealed behind the checkpoint that its genesis quotes, of %d entries; only checkpoints of that log cover them", size-c.Size, before.origin, c.Size)
	}
	return k, nil
}
