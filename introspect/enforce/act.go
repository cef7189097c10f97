package enforce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// queueLength bounds the verdicts that wait for one domain. When a queue is
// full the enforcer stops reading: the verdicts stay in the ledger.
const queueLength = 256

// workers runs one goroutine for each domain that has had a verdict.
type workers struct {
	e      *Enforcer
	ctx    context.Context
	cancel context.CancelCauseFunc
	queues map[domain.UUID]chan *job // owned by the Run goroutine
	wg     sync.WaitGroup
}

func (w *workers) give(j *job) {
	q := w.queues[j.id]
	if q == nil {
		q = make(chan *job, queueLength)
		w.queues[j.id] = q
		w.wg.Go(func() {
			for j := range q {
				if w.ctx.Err() != nil {
					continue // it is found again on the next start
				}
				if err := w.e.do(w.ctx, j); err != nil && w.ctx.Err() == nil {
					w.cancel(err)
				}
			}
		})
	}
	select {
	case q <- j:
	case <-w.ctx.Done():
	}
}

// wait ends the workers behind the action that each has in hand.
func (w *workers) wait() {
	w.cancel(nil)
	for _, q := range w.queues {
		close(q)
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
	pause := 200 * time.Millisecond
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
		if !errors.Is(err, record.ErrRetry) || n > e.cfg.Retries {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause *= 3
		}
	}
}

// act carries out one attempt of one action and reads the state back.
func (e *Enforcer) act(ctx context.Context, j *job, a *record.Action, o *record.Outcome) error {
	switch a.Kind {
	case "alert":
		o.Result = resultDone
		return e.cfg.Alert(ctx, Alert{
			Policy: j.verdict.Policy, Severity: j.verdict.Severity, Title: j.verdict.Title, Message: a.Message,
			Domain: j.id, Log: j.log.Origin(), Verdict: j.index, Cause: j.verdict.CauseIndex,
		})
	case "pause":
		before, after, err := e.cfg.Actor.Pause(ctx, j.id)
		if err != nil {
			return fmt.Errorf("pause: %w", err)
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
	if last {
		b.Position = &chain.FollowerPosition{Name: FollowerName, Position: e.lowWater(j)}
	}
	if _, err := e.cfg.Store.Append(ctx, b); err != nil {
		return fmt.Errorf("seal outcome: %w", err)
	}
	if last {
		e.finish(j)
	}
	return nil
}
