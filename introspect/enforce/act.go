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

// queueLength bounds the verdicts that wait for one domain, of each kind. When a
// queue is full the enforcer stops reading: the verdicts stay in the ledger.
const queueLength = 16 << 10

// queue holds the verdicts that wait for one domain. Those which do something
// to it go before those which only tell, or ask the guest: a domain's pause never
// waits behind its own alerts, nor behind kills that its agent does not answer
// (invariant I8).
type queue struct{ urgent, others chan *job }

// next returns the next job, or nil when there will be none.
func (q *queue) next() *job {
	select {
	case j := <-q.urgent:
		if j != nil {
			return j
		}
	default:
	}
	select {
	case j := <-q.urgent:
		if j != nil {
			return j
		}
		return <-q.others
	case j := <-q.others:
		if j != nil {
			return j
		}
		return <-q.urgent
	}
}

// workers runs one goroutine for each domain that has had a verdict.
type workers struct {
	e      *Enforcer
	ctx    context.Context
	cancel context.CancelCauseFunc
	queues map[domain.UUID]*queue // owned by the Run goroutine
	wg     sync.WaitGroup
}

func (w *workers) give(j *job) {
	q := w.queues[j.id]
	if q == nil {
		q = &queue{make(chan *job, queueLength), make(chan *job, queueLength)}
		w.queues[j.id] = q
		w.wg.Go(func() { w.work(q) })
	}
	c := q.others
	if slices.ContainsFunc(j.verdict.Actions, func(a *record.Action) bool { return a.Kind != "alert" && a.Kind != "kill_process" }) {
		c = q.urgent
	}
	select {
	case c <- j:
	case <-w.ctx.Done():
	}
}

func (w *workers) work(q *queue) {
	for j := q.next(); j != nil; j = q.next() {
		if w.ctx.Err() != nil {
			continue // it is found again on the next start
		}
		if err := w.e.do(w.ctx, j); err != nil && w.ctx.Err() == nil {
			w.cancel(err)
		}
	}
}

// wait ends the workers behind the action that each has in hand.
func (w *workers) wait() {
	w.cancel(nil)
	for _, q := range w.queues {
		close(q.urgent)
		close(q.others)
	}
	w.wg.Wait()
}

// do carries out the actions of one verdict in their order.
func (e *Enforcer) do(ctx context.Context, j *job) error {
	for i, a := range j.verdict.Actions {
		if j.done[uint32(i)] {
			continue
		}
		o := &record.Outcome{
			VerdictIndex: j.index, VerdictHash: j.hash[:], ActionIndex: uint32(i), Kind: a.Kind,
			Policy: j.verdict.Policy, Repaired: j.repair, Started: e.cfg.Now().UnixNano(),
		}
		// A crash from here to the append below leaves the action perhaps done
		// and without an outcome: recover finds the verdict open and acts
		// again, which finds the state as it is.
		e.attempts(ctx, j, a, o)
		if ctx.Err() != nil && o.Result == resultFailed {
			return nil // stopped, not failed: repaired on the next start
		}
		o.Ended = e.cfg.Now().UnixNano()
		last := i == len(j.verdict.Actions)-1
		if err := e.seal(context.WithoutCancel(ctx), j, o, last); err != nil {
			return err
		}
		j.done[uint32(i)] = true
		if e.cfg.Count != nil {
			e.cfg.Count(o.Policy, j.verdict.Mode, o.Kind, o.Result)
		}
		e.cfg.Log.InfoContext(ctx, "action done", "policy", o.Policy, "action", o.Kind, "result", o.Result,
			"uuid", j.id.String(), "verdict", j.index, "before", o.StateBefore, "after", o.StateAfter, "error", o.Error)
	}
	return nil
}

// The results of an outcome.
const (
	resultDone    = "done"
	resultAlready = "already" // the state was there before we came
	resultFailed  = "failed"
)

// attempts tries an action until it succeeds, fails for good, or has been
// tried often enough, and completes the outcome.
func (e *Enforcer) attempts(ctx context.Context, j *job, a *record.Action, o *record.Outcome) {
	pause, until := 200*time.Millisecond, e.cfg.Now().Add(e.cfg.GiveUp)
	for n := 1; ; n++ {
		o.Attempt = uint32(n)
		actx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
		err := e.act(actx, j, a, o)
		cancel()
		if err == nil {
			o.Error = ""
			return
		}
		o.Result, o.Error = resultFailed, err.Error()
		if !errors.Is(err, record.ErrRetry) || e.cfg.Now().After(until) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// act carries out one attempt of one action and reads the state back.
func (e *Enforcer) act(ctx context.Context, j *job, a *record.Action, o *record.Outcome) error {
	switch a.Kind {
	case "alert":
		return e.alert(ctx, j, a, o)
	case "kill_process":
		return e.kill(ctx, j, o)
	case "pause":
		if !e.cfg.Current(j.log) {
			return fmt.Errorf("pause: the verdict is about incarnation %d of the domain, which has ended", j.log.Name().Incarnation)
		}
		before, after, err := e.cfg.Actor.Pause(ctx, j.id)
		if err != nil && before.State.Active() {
			// A guest that sleeps cannot be paused until it wakes.
			return fmt.Errorf("pause a domain that is %s: %w: %w", stateText(before), record.ErrRetry, err)
		}
		if err != nil {
			return fmt.Errorf("pause: %w", err)
		}
		if before.State == domain.Paused && passing[before.Reason] {
			return fmt.Errorf("pause: libvirt has paused the domain for a while (%s): %w", before.Reason, record.ErrRetry)
		}
		o.Result, o.StateBefore, o.StateAfter = resultDone, stateText(before), stateText(after)
		if before.State == after.State {
			o.Result = resultAlready
		}
		if after.State != domain.Paused {
			return fmt.Errorf("pause: libvirt says the domain is %s afterwards", after.State)
		}
		return nil
	}
	return fmt.Errorf("action %q is not known to this version", a.Kind)
}

// passing are the reasons of a pause that libvirt ends by itself.
var passing = map[string]bool{"migration": true, "save": true, "dump": true, "snapshot": true, "starting-up": true, "postcopy": true}

// stateText is a state with libvirt's reason for it: who paused a domain
// decides who may resume it.
func stateText(s virt.Status) string { return s.State.String() + " (" + s.Reason + ")" }

// seal appends an outcome. With the last one of a verdict the position moves
// on in the same batch, so that neither can be durable without the other.
func (e *Enforcer) seal(ctx context.Context, j *job, o *record.Outcome, last bool) error {
	entry, err := e.cfg.Store.Draft(record.OriginPolicy, record.ClassPolicyOutcome, o)
	if err != nil {
		return fmt.Errorf("seal outcome: %w", err)
	}
	b := chain.Batch{Log: j.log, Entries: []chain.Entry{entry}}
	handed := j.handed
	b.Meta, j.handed = handed.Rows, Handed{}
	if last {
		b.Position = &chain.FollowerPosition{Name: FollowerName, Position: e.lowWater(j)}
	}
	if _, err := e.cfg.Store.Append(ctx, b); err != nil {
		return fmt.Errorf("seal outcome: %w", err)
	}
	if handed.Durable != nil {
		handed.Durable()
	}
	if last {
		e.finish(j)
	}
	return nil
}
