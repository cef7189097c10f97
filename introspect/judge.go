package introspect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
)

// JudgeName is the name under which the judge's position is kept.
const JudgeName = "rules"

// JudgeConfig is what a Judge needs.
type JudgeConfig struct {
	Store  *chain.Store
	Engine *rules.Engine
	Log    *slog.Logger
	// Count is told of every verdict sealed, for the metrics.
	Count func(v *record.Verdict)
}

// Judge follows the ledger, evaluates every entry of every VM log and seals
// the verdicts. A policy sees an entry only after it is durable (invariant I1);
// a verdict, the position behind its cause and the states it was reached with
// become durable together, so that no restart repeats or forgets one (I2, I5).
type Judge struct {
	cfg     JudgeConfig
	states  map[chain.LogID]*rules.State
	dirty   map[chain.LogID]bool
	unsaved int
	read    chain.Position // behind the newest entry judged
	judged  atomic.Uint64  // newest commit judged
	entries atomic.Uint64
	failed  atomic.Uint64
}

// NewJudge returns a Judge that does nothing until Run.
func NewJudge(cfg JudgeConfig) *Judge {
	return &Judge{cfg: cfg, states: map[chain.LogID]*rules.State{}, dirty: map[chain.LogID]bool{}}
}

// Judged returns the newest commit whose entries have been judged, how many
// entries were, and how many could not be decided.
func (j *Judge) Judged() (commit, entries, failed uint64) {
	return j.judged.Load(), j.entries.Load(), j.failed.Load()
}

// saveEvery is how many entries may be judged without a verdict before the
// position is made durable. They are judged again after a crash, from the
// saved states, with the same result.
const saveEvery = 4096

// Run judges until ctx ends or the ledger fails.
func (j *Judge) Run(ctx context.Context) error {
	f, err := j.cfg.Store.Follow(JudgeName)
	if err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	defer f.Close()
	j.read = f.Position()
	j.judged.Store(j.read.Commit)
	for {
		it, err := f.Next(ctx)
		if ctx.Err() != nil {
			return j.stop(f)
		}
		if err != nil {
			return fmt.Errorf("judge: %w", err)
		}
		if err := j.judge(ctx, f, &it); err != nil {
			return fmt.Errorf("judge entry %d of %s: %w", it.Index, it.Log.Origin(), err)
		}
		j.judged.Store(it.Pos.Commit)
	}
}

// stop saves where the judge is, so that the next start has nothing to repeat.
func (j *Judge) stop(f *chain.Follower) error {
	if err := j.save(context.Background(), f); err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	return nil
}

func (j *Judge) judge(ctx context.Context, f *chain.Follower, it *chain.Item) error {
	j.read = it.Pos
	if it.Log.Name().IsHost() {
		return nil
	}
	st, err := j.state(it.Log)
	if err != nil {
		return err
	}
	payload, derr := decode(it)
	verdicts, err := j.cfg.Engine.Eval(st, it.Leaf, it.LeafHash, payload)
	if err != nil && !errors.Is(err, rules.ErrNoPayload) {
		return err
	}
	if derr != nil {
		verdicts = append(verdicts, undecided(it, derr))
	}
	j.entries.Add(1)
	j.dirty[it.Log.ID()] = true
	if j.unsaved++; len(verdicts) == 0 {
		if j.unsaved >= saveEvery {
			return j.save(ctx, f)
		}
		return nil
	}
	return j.seal(ctx, f, it, verdicts)
}

// decode returns the payload of an item, nil where it was erased. Sessions seal
// no payload that does not decode, so an error means one of a newer format.
func decode(it *chain.Item) (record.Message, error) {
	if it.Payload == nil {
		return nil, nil
	}
	return record.Decode(it.Leaf.Header.Class, it.Payload)
}

// undecided is the verdict that an entry could not be judged: never taken for
// "no match", and no reason to stop judging the others.
func undecided(it *chain.Item, err error) *record.Verdict {
	return &record.Verdict{
		Severity: "high", Title: "Entry could not be judged", Error: err.Error(),
		CauseIndex: it.Index, CauseHash: it.LeafHash[:], CauseClass: it.Leaf.Header.Class.String(),
	}
}

// seal appends verdicts together with the position and the states behind them.
func (j *Judge) seal(ctx context.Context, f *chain.Follower, it *chain.Item, verdicts []*record.Verdict) error {
	b := chain.Batch{Log: it.Log, Position: f.At(j.read, nil)}
	for _, v := range verdicts {
		e, err := j.cfg.Store.Draft(record.OriginPolicy, rules.ClassOf(v), v)
		if err != nil {
			return err
		}
		b.Entries = append(b.Entries, e)
	}
	var err error
	if b.Meta, err = j.rows(); err != nil {
		return err
	}
	sealed, err := j.cfg.Store.Append(context.WithoutCancel(ctx), b)
	if err != nil {
		return fmt.Errorf("seal verdict: %w", err)
	}
	f.Saved(j.read, nil)
	j.saved()
	for i, v := range verdicts {
		if v.Error != "" {
			j.failed.Add(1)
		}
		if j.cfg.Count != nil {
			j.cfg.Count(v)
		}
		j.cfg.Log.InfoContext(ctx, "verdict sealed", "policy", v.Policy, "mode", v.Mode, "log", it.Log.Origin(),
			"leaf", sealed.First+uint64(i), "cause", v.CauseIndex, "class", v.CauseClass, "error", v.Error)
	}
	return nil
}

// save makes position and states durable without a verdict.
func (j *Judge) save(ctx context.Context, f *chain.Follower) error {
	rows, err := j.rows()
	if err != nil {
		return err
	}
	if err := f.SaveWith(ctx, j.read, nil, rows); err != nil {
		return fmt.Errorf("save position: %w", err)
	}
	j.saved()
	return nil
}

func (j *Judge) saved() {
	clear(j.dirty)
	j.unsaved = 0
}

func stateKey(id chain.LogID) string {
	return "rules/" + string(binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// state returns the evaluation state of a log, as it was saved.
func (j *Judge) state(l *chain.Log) (*rules.State, error) {
	if st := j.states[l.ID()]; st != nil {
		return st, nil
	}
	st := &rules.State{}
	b, ok, err := j.cfg.Store.Meta(stateKey(l.ID()))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if ok {
		if err := st.UnmarshalBinary(b); err != nil {
			return nil, fmt.Errorf("read state: %w: %w", err, record.ErrFatal)
		}
	}
	j.states[l.ID()] = st
	return st, nil
}

// rows returns the meta rows of all states that changed since they were saved.
func (j *Judge) rows() ([]chain.MetaWrite, error) {
	rows := make([]chain.MetaWrite, 0, len(j.dirty))
	for id := range j.dirty {
		b, err := j.states[id].MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("save state: %w", err)
		}
		rows = append(rows, chain.MetaWrite{Key: stateKey(id), Value: b})
	}
	return rows, nil
}
