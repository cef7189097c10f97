package introspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// JudgeName is the name under which the judge's position is kept.
const JudgeName = "rules"

// JudgeConfig is what a Judge needs.
type JudgeConfig struct {
	Store *chain.Store
	// Engine returns what judges behind an activation of a VM log. Beside an error,
	// which says why that cannot be had, it returns what judges in its place.
	Engine func(a *record.BundleActivation) (*rules.Engine, error)
	Log    *slog.Logger
	// Count is told of every verdict sealed, and of what became of approvals, for the
	// metrics.
	Count func(v *record.Verdict)
	// Clock says how long the judge runs, by which logs get fair shares of it. It decides
	// nothing else. Nil: the time since it was made.
	Clock func() time.Duration
}

// Judge follows the ledger, evaluates every entry of every VM log and seals
// the verdicts. A policy sees an entry only after it is durable (invariant I1);
// a verdict, how far its log is judged and the states it was reached with
// become durable together, so that no restart repeats or forgets one (I2, I5).
// Entries of one log are judged in their order; logs get fair shares (I8).
// Which policies judge an entry is what the last activation ahead of it in its log
// says, also where that was replaced before the entry's turn came.
type Judge struct {
	cfg     JudgeConfig
	nothing *rules.Engine // judges ahead of a log's first activation
	states  map[chain.LogID]*judged
	dirty   map[chain.LogID]bool // states are not saved
	moved   map[chain.LogID]bool // how far they are judged is not
	written []chain.LogID        // in the rows that are being saved
	unsaved int
	urgent  bool // a state must be saved at the end of the run
	turns   turns

	erasures uint64 // sealed before the run's first entry was read

	batches  []chain.Batch // verdicts of the run that are not sealed yet
	verdicts []*record.Verdict
	waiting  int
	room     room
	judged   atomic.Uint64 // commit before the next one in which anything is left
	moves    atomic.Uint64 // steps and runs done, for Moves
	entries  atomic.Uint64
	failed   atomic.Uint64
	differ   atomic.Uint64
}

// NewJudge returns a Judge that does nothing until Run.
func NewJudge(cfg JudgeConfig) *Judge {
	nothing, err := rules.New(&policy.Bundle{Name: "none"}, rules.Options{})
	if err != nil {
		panic(err) // there is nothing in it to refuse
	}
	if cfg.Clock == nil {
		made := time.Now()
		cfg.Clock = func() time.Duration { return time.Since(made) }
	}
	return &Judge{cfg: cfg, nothing: nothing, states: map[chain.LogID]*judged{}, dirty: map[chain.LogID]bool{}, moved: map[chain.LogID]bool{}}
}

// judged is what is remembered of one log.
type judged struct {
	*rules.State
	engine     *rules.Engine
	activation []byte // payload of the activation that is in force
	unsaved    bool   // it must be saved at the end of the run
	entries    int    // judged since it was saved
	rebuild    bool   // what was saved cannot be used
	missing    error  // its bundle is; until that is sealed
	// upTo is the first entry whose verdicts are neither sealed nor wait to be.
	upTo   uint64
	taken  bool    // by a step of this judge: upTo is not less than what lies before its position
	behind *behind // the state follows the log to upTo; nil: it is there
}

// Judged returns the newest commit up to which all entries have been judged, how many
// entries were, and how many could not be decided.
func (j *Judge) Judged() (commit, entries, failed uint64) {
	return j.judged.Load(), j.entries.Load(), j.failed.Load()
}

// Moves counts what the judge has done, whether it came forward by it or not: one that
// has entries left and does not move is stuck.
func (j *Judge) Moves() uint64 { return j.moves.Load() }

// Mismatches returns how often two ways to evaluate a policy disagreed.
func (j *Judge) Mismatches() uint64 { return j.differ.Load() }

// judge evaluates one entry and keeps its verdicts for the end of the run.
func (j *Judge) judge(it *chain.Item) error {
	if it.Log.Name().IsHost() {
		return nil
	}
	st, err := j.state(it.Log)
	if err != nil {
		return err
	}
	if err := j.catchUp(it.Log, st, it.Index); err != nil {
		return err
	}
	if it.Index == 0 {
		if err := j.begin(it, st); err != nil {
			return err
		}
	}
	payload, derr := decode(it)
	verdicts, err := j.evaluate(st, it, payload)
	if err != nil {
		return err
	}
	if st.missing != nil {
		verdicts = append(verdicts, undecided(it, fmt.Errorf("what follows is judged by bundle %s: %w", st.engine.Bundle().Digest, st.missing)))
		st.missing = nil
	}
	if derr != nil {
		verdicts = append(verdicts, undecided(it, derr))
	}
	j.entries.Add(1)
	j.urgent = j.urgent || st.unsaved // also where it was found on the way here
	st.upTo = it.Index + 1
	j.dirty[it.Log.ID()], j.moved[it.Log.ID()] = true, true
	j.unsaved++
	for _, v := range verdicts {
		if err := j.unsay(it.Log, v); err != nil {
			return err
		}
		e, err := j.cfg.Store.Draft(record.OriginPolicy, rules.ClassOf(v), v)
		if err != nil {
			return err
		}
		j.keep(it.Log, e, v)
	}
	return nil
}

// evaluate has a state move past an entry.
func (j *Judge) evaluate(st *judged, it *chain.Item, payload record.Message) ([]*record.Verdict, error) {
	if it.Unreadable != nil {
		return nil, nil
	}
	verdicts, err := st.engine.Eval(st.State, it.Leaf, it.LeafHash, payload)
	if err != nil && !errors.Is(err, rules.ErrNoPayload) {
		return nil, err
	}
	st.entries++
	switch a := payload.(type) {
	case *record.BundleActivation:
		if it.Leaf.Origin == record.OriginHost {
			st.activation, st.unsaved = bytes.Clone(it.Payload), true
			st.engine, st.missing = j.cfg.Engine(a)
		}
	case *record.Erased:
		st.unsaved = true // the saved state may hold words that are to go
	case *record.Closed:
		st.unsaved = true // what the next shard begins with must not wait for entries to come
	}
	return verdicts, nil
}

// keep adds an entry to its log's part of the commit to come; v is nil for one that is
// no verdict.
func (j *Judge) keep(l *chain.Log, e chain.Entry, v *record.Verdict) {
	j.waiting++
	if v != nil {
		j.verdicts = append(j.verdicts, v)
	}
	for i := range j.batches {
		if j.batches[i].Log == l {
			j.batches[i].Entries = append(j.batches[i].Entries, e)
			return
		}
	}
	j.batches = append(j.batches, chain.Batch{Log: l, Entries: []chain.Entry{e}})
}

// decode returns the payload of an item, nil where it was erased. Sessions seal
// no payload that does not decode, so an error means one of a newer format, or
// one that cannot be read any more.
func decode(it *chain.Item) (record.Message, error) {
	if it.Unreadable != nil {
		return nil, it.Unreadable
	}
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
		Actions:    []*record.Action{{Kind: "alert", Message: "entry " + it.Log.Origin() + " " + strconv.FormatUint(it.Index, 10) + " could not be judged"}},
		CauseIndex: it.Index, CauseHash: it.LeafHash[:], CauseClass: it.Leaf.Header.Class.String(),
	}
}

// errErased says that records were erased while a run was judged: its verdicts
// may quote them, and the entry that erases has gone ahead of them.
var errErased = fmt.Errorf("records were erased meanwhile: %w", record.ErrRetry)

// unquoted refuses to seal verdicts on what was read before an erasure.
func (j *Judge) unquoted(chain.Head) error {
	if j.cfg.Store.Erasures() != j.erasures {
		return errErased
	}
	return nil
}

// erasedMessage stands where a verdict would quote words that are gone.
const erasedMessage = "the words of an earlier step were erased"

// unsay takes from a verdict what it would say of steps that were erased: the state
// keeps their words until the entry that erases has its turn, and a verdict that is
// sealed behind that is not taken along by it. What is done stays.
func (j *Judge) unsay(l *chain.Log, v *record.Verdict) error {
	for _, s := range v.Steps {
		from, ok := j.shardOf(l, s.Shard)
		if !ok {
			continue
		}
		it, err := from.Look(s.Index)
		if err != nil && !errors.Is(err, chain.ErrPruned) && !errors.Is(err, chain.ErrNotFound) {
			return err
		}
		if err != nil || !it.Erased {
			continue
		}
		for _, a := range v.Actions {
			a.Message = erasedMessage
		}
		return nil
	}
	return nil
}

// again has the run judged anew from what was saved last.
func (j *Judge) again(f *chain.Follower) {
	f.Seek(f.Position())
	j.turns = turns{}
	clear(j.states)
	clear(j.dirty)
	clear(j.moved)
	j.written, j.unsaved, j.urgent = nil, 0, false
	j.batches, j.verdicts, j.waiting = nil, nil, 0
}

// seal appends the verdicts of a run, together with the position and the states
// behind them.
func (j *Judge) seal(ctx context.Context, f *chain.Follower) error {
	rows, err := j.rows(false)
	if err != nil {
		return err
	}
	low := j.turns.low(f.Reached())
	j.batches[0].Position, j.batches[0].Meta = f.At(low, nil), rows
	j.batches[0].Check = j.unquoted
	if _, err := j.cfg.Store.AppendAll(context.WithoutCancel(ctx), j.batches); err != nil {
		return fmt.Errorf("seal verdicts: %w", err)
	}
	f.Saved(low, nil)
	j.saved()
	for _, v := range j.verdicts {
		switch {
		case v.Mismatch:
			j.differ.Add(1)
		case v.Error != "":
			j.failed.Add(1)
		}
		if j.cfg.Count != nil {
			j.cfg.Count(v)
		}
		if a := v.Approval; rules.OfApproval(v) {
			j.cfg.Log.InfoContext(ctx, "approval "+a.State, "approval", a.Id, "policy", v.Policy, "cause", v.CauseIndex, "uses", a.Uses, "max_uses", a.MaxUses, "closes", a.VerdictIndex)
			continue
		}
		j.cfg.Log.InfoContext(ctx, "verdict sealed", "policy", v.Policy, "mode", v.Mode,
			"cause", v.CauseIndex, "class", v.CauseClass, "suppressed", v.Suppressed, "error", v.Error)
	}
	j.batches, j.verdicts, j.waiting = nil, nil, 0
	return nil
}

// save makes the position and states durable without a verdict.
func (j *Judge) save(ctx context.Context, f *chain.Follower, all bool) error {
	rows, err := j.rows(all)
	if err != nil {
		return err
	}
	if err := f.SaveWith(ctx, j.turns.low(f.Reached()), nil, rows); err != nil {
		return fmt.Errorf("save position: %w", err)
	}
	j.saved()
	return nil
}

func (j *Judge) saved() {
	for _, id := range j.written {
		if st := j.states[id]; st != nil {
			st.unsaved, st.entries = false, 0
		}
		delete(j.dirty, id)
	}
	clear(j.moved)
	j.written, j.unsaved, j.urgent = nil, 0, false
}

// StateKey is where it is kept what policies remember of a log.
func StateKey(id chain.LogID) string {
	return "rules/" + string(binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// ActivationKey is where the activation is kept that is in force for a log, at the
// place that the judge has come to.
func ActivationKey(id chain.LogID) string {
	return "rules-activation/" + string(binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// JudgedKey is where it is kept up to which entry a log is judged: it may be ahead of
// the judge's position, and of the state.
func JudgedKey(id chain.LogID) string {
	return "rules-judged/" + string(binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// state returns the evaluation state of a log, as it was saved.
func (j *Judge) state(l *chain.Log) (*judged, error) {
	if st := j.states[l.ID()]; st != nil {
		return st, nil
	}
	st := &judged{State: &rules.State{Recall: j.recall(l)}, engine: j.nothing}
	b, ok, err := j.cfg.Store.Meta(StateKey(l.ID()))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if ok {
		if err := st.UnmarshalBinary(b); err != nil {
			j.cfg.Log.Warn("what policies remember of a log cannot be used: the log is judged again from its beginning, and nothing is done about it", "log", l.Origin(), "error", err)
			st.rebuild = true
		}
	}
	known := ok
	if st.upTo, err = j.judgedUpTo(l); err != nil {
		return nil, err
	}
	st.upTo = max(st.upTo, st.Next())
	if st.activation, ok, err = j.cfg.Store.Meta(ActivationKey(l.ID())); err != nil {
		return nil, fmt.Errorf("read activation: %w", err)
	}
	if known && !ok {
		if st.activation, err = lastActivation(l, st.Next()); err != nil {
			return nil, err
		}
		ok = st.activation != nil
		st.unsaved = ok
	}
	if ok {
		m, err := record.Decode(record.ClassPolicyLoaded, st.activation)
		a, is := m.(*record.BundleActivation)
		if err != nil || !is {
			return nil, fmt.Errorf("read activation: %w: %w", err, record.ErrFatal)
		}
		st.engine, st.missing = j.cfg.Engine(a)
	}
	j.states[l.ID()] = st
	return st, nil
}

// judgedUpTo returns the first entry of a log whose verdicts were not sealed with
// others of its log; 0 where no such were.
func (j *Judge) judgedUpTo(l *chain.Log) (uint64, error) {
	b, ok, err := j.cfg.Store.Meta(JudgedKey(l.ID()))
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("read up to where %s is judged: the row has %d bytes, want 8: %w", l.Origin(), len(b), record.ErrFatal)
	}
	return binary.BigEndian.Uint64(b), nil
}

// lastActivation looks for the activation in force at an entry of a log whose state is
// of a daemon that did not keep it: without one nothing would judge the log until the
// policies change. nil: there is none.
func lastActivation(l *chain.Log, next uint64) ([]byte, error) {
	for i := min(next, l.Size()); i > l.Minimum(); i-- {
		it, err := l.Look(i - 1)
		if err != nil {
			return nil, fmt.Errorf("look for the policies in force: %w", err)
		}
		if it.Leaf.Header.Class == record.ClassPolicyLoaded && it.Leaf.Origin == record.OriginHost && it.Payload != nil {
			return it.Payload, nil
		}
	}
	return nil, nil
}

// rows returns the meta rows of states that changed since they were saved: of all,
// or of those that must or need not wait.
func (j *Judge) rows(all bool) ([]chain.MetaWrite, error) {
	rows := make([]chain.MetaWrite, 0, len(j.dirty)+len(j.moved))
	for id := range j.moved {
		rows = append(rows, chain.MetaWrite{Key: JudgedKey(id), Value: binary.BigEndian.AppendUint64(nil, j.states[id].upTo)})
	}
	j.written = nil
	for id := range j.dirty {
		st := j.states[id]
		if st.behind != nil || !all && !st.due() {
			continue
		}
		j.written = append(j.written, id)
		b, err := st.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("save state: %w", err)
		}
		rows = append(rows, chain.MetaWrite{Key: StateKey(id), Value: b})
		if st.unsaved && st.activation != nil {
			rows = append(rows, chain.MetaWrite{Key: ActivationKey(id), Value: st.activation})
		}
	}
	return rows, nil
}
