package introspect

import (
	"errors"
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
)

// recall gives policies an entry of a log again. What is gone for good is as if it
// had been erased: it cannot be judged again, which is not a failure of the judge.
func recall(l *chain.Log) rules.Recall {
	return func(index uint64) (record.Leaf, record.Message, error) {
		it, err := l.Look(index)
		if errors.Is(err, chain.ErrPruned) || errors.Is(err, chain.ErrNotFound) {
			return record.Leaf{}, nil, fmt.Errorf("%w: %w", err, rules.ErrNoPayload)
		}
		if err != nil {
			return record.Leaf{}, nil, err
		}
		m, err := decode(&it)
		if err != nil {
			return it.Leaf, nil, fmt.Errorf("%w: %w", err, rules.ErrNoPayload)
		}
		return it.Leaf, m, nil
	}
}

// carry seals at the beginning of a shard the approvals that go on from the shard
// before, with the uses made there: a shard stands for itself. The judge does it, since
// it has seen all of the old shard when it comes to the new one; their entries come with
// the verdicts of the run.
func (j *Judge) carry(l *chain.Log, g *record.Genesis) error {
	if g.Cause != "shard" {
		return nil
	}
	last, ok := j.cfg.Store.LogByOrigin(g.PreviousOrigin)
	if !ok {
		return fmt.Errorf("carry approvals on: there is no log %s: %w", g.PreviousOrigin, record.ErrFatal)
	}
	st, err := j.state(last)
	if err == nil {
		err = j.catchUp(last, st, j.wholly(last, st))
	}
	if err != nil {
		return err
	}
	for _, a := range st.Approvals() {
		it, err := last.Look(a.Loaded)
		if err == nil && it.Unreadable != nil {
			err = it.Unreadable
		}
		var m *record.Approval
		if err == nil {
			var p record.Message
			if p, err = it.Decode(); err == nil {
				m, ok = p.(*record.Approval)
				if !ok {
					err = fmt.Errorf("entry %d is a %s", a.Loaded, it.Leaf.Header.Class)
				}
			}
		}
		if err != nil {
			// It ends with its shard: there are verdicts then, which is the safe side.
			j.cfg.Log.Error("an approval does not go on in the next shard: it cannot be read", "id", a.ID, "log", l.Origin(), "error", err)
			continue
		}
		m.Uses, m.CarriedFrom = a.Uses, last.Origin()
		e, err := j.cfg.Store.Draft(record.OriginHost, record.ClassApprovalLoaded, m)
		if err != nil {
			return err
		}
		j.keep(l, e, nil)
	}
	return nil
}
