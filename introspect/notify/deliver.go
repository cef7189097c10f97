package notify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// orphan is an alert for a channel that is not configured any more.
type orphan struct {
	channel string
	q       queued
}

// Run delivers until ctx ends or the ledger fails.
func (n *Notifier) Run(ctx context.Context) error {
	for _, o := range n.orphans {
		m := &record.AlertResult{Channel: o.channel, Type: "none", Error: "the host's configuration has no such channel any more"}
		if err := n.seal(ctx, record.ClassPolicyAlertFailed, m, &o.q); err != nil {
			return n.ended(ctx, err)
		}
		n.cfg.Log.WarnContext(ctx, "an alert is given up: its channel is not configured any more", "channel", o.channel, "verdict", o.q.index)
	}
	n.orphans = nil
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, c := range n.channels {
		if r, ok := c.Sender.(interface{ Run(ctx context.Context) }); ok {
			wg.Go(func() { r.Run(ctx) })
		}
		for range c.Concurrency {
			wg.Go(func() {
				if err := c.work(ctx); err != nil {
					cancel(err)
				}
			})
		}
	}
	<-ctx.Done()
	wg.Wait()
	return n.ended(ctx, context.Cause(ctx))
}

// ended tells a stop that was asked for from a failure.
func (n *Notifier) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return fmt.Errorf("deliver alerts: %w", err)
}

// work delivers the alerts of one channel, one at a time.
func (c *channel) work(ctx context.Context) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		l, at := c.lanes.take(c.n.cfg.Now())
		changed := c.changed
		c.mu.Unlock()
		if l != nil {
			if err := c.deliver(ctx, l); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		var due <-chan time.Time
		timer := time.NewTimer(time.Hour)
		if !at.IsZero() {
			timer.Reset(max(at.Sub(c.n.cfg.Now()), 0))
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// deliver tries the first alert of a lane, which is ours while it is busy. A
// crash behind Send and ahead of seal has it delivered again on the next start.
func (c *channel) deliver(ctx context.Context, l *lane) error {
	c.mu.Lock()
	q := l.waiting[0]
	l.tries++
	tries := l.tries
	c.mu.Unlock()
	m := &record.AlertResult{Channel: c.Name, Type: c.Type, Attempts: uint32(tries)}
	a, err := c.n.load(&q)
	if err != nil {
		return c.settle(ctx, l, &q, m, &Failure{What: err.Error(), Final: true})
	}
	m.Detail, err = c.attempt(ctx, a)
	if err != nil && ctx.Err() != nil {
		return nil // stopped, not failed: it is found again on the next start
	}
	return c.settle(ctx, l, &q, m, err)
}

// attempt sends one alert, within the channel's timeout.
func (c *channel) attempt(ctx context.Context, a *Alert) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer within %s", c.Timeout))
	defer cancel()
	detail, err := c.Sender.Send(ctx, a)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return detail, err
}

// settle books an attempt: what is delivered or given up is sealed, all else is
// tried again.
func (c *channel) settle(ctx context.Context, l *lane, q *queued, m *record.AlertResult, failure error) error {
	now := c.n.cfg.Now()
	var f *Failure
	if failure != nil && !errors.As(failure, &f) {
		f = &Failure{What: failure.Error()}
	}
	class := record.ClassPolicyAlertDelivered
	if f != nil {
		class = record.ClassPolicyAlertFailed
		m.Detail, m.Error = "", clean(f.What, maxText)
		if !f.Final && now.Sub(q.at) < c.GiveUp {
			c.later(l, f, now)
			c.n.cfg.Log.WarnContext(ctx, "alert not delivered, it is tried again", "channel", c.Name, "verdict", q.index, "attempt", m.Attempts, "error", m.Error, "said", clean(f.Said, maxText))
			return nil
		}
	}
	if err := c.n.seal(context.WithoutCancel(ctx), class, m, q); err != nil {
		return err
	}
	if f != nil {
		c.n.cfg.Log.ErrorContext(ctx, "alert given up", "channel", c.Name, "verdict", q.index, "attempt", m.Attempts, "error", m.Error, "said", clean(f.Said, maxText))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.booked(m.Error, now)
	if f != nil {
		c.given++
	} else {
		c.sent++
	}
	c.lanes.done(l)
	c.wake()
	return nil
}

// later has the lane's alert tried again.
func (c *channel) later(l *lane, f *Failure, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.booked(clean(f.What, maxText), now)
	l.again(now.Add(c.n.backoff(l.tries)))
	if f.After > 0 {
		c.lanes.not = now.Add(min(f.After, maxAfter))
	}
	c.wake()
}

// maxAfter bounds how long a receiver may keep a channel waiting.
const maxAfter = time.Hour

// booked remembers how the newest attempt ended. The lock is held.
func (c *channel) booked(problem string, now time.Time) {
	c.last, c.lastAt = problem, now
	if problem != "" {
		c.failures++
	}
}

// seal appends what became of an alert and deletes its row. It stands in the
// log of the verdict, behind its end too; where that is gone, in the host log.
func (n *Notifier) seal(ctx context.Context, class record.Class, m *record.AlertResult, q *queued) error {
	m.VerdictIndex, m.ActionIndex, m.Queued, m.Ended = q.index, q.action, q.at.UnixNano(), n.cfg.Now().UnixNano()
	row := chain.MetaWrite{Key: rowKey(m.Channel, q.seq)}
	l, ok := n.cfg.Store.LogByID(q.log)
	if ok {
		if it, err := l.Item(q.index); err == nil {
			m.VerdictHash = it.LeafHash[:]
		}
		err := n.append(ctx, l, record.OriginPolicy, class, m, row)
		if !errors.Is(err, record.ErrReject) {
			return err
		}
		m.Origin = l.Origin()
	}
	return n.append(ctx, n.cfg.Store.HostLog(), record.OriginHost, class, m, row)
}

func (n *Notifier) append(ctx context.Context, l *chain.Log, o record.Origin, class record.Class, m *record.AlertResult, row chain.MetaWrite) error {
	e, err := n.cfg.Store.Draft(o, class, m)
	if err != nil {
		return fmt.Errorf("seal what became of an alert: %w", err)
	}
	if _, err := n.cfg.Store.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{row}}); err != nil {
		return fmt.Errorf("seal what became of an alert: %w", err)
	}
	return nil
}
