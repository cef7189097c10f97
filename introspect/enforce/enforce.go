package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// Actor does to domains what verdicts ask for. Its methods must be idempotent,
// return the state as libvirt tells it before and after, and wrap
// record.ErrRetry in an error that may go away.
type Actor interface {
	Pause(ctx context.Context, id domain.UUID) (before, after virt.Status, err error)
}

// Alert is what an alert action hands on.
type Alert struct {
	Policy, Severity, Title, Message string
	Domain                           domain.UUID
	Log                              *chain.Log
	Verdict, Cause                   uint64 // leaves of Log
	Action                           uint32 // in the verdict
	Channels                         []string
}

// Handed is an alert that somebody has taken to deliver it. Rows become durable
// with the outcome that says so; Durable, if set, is called behind that.
type Handed struct {
	To      []string // channels
	Rows    []chain.MetaWrite
	Durable func()
}

// Config is what an Enforcer needs.
type Config struct {
	Store *chain.Store
	Actor Actor
	// Alert hands an alert on, and does not wait for its delivery. Beside an error
	// Handed is what was handed on all the same.
	Alert func(context.Context, Alert) (Handed, error)
	// Kill has the guest's agent kill a process. An error says that nothing was asked.
	Kill func(ctx context.Context, id domain.UUID, t wire.Target, requester, reason string) (Killed, error)
	Log  *slog.Logger
	Now  func() time.Time
	// Current reports whether a log is that of the domain's present incarnation.
	// A verdict on a machine that is gone does not act on its successor.
	Current func(l *chain.Log) bool
	// Timeout bounds one attempt of one action; 30 s.
	Timeout time.Duration
	// GiveUp is how long an action is tried again after transient failures
	// before its outcome is sealed as failed; 15 min.
	GiveUp time.Duration
	// Count is told of every outcome, for the metrics.
	Count func(policy, mode, action, result string)
}

// Enforcer acts on verdicts.
type Enforcer struct {
	cfg Config

	mu   sync.Mutex              // guards what follows
	open map[chain.Position]*job // verdicts without all their outcomes, by where they stand
	read chain.Position          // newest position read
}

// New returns an Enforcer that does nothing until Run.
func New(cfg Config) *Enforcer {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.GiveUp <= 0 {
		cfg.GiveUp = 15 * time.Minute
	}
	return &Enforcer{cfg: cfg, open: map[chain.Position]*job{}}
}

// job is one verdict that acts.
type job struct {
	log     *chain.Log
	index   uint64
	hash    record.Hash
	id      domain.UUID
	verdict *record.Verdict
	before  chain.Position // the newest position that does not need this job any more
	done    map[uint32]bool
	repair  bool
	handed  Handed // with the outcome that is sealed next
}

// FollowerName is the name under which the enforcer's position is kept.
const FollowerName = "enforce"

// InFlight returns the number of verdicts whose actions are not all done.
func (e *Enforcer) InFlight() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open)
}

// Run acts until ctx ends or the ledger fails, and waits for the actions that
// it has begun.
func (e *Enforcer) Run(ctx context.Context) error {
	f, err := e.cfg.Store.Follow(FollowerName)
	if err != nil {
		return fmt.Errorf("enforce: %w", err)
	}
	defer f.Close()
	e.read = f.Position()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &workers{e: e, ctx: ctx, cancel: cancel, queues: map[domain.UUID]*queue{}}
	defer w.wait()
	unfinished, err := e.recover(f)
	if err != nil {
		return e.ended(ctx, err)
	}
	for _, j := range unfinished {
		j.repair = true
		e.cfg.Log.WarnContext(ctx, "repairing an unfinished enforcement", "log", j.log.Origin(), "verdict", j.index, "policy", j.verdict.Policy)
		w.give(j)
	}
	for {
		it, err := f.Next(ctx)
		if err != nil {
			return e.ended(ctx, err)
		}
		if j := e.take(&it); j != nil {
			w.give(j)
		} else if err := e.idle(ctx, f); err != nil {
			return e.ended(ctx, err)
		}
	}
}

// ended tells a stop that was asked for from a failure.
func (e *Enforcer) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			return nil
		}
		err = cause
	}
	return fmt.Errorf("enforce: %w", err)
}

// recover reads what was sealed before this start and returns the verdicts
// that have not all their outcomes, oldest first.
func (e *Enforcer) recover(f *chain.Follower) ([]*job, error) {
	type place struct {
		log   chain.LogID
		index uint64
	}
	var order []*job
	byPlace := map[place]*job{}
	for {
		it, ok, err := f.TryNext()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if j := e.take(&it); j != nil {
			order = append(order, j)
			byPlace[place{it.Log.ID(), it.Index}] = j
			continue
		}
		if it.Leaf.Header.Class != record.ClassPolicyOutcome {
			continue
		}
		if it.Unreadable != nil {
			e.cfg.Log.Error("an outcome cannot be read any more: its action is done again, which changes nothing that is done", "error", it.Unreadable)
			continue
		}
		var o record.Outcome
		if err := o.UnmarshalVT(it.Payload); err != nil {
			return nil, fmt.Errorf("read outcome %d of %s: %w: %w", it.Index, it.Log.Origin(), err, record.ErrFatal)
		}
		if j := byPlace[place{it.Log.ID(), o.VerdictIndex}]; j != nil {
			j.done[o.ActionIndex] = true
		}
	}
	var unfinished []*job
	for _, j := range order {
		if len(j.done) < len(j.verdict.Actions) {
			unfinished = append(unfinished, j)
		} else {
			e.finish(j)
		}
	}
	return unfinished, nil
}

// take returns the job of an item that is a verdict to act on, and remembers
// it as open. Verdicts of the mode audit ask for nothing.
func (e *Enforcer) take(it *chain.Item) *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.read
	e.read = it.Pos
	switch it.Leaf.Header.Class {
	case record.ClassPolicyVerdict, record.ClassPolicyError, record.ClassPolicyMismatch:
	default:
		return nil
	}
	if it.Leaf.Origin != record.OriginPolicy {
		return nil
	}
	if it.Unreadable != nil {
		e.cfg.Log.Error("a verdict cannot be read any more: if its actions were not done, nobody does them", "error", it.Unreadable)
		return nil
	}
	v := &record.Verdict{}
	id, err := domain.ParseUUID(it.Log.Name().Domain)
	if err != nil || v.UnmarshalVT(it.Payload) != nil || v.WouldHave || len(v.Actions) == 0 {
		return nil
	}
	j := &job{log: it.Log, index: it.Index, hash: it.LeafHash, id: id, verdict: v, before: before, done: map[uint32]bool{}}
	e.open[it.Pos] = j
	return j
}

// finish forgets a job whose outcomes are all durable.
func (e *Enforcer) finish(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p, o := range e.open {
		if o == j {
			delete(e.open, p)
		}
	}
}

// lowWater is the newest position that no open job but done needs. A job whose
// last outcome is on its way to the disk is still open for every other job's
// batch: that one may become durable first.
func (e *Enforcer) lowWater(done *job) chain.Position {
	e.mu.Lock()
	defer e.mu.Unlock()
	low := e.read
	for _, j := range e.open {
		if j != done && j.before.Compare(low) < 0 {
			low = j.before
		}
	}
	return low
}

// saveEvery is how many commits without a verdict may pass before the position
// is made durable: they are read again after a crash, and cost nothing else.
const saveEvery = 4096

func (e *Enforcer) idle(ctx context.Context, f *chain.Follower) error {
	low := e.lowWater(nil)
	if low.Commit < f.Position().Commit+saveEvery {
		return nil
	}
	return f.Save(ctx, low, nil)
}
