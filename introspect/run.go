package introspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain"
)

// saveEvery is how many entries may be judged without a verdict before the
// position is made durable. They are judged again after a crash, from the
// saved states, with the same result.
const saveEvery = 4096

// The judge takes entries in runs and seals their verdicts in one commit, so
// that a flood of one domain costs the others one run and not one sync for each
// verdict (invariant I8). A run ends with runTime, too.
const (
	runLength   = 512 // entries
	runVerdicts = 256 // more than the reports of one entry may come on top
)

// takenAtOnce is how many commits are taken in between two entries.
const takenAtOnce = 256

// Run judges until ctx ends or the ledger fails.
func (j *Judge) Run(ctx context.Context) error {
	f, err := j.cfg.Store.Follow(JudgeName)
	if err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	defer f.Close()
	j.judged.Store(before(f.Position()))
	for {
		idle, err := j.round(ctx, f)
		if err == nil && idle {
			_, err = j.cfg.Store.Wait(ctx, before(f.Reached()))
		}
		if ctx.Err() != nil {
			return j.stop(f)
		}
		if err != nil {
			return fmt.Errorf("judge: %w", err)
		}
	}
}

// before is the newest commit that lies before a position.
func before(p chain.Position) uint64 { return max(p.Commit, 1) - 1 }

// round judges the entries of one run and seals its verdicts. idle says that
// nothing was left to do.
func (j *Judge) round(ctx context.Context, f *chain.Follower) (idle bool, err error) {
	j.erasures = j.cfg.Store.Erasures()
	began := j.cfg.Clock()
	now := began
	n := 0
	for ; n < runLength && j.waiting < runVerdicts && now-began < runTime && ctx.Err() == nil; n++ {
		if err := j.take(f); err != nil {
			return false, err
		}
		q := j.turns.next()
		if q == nil {
			break
		}
		if j.waiting > 0 && now-began+q.last > runTime {
			break // verdicts do not wait for an entry that takes long
		}
		if err := j.step(q); err != nil {
			return false, fmt.Errorf("judge entry %d of %s: %w", q.next, q.log.Origin(), err)
		}
		j.moves.Add(1)
		last := now
		now = j.cfg.Clock()
		q.last = now - last
		j.turns.charge(q.last)
		j.room.judged(q, q.last, j.states[q.log.ID()])
	}
	j.room.open(j.turns.busy())
	return n == 0, j.settle(ctx, f)
}

// take takes in what was sealed meanwhile: which logs have entries left.
func (j *Judge) take(f *chain.Follower) error {
	for range takenAtOnce {
		spans, ok, err := f.Spans()
		if err != nil || !ok {
			return err
		}
		for i := range spans {
			if !spans[i].Log.Name().IsHost() {
				j.turns.add(&spans[i], j.cfg.Store.LogByOrigin)
			}
		}
	}
	return nil
}

// step judges one entry of a log, or has its state follow the log by one.
func (j *Judge) step(q *queue) error {
	if q.log.Gone() != nil {
		q.pass(q.end)
		return nil
	}
	st, err := j.state(q.log)
	if err != nil {
		return err
	}
	if !st.taken { // what lies before the judge's position is judged
		st.taken, st.upTo = true, max(st.upTo, q.next)
	}
	if done := max(st.upTo, st.Next()); q.next < done && st.behind == nil { // ahead of a crash, or of an erasure
		q.pass(min(done, q.end))
		return nil
	}
	it, ok, err := q.log.From(q.next, q.end)
	if err != nil {
		return err
	}
	if !ok {
		q.pass(q.end) // pruned
		return nil
	}
	if done, err := j.catchUpOne(q.log, st, it.Index); err != nil || !done {
		return err
	}
	if err := j.judge(&it); err != nil {
		return err
	}
	q.pass(it.Index + 1)
	return nil
}

// settle ends a run: its verdicts are sealed, or its position is saved now and
// then, and at once where a saved state holds words that were erased: a silent guest
// has no next run.
func (j *Judge) settle(ctx context.Context, f *chain.Follower) error {
	var err error
	defer j.moves.Add(1)
	switch {
	case j.waiting > 0:
		if err = j.seal(ctx, f); errors.Is(err, errErased) {
			j.again(f)
			return nil
		}
	case j.unsaved >= saveEvery || j.urgent:
		err = j.save(context.WithoutCancel(ctx), f, false)
	}
	if err == nil {
		j.judged.Store(before(j.turns.low(f.Reached())))
	}
	return err
}

// stop saves where the judge is, so that the next start has nothing to repeat.
// A run that was cut short is judged again: its states are not saved.
func (j *Judge) stop(f *chain.Follower) error {
	if j.waiting > 0 {
		return nil
	}
	if err := j.save(context.Background(), f, true); err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	return nil
}
