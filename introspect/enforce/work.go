package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// queueLength bounds the verdicts that wait for one domain, in each lane. When a
// lane is full the enforcer stops reading: the verdicts stay in the ledger.
const queueLength = 16 << 10

// patience is how long an alert waits for the actions of its own verdict, so that what
// is told comes behind what is done where that goes well.
const patience = 2 * time.Second

// lanes hold the verdicts that wait for one domain: what changes it and what only tells
// are done side by side, so that neither a pause waits behind an alert that nobody
// takes (invariant I8), nor an alert behind a pause that libvirt does not do.
type lanes struct{ acts, tells chan *job }

// workers run two goroutines for each domain that has had a verdict.
type workers struct {
	e      *Enforcer
	ctx    context.Context
	cancel context.CancelCauseFunc
	lanes  map[domain.UUID]*lanes // owned by the Run goroutine
	wg     sync.WaitGroup
}

func (w *workers) give(j *job) {
	l := w.lanes[j.id]
	if l == nil {
		l = &lanes{make(chan *job, queueLength), make(chan *job, queueLength)}
		w.lanes[j.id] = l
		d := w.e.dom(j.id)
		w.wg.Go(func() { w.work(d, l.acts, true) })
		w.wg.Go(func() { w.work(d, l.tells, false) })
	}
	for _, c := range []chan *job{l.acts, l.tells} {
		select {
		case c <- j:
		case <-w.ctx.Done():
		}
	}
}

func (w *workers) work(d *dom, lane chan *job, changes bool) {
	for j := range lane {
		if w.ctx.Err() != nil {
			continue // it is found again on the next start
		}
		w.end(w.e.do(w.ctx, d, j, changes))
	}
}

// end ends the enforcer for an error that is none of its stop.
func (w *workers) end(err error) {
	if err != nil && w.ctx.Err() == nil {
		w.cancel(err)
	}
}

// wait ends the workers behind the action that each has in hand.
func (w *workers) wait() {
	w.cancel(nil)
	for _, l := range w.lanes {
		close(l.acts)
		close(l.tells)
	}
	w.wg.Wait()
}

// dom is a domain that was acted on. Whoever acts on it has its turn.
type dom struct {
	id   domain.UUID
	turn chan struct{} // full: somebody has it

	held held              // what is durable; whoever has the turn
	last map[string]lately // by action; whoever has the turn
	told string            // the problem of a look that was logged last; whoever has the turn
	late int               // ends that were put off in a row; whoever has the turn
	// paused is when this run has paused it, in Unix nanoseconds, unless that has ended;
	// whoever has the turn.
	paused int64

	// Guarded by Enforcer.mu: snapshots being taken, and what ends a merge of images.
	shooting  int
	stopMerge func(context.Context)
}

// lately is what was done to a domain before.
type lately struct {
	seq     uint64 // newest verdict that was read when it began
	log     *chain.Log
	verdict uint64
	outcome *record.Outcome
	hold    *Hold // nil: it does not last
}

func (e *Enforcer) dom(id domain.UUID) *dom {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.doms[id]
	if d == nil {
		d = &dom{id: id, turn: make(chan struct{}, 1), last: map[string]lately{}}
		e.doms[id] = d
	}
	return d
}

// enter takes the turn of a domain; leave gives it back.
func (d *dom) enter(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for what is being done to domain %s: %w: %w", d.id, record.ErrRetry, ctx.Err())
	}
}

func (d *dom) leave() { <-d.turn }

// do carries out those actions of one verdict, in their order, that belong in a lane.
func (e *Enforcer) do(ctx context.Context, d *dom, j *job, changes bool) error {
	if changes {
		defer j.tried.Do(func() { close(j.acted) })
	} else {
		e.await(ctx, j)
	}
	e.decide(j)
	for i, a := range j.verdict.Actions {
		if j.changes(a) != changes || j.isDone(uint32(i)) {
			continue
		}
		if err := e.finishAction(ctx, d, j, uint32(i), a); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// changes reports whether an action is done in the lane of those that change the domain.
func (j *job) changes(a *record.Action) bool {
	k := kinds[a.Kind]
	return k != nil && (k.changes || k.ordered && slices.ContainsFunc(j.verdict.Actions, func(a *record.Action) bool { return kinds[a.Kind] != nil && kinds[a.Kind].changes }))
}

// await lets the actions of a verdict that change the domain go ahead of those that tell.
func (e *Enforcer) await(ctx context.Context, j *job) {
	left := max(0, patience-e.cfg.Now().Sub(j.queued))
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-j.acted:
	case <-t.C:
	case <-ctx.Done():
	}
}

// The results of an outcome.
const (
	resultDone    = "done"
	resultAlready = "already" // the state was there before we came
	resultMerged  = "merged"  // an equal action that began behind the verdict did it
	resultFailed  = "failed"
	resultSkipped = "skipped" // a limit forbids it
)

// attempt is one attempt of one action.
type attempt struct {
	e    *Enforcer
	d    *dom
	j    *job
	i    uint32
	o    *record.Outcome
	held held // what holds the domain behind it
	// lasts is what it adds to that; nil: nothing.
	lasts *Hold
	rows  []chain.MetaWrite
	// durable, if set, is called when rows are.
	durable func()
}

// current refuses to act on the successor of the domain that a verdict is about.
func (x *attempt) current(what string) error {
	if !x.e.cfg.Current(x.j.log) {
		return fmt.Errorf("%s: the verdict is about incarnation %d of the domain, which has ended", what, x.j.log.Name().Incarnation)
	}
	return nil
}

// hold is the action as one that lasts.
func (x *attempt) hold(action string) Hold {
	return Hold{Action: action, Policy: x.j.verdict.Policy, Log: x.j.log.Origin(), Verdict: x.j.index, Index: x.i, Since: x.e.cfg.Now().UnixNano()}
}

// finishAction tries an action until it succeeds, fails for good, or has been tried
// long enough, and seals its outcome.
func (e *Enforcer) finishAction(ctx context.Context, d *dom, j *job, i uint32, a *record.Action) error {
	started, wait := e.cfg.Now(), 200*time.Millisecond
	for n := uint32(1); ; n++ {
		over, err := e.attempt(ctx, d, j, i, a, n, started)
		if over || err != nil || ctx.Err() != nil {
			return err
		}
		j.tried.Do(func() { close(j.acted) }) // who is to be told need not wait for it to work
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil // stopped, not failed: repaired on the next start
		case <-t.C:
			wait = min(2*wait, 5*time.Second)
		}
	}
}

// attempt makes one attempt, and seals the outcome where there is no other to come.
// An action that changes the domain has its turn until then.
func (e *Enforcer) attempt(ctx context.Context, d *dom, j *job, i uint32, a *record.Action, n uint32, started time.Time) (over bool, err error) {
	o := &record.Outcome{VerdictIndex: j.index, VerdictHash: j.hash[:], ActionIndex: i, Kind: a.Kind,
		Policy: j.verdict.Policy, Repaired: j.repair, Started: started.UnixNano(), Attempt: n}
	x := &attempt{e: e, d: d, j: j, i: i, o: o}
	act, k, err := parse(a)
	if k != nil && k.changes {
		if err := d.enter(ctx); err != nil {
			return false, nil // stopped
		}
		defer d.leave()
		x.held = d.held.clone()
	}
	seen := e.newest()
	switch {
	case j.refused != nil && (j.refused.all || k != nil && k.changes):
		o.Result, o.Detail, err = resultSkipped, j.refused.why, j.refused.err
	case err == nil && x.merge(key(a)):
	case err == nil:
		limit := e.cfg.Timeout
		if k.timeout > 0 {
			limit = k.timeout
		}
		// A crash from here to the seal below leaves the action perhaps done
		// and without an outcome: recover finds the verdict open and acts
		// again, which finds the state as it is.
		actx, cancel := context.WithTimeout(ctx, limit)
		err = act.run(actx, x)
		cancel()
	}
	if err != nil {
		o.Result, o.Error = resultFailed, err.Error()
		x.held = d.heldAfterFailure(k)
		if ctx.Err() != nil || errors.Is(err, record.ErrRetry) && !e.cfg.Now().After(started.Add(e.cfg.GiveUp)) {
			return false, nil
		}
	}
	o.Ended = e.cfg.Now().UnixNano()
	if err := e.seal(context.WithoutCancel(ctx), x, k); err != nil {
		return false, err
	}
	if k != nil && k.changes && (o.Result == resultDone || o.Result == resultAlready) {
		d.last[key(a)] = lately{seen, j.log, j.index, o, x.lasts}
	}
	return true, nil
}

// heldAfterFailure is what holds the domain behind an action that failed: what was made
// durable before it was tried stays, so that a release can undo what was done of it.
func (d *dom) heldAfterFailure(k *kind) held {
	if k == nil || !k.changes {
		return held{}
	}
	h := d.held.clone()
	if h.pauses() && h.PausedAt == 0 {
		h.PausedAt = d.paused // what failed is something else
	}
	return h
}

// newest is the number of the newest verdict read.
func (e *Enforcer) newest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seq
}

// merge takes over what an equal action has done which began when this verdict was
// sealed already. What that one holds, this one holds as well.
func (x *attempt) merge(key string) bool {
	l, ok := x.d.last[key]
	if !ok || l.seq < x.j.seq || l.log != x.j.log || !x.e.cfg.Current(x.j.log) {
		return false
	}
	i := slices.IndexFunc(x.held.Holds, func(h Hold) bool {
		return h.Log == l.log.Origin() && h.Verdict == l.verdict && h.Index == l.outcome.ActionIndex
	})
	if i < 0 && l.hold != nil && len(x.held.Holds) >= maxHolds {
		i = slices.IndexFunc(x.held.Holds, l.hold.wants)
	}
	if i < 0 && l.hold != nil {
		return false // it has ended by now
	}
	if i >= 0 {
		h := x.held.Holds[i]
		if l.hold != nil {
			h = *l.hold
		}
		h.Policy, h.Verdict, h.Index, h.Since = x.j.verdict.Policy, x.j.index, x.i, x.e.cfg.Now().UnixNano()
		if h.Until > 0 {
			h.Until += h.Since - l.outcome.Started
		}
		x.held.add(h)
	}
	x.o.Result, x.o.OtherIndex = resultMerged, l.verdict
	x.o.StateBefore, x.o.StateAfter, x.o.Links, x.o.Files = l.outcome.StateBefore, l.outcome.StateAfter, l.outcome.Links, l.outcome.Files
	return true
}

// seal appends an outcome, with what holds the domain behind it. With the last one of a
// verdict the position moves on in the same batch, so that neither can be durable
// without the other.
func (e *Enforcer) seal(ctx context.Context, x *attempt, k *kind) error {
	j, o := x.j, x.o
	entry, err := e.cfg.Store.Draft(record.OriginPolicy, record.ClassPolicyOutcome, o)
	if err != nil {
		return fmt.Errorf("seal outcome: %w", err)
	}
	b := chain.Batch{Log: j.log, Entries: []chain.Entry{entry}, Meta: x.rows}
	if k != nil && k.changes {
		row, err := x.held.row(j.id)
		if err != nil {
			return err
		}
		b.Meta = append(append(b.Meta, row), e.limits.rows(j)...)
	}
	last := j.missing(o.ActionIndex) == 0
	if last {
		b.Position = &chain.FollowerPosition{Name: FollowerName, Position: e.lowWater(j)}
	}
	if _, err := e.cfg.Store.Append(ctx, b); err != nil {
		return fmt.Errorf("seal outcome: %w", err)
	}
	if x.durable != nil {
		x.durable()
	}
	if k != nil && k.changes {
		e.setHeld(x.d, x.held)
		if len(x.held.Holds) == 0 {
			e.limits.free(j.id)
		}
	}
	j.settle(o.ActionIndex)
	// The other lane may have sealed its last one meanwhile: then neither moved the
	// position, and that is done by what comes next.
	if last || j.missing(noAction) == 0 {
		e.finish(j)
	}
	if e.cfg.Count != nil {
		e.cfg.Count(o.Policy, j.verdict.Mode, o.Kind, o.Result)
	}
	e.nudge()
	e.cfg.Log.InfoContext(ctx, "action done", "policy", o.Policy, "action", o.Kind, "result", o.Result,
		"uuid", j.id.String(), "verdict", j.index, "before", o.StateBefore, "after", o.StateAfter, "detail", o.Detail, "error", o.Error)
	return nil
}

// sealHeld seals an entry about what holds a domain, with the row that keeps it, in a
// log of its own choice or, where that is nil, in the domain's.
func (e *Enforcer) sealHeld(ctx context.Context, d *dom, l *chain.Log, origin record.Origin, class record.Class, m *record.Held, h held, more ...chain.MetaWrite) error {
	row, err := h.row(d.id)
	if err != nil {
		return err
	}
	rows := append([]chain.MetaWrite{row}, more...)
	draft := func() (chain.Entry, error) { return e.cfg.Store.Draft(origin, class, m) }
	ctx = context.WithoutCancel(ctx) // what was begun is told
	if l == nil {
		err = e.cfg.Seal(ctx, d.id, rows, draft)
	} else {
		var entry chain.Entry
		if entry, err = draft(); err == nil {
			_, err = e.cfg.Store.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{entry}, Meta: rows})
		}
	}
	if err != nil {
		return fmt.Errorf("seal %s: %w", class, err)
	}
	e.setHeld(d, h.clone())
	return nil
}

// downIn names the interfaces that are not down.
func upIn(all []virt.Interface) []string {
	var up []string
	for _, n := range all {
		if !n.Down() {
			up = append(up, n.Key)
		}
	}
	return up
}
