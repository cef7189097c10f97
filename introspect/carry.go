package introspect

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
)

// recall gives policies an entry of a log again, or of an earlier shard of its
// incarnation. What is gone for good is as if it had been erased: it cannot be judged
// again, which is not a failure of the judge.
func (j *Judge) recall(l *chain.Log) rules.Recall {
	return func(shard uint32, index uint64) (record.Leaf, record.Message, error) {
		from, ok := j.shardOf(l, shard)
		if !ok {
			return record.Leaf{}, nil, fmt.Errorf("there is no shard %d before %s: %w", shard, l.Origin(), rules.ErrNoPayload)
		}
		it, err := from.Look(index)
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

// shardOf returns a shard of a log's incarnation; 0 is the log itself.
func (j *Judge) shardOf(l *chain.Log, shard uint32) (*chain.Log, bool) {
	if shard == 0 {
		return l, true
	}
	name := l.Name()
	name.Shard = shard
	return j.cfg.Store.LogByOrigin(name.String())
}

// shardBefore returns the origin of the shard that a log goes on from, "" where it
// begins its incarnation.
func shardBefore(l *chain.Log) string {
	name := l.Name()
	if name.Shard <= proof.FirstShard {
		return ""
	}
	name.Shard--
	return name.String()
}

// begin gives a shard, ahead of its first entry, what policies remember of the one
// before, so that nobody who has a log go on in another shard makes them forget. An
// entry says what that is; it comes with the verdicts of the run, ahead of them.
//
// The state of the old log without what was handed over, the new one, the position
// behind the genesis and that entry are one commit. A crash before it leaves the old
// state as it was behind the end of its log, and this is done again, with the same bytes.
func (j *Judge) begin(it *chain.Item, st *judged) error {
	origin := shardBefore(it.Log)
	if origin == "" {
		return nil
	}
	m := &record.PolicyCarried{Origin: origin}
	problem, err := j.takeOver(it.Log, st, m)
	if err != nil {
		return fmt.Errorf("carry on what policies remember of %s: %w", origin, err)
	}
	m.Problem = problem
	e, err := j.cfg.Store.Draft(record.OriginPolicy, record.ClassPolicyCarried, m)
	if err != nil {
		return err
	}
	j.keep(it.Log, e, nil)
	if problem == "" {
		return nil
	}
	v := undecided(it, fmt.Errorf("policies begin without what they remembered of %s: %s", origin, problem))
	j.cfg.Log.Error("policies begin a log without what they remembered of the one before", "log", it.Log.Origin(), "before", origin, "problem", problem)
	if e, err = j.cfg.Store.Draft(record.OriginPolicy, rules.ClassOf(v), v); err == nil {
		j.keep(it.Log, e, v)
	}
	return err
}

// takeOver moves what is remembered from the shard before into the state of a log, and
// says in m what that is. problem says why there is nothing to move.
func (j *Judge) takeOver(l *chain.Log, st *judged, m *record.PolicyCarried) (problem string, err error) {
	last, ok := j.cfg.Store.LogByOrigin(m.Origin)
	if !ok {
		return "there is no such log here", nil
	}
	if err := last.Gone(); err != nil {
		return err.Error(), nil
	}
	closed, ok := last.Closed()
	if !ok {
		return "it was not closed", nil
	}
	old, err := j.state(last)
	if err != nil {
		return "", err
	}
	// It was judged to its end, see turns.first; what was saved of it may be older.
	if err := j.catchUp(last, old, max(closed+1, old.upTo)); err != nil {
		return "", err
	}
	m.Size, m.ClosedIndex = old.Next(), closed
	next := old.Continue(last.Name().Shard)
	if next == nil {
		return fmt.Sprintf("entry %d, which closed it, could not be judged", closed), nil
	}
	end, err := last.Look(closed)
	if err != nil && !errors.Is(err, chain.ErrPruned) {
		return "", err
	}
	m.ClosedHash = end.LeafHash[:]
	b, err := next.MarshalBinary()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	m.Version, m.Sha256, m.Bytes = rules.StateVersion, sum[:], uint64(len(b))
	for _, a := range next.Approvals() {
		m.Approvals = append(m.Approvals, &record.CarriedApproval{Id: a.ID, Shard: a.Shard, Index: a.Loaded, Uses: a.Uses})
	}
	j.adopt(l, st, next)
	old.unsaved = true
	j.dirty[last.ID()] = true
	return "", nil
}

func (j *Judge) adopt(l *chain.Log, st *judged, next *rules.State) {
	next.Recall = j.recall(l)
	st.State, st.unsaved = next, true
}

// reborn begins a state that is made anew with what the shard before leaves, which is
// judged again for it: what was saved of that has been handed over before.
func (j *Judge) reborn(l *chain.Log, st *judged) error {
	last, ok := j.cfg.Store.LogByOrigin(shardBefore(l))
	if !ok || last.Gone() != nil {
		return nil
	}
	closed, ok := last.Closed()
	if !ok {
		return nil
	}
	old := &judged{State: &rules.State{Recall: j.recall(last)}, engine: j.nothing, rebuild: true}
	if err := j.catchUp(last, old, closed+1); err != nil {
		return err
	}
	if next := old.Continue(last.Name().Shard); next != nil {
		j.adopt(l, st, next)
	}
	return nil
}

// HandedOver refuses a log whose next shard has not taken over yet what policies
// remember: it would be lost with the log.
func HandedOver(s *chain.Store, l *chain.Log) error {
	name := l.Name()
	name.Shard++
	next, ok := s.LogByOrigin(name.String())
	if !ok || next.Gone() != nil {
		return nil
	}
	// Its row is written with the position behind its first entry, see begin.
	if _, ok, err := s.Meta(StateKey(next.ID())); err != nil || ok {
		return err
	}
	return fmt.Errorf("policies have not gone on in %s, which takes over what they remember: try again when they have: %w", next.Origin(), record.ErrRetry)
}
