package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
	State(ctx context.Context, id domain.UUID) (virt.Status, error)
	Pause(ctx context.Context, id domain.UUID) (before, after virt.Status, err error)
	Resume(ctx context.Context, id domain.UUID) (before, after virt.Status, err error)
	// Those about interfaces return what is read back, also beside an error.
	Interfaces(ctx context.Context, id domain.UUID) ([]virt.Interface, error)
	LinksDown(ctx context.Context, id domain.UUID, keys []string) ([]virt.Interface, error)
	Unplug(ctx context.Context, id domain.UUID, keys []string) ([]virt.Interface, error)
	Isolate(ctx context.Context, id domain.UUID, keys []string, network string) ([]virt.Interface, error)
	RestoreLinks(ctx context.Context, id domain.UUID, saved []virt.Interface, mode string) ([]virt.Interface, error)
	QuarantineMark(ctx context.Context, id domain.UUID) (live, config string, err error)
	SetQuarantineMark(ctx context.Context, id domain.UUID, text string) error
	Snapshot(ctx context.Context, id domain.UUID, req virt.SnapshotRequest, limit time.Duration) (*virt.SnapshotResult, error)
	PlanMerge(ctx context.Context, id domain.UUID, target string, ours []virt.Layer, needed []string) (*virt.MergePlan, error)
	Merge(ctx context.Context, id domain.UUID, p *virt.MergePlan, limit time.Duration) error
}

// Guard is a packet filter on the taps of domains. Cut drops all that passes them but
// what comes from and goes to the networks allowed; Uncut ends that. Both are idempotent.
type Guard interface {
	Cut(ctx context.Context, id domain.UUID, taps []string, allow []netip.Prefix) error
	Uncut(ctx context.Context, id domain.UUID) error
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

// Settings are what the configuration of a host says about actions.
type Settings struct {
	// ActionsPerMinute bounds the actions that change domains, on the whole host; 0: no bound.
	ActionsPerMinute int
	// MaxHeld bounds the share of the running domains that may be paused or cut off at a
	// time, in percent; 0: no bound. One always may.
	MaxHeld int
	// IsolatedNetwork is the libvirt network for mode = "isolate"; "": none.
	IsolatedNetwork string
	// QuarantineAllow may be reached from a quarantined domain, where there is a packet
	// filter and its links are up.
	QuarantineAllow []netip.Prefix
	// Snapshots is the directory of memory; SnapshotSpare the bytes to be left free;
	// SnapshotChain how many images a disk may lie on.
	Snapshots     string
	SnapshotSpare uint64
	SnapshotChain int
}

// Limit is the limit of a policy that counts on the whole host.
type Limit struct {
	Max   uint64
	Per   time.Duration
	Audit bool // beyond it nothing is done; else its alerts are
}

// Config is what an Enforcer needs. Guard, Kill, Count, Limit and Second may be nil.
type Config struct {
	Settings
	Store *chain.Store
	Actor Actor
	Guard Guard
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
	// Seal seals an entry in the log of a domain, with rows, wherever that log goes on.
	Seal func(ctx context.Context, id domain.UUID, rows []chain.MetaWrite, draft func() (chain.Entry, error)) error
	// Running returns the domains that have a QEMU process now.
	Running func() []domain.UUID
	// Limit returns the limit on the whole host of the policy behind a verdict; nil: none.
	Limit func(v *record.Verdict) (*Limit, error)
	// Second verifies that a second person agrees to a release.
	Second func(id domain.UUID, holds []Hold, statement []byte, signatures [][]byte) (*Agreed, error)
	// Timeout bounds one attempt of one action; 30 s.
	Timeout time.Duration
	// GiveUp is how long an action is tried again after transient failures
	// before its outcome is sealed as failed; 15 min.
	GiveUp time.Duration
	// Sweep is how often it is looked whether what is held is still as it must be; 30 s.
	Sweep time.Duration
	// Count is told of every outcome, for the metrics.
	Count func(policy, mode, action, result string)
}

// Enforcer acts on verdicts.
type Enforcer struct {
	cfg    Config
	limits *limits
	wake   chan struct{} // there is something due

	mu    sync.Mutex              // guards what follows
	open  map[chain.Position]*job // verdicts without all their outcomes, by where they stand
	read  chain.Position          // newest position read
	seq   uint64                  // of the newest job
	doms  map[domain.UUID]*dom
	shown map[domain.UUID]held // of each domain that something holds
	due   map[domain.UUID]bool // domains to look at
	left  map[domain.UUID]bool // of them, those that have migrated away
	// resumed is when somebody let a domain run that something holds, Unix nanoseconds.
	resumed map[domain.UUID]int64
	hash    []string // rows of snapshots without digests
	looking map[domain.UUID]bool
	missed  map[domain.UUID]bool // those that could not be seen to: the next sweep comes to them
	// retains are whose snapshots are looked at behind that, retainLater with the next sweep.
	retains, retainLater []retention
}

// New returns an Enforcer that does nothing until Run.
func New(cfg Config) (*Enforcer, error) {
	for name, missing := range map[string]bool{"Store": cfg.Store == nil, "Actor": cfg.Actor == nil, "Alert": cfg.Alert == nil, "Log": cfg.Log == nil,
		"Now": cfg.Now == nil, "Current": cfg.Current == nil, "Seal": cfg.Seal == nil, "Running": cfg.Running == nil} {
		if missing {
			return nil, fmt.Errorf("make enforcer: Config.%s is missing: %w", name, record.ErrFatal)
		}
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.Timeout, 30*time.Second)
	def(&cfg.GiveUp, 15*time.Minute)
	def(&cfg.Sweep, 30*time.Second)
	e := &Enforcer{cfg: cfg, wake: make(chan struct{}, 1), open: map[chain.Position]*job{}, doms: map[domain.UUID]*dom{},
		shown: map[domain.UUID]held{}, due: map[domain.UUID]bool{}, left: map[domain.UUID]bool{}, resumed: map[domain.UUID]int64{},
		looking: map[domain.UUID]bool{}, missed: map[domain.UUID]bool{}}
	var err error
	if e.limits, err = loadLimits(&e.cfg); err != nil {
		return nil, fmt.Errorf("make enforcer: %w", err)
	}
	if err := errors.Join(e.loadHeld(), e.loadSnapshots(), e.loadRetain()); err != nil {
		return nil, fmt.Errorf("make enforcer: %w", err)
	}
	return e, nil
}

// job is one verdict that acts.
type job struct {
	log     *chain.Log
	index   uint64
	hash    record.Hash
	id      domain.UUID
	verdict *record.Verdict
	before  chain.Position // the newest position that does not need this job any more
	seq     uint64
	repair  bool
	queued  time.Time
	acted   chan struct{} // closed when what changes the domain was tried
	tried   sync.Once     // closes it

	decided sync.Once
	refused *refusal // of the whole job, by a limit

	mu   sync.Mutex // guards done
	done map[uint32]bool
}

// missing returns how many actions have no outcome yet, but for one.
func (j *job) missing(but uint32) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for i := range j.verdict.Actions {
		if uint32(i) != but && !j.done[uint32(i)] {
			n++
		}
	}
	return n
}

func (j *job) isDone(i uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done[i]
}

func (j *job) settle(i uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done[i] = true
}

// FollowerName is the name under which the enforcer's position is kept.
const FollowerName = "enforce"

// noAction is the index of no action.
const noAction = ^uint32(0)

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
	w := &workers{e: e, ctx: ctx, cancel: cancel, lanes: map[domain.UUID]*lanes{}}
	defer w.wait()
	w.wg.Go(func() { w.end(e.keep(ctx)) })
	w.wg.Go(func() { w.end(e.digest(ctx)) })
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
			continue
		}
		e.notice(&it)
		if err := e.idle(ctx, f); err != nil {
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
			e.notice(&it)
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
			j.settle(o.ActionIndex)
		}
	}
	var unfinished []*job
	for _, j := range order {
		if j.missing(noAction) > 0 {
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
	e.seq++
	j := &job{log: it.Log, index: it.Index, hash: it.LeafHash, id: id, verdict: v, before: before, seq: e.seq, queued: e.cfg.Now(),
		acted: make(chan struct{}), done: map[uint32]bool{}}
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
