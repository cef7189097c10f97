package guestagent

import (
	"context"
	"time"

	"github.com/provostd/provost/chain/record"
)

// finish waits until all is acknowledged, or the grace time is over, or no
// host listens. The last part of the grace belongs to the account of what the
// host did not take: whatever still waits then is given up, and counted, so
// that the host can close every lane (invariant I4). A host that reads not even
// that sees a silence without an end.
func (a *Agent) finish(ctx context.Context, grace time.Duration) {
	a.mu.Lock()
	a.drained, a.idle = true, make(chan struct{})
	idle := a.idle
	listens := a.conv.welcomed
	if !listens {
		a.warnLeft(ctx, "nobody listens at the end")
	}
	a.mu.Unlock()
	if !listens {
		return
	}
	a.Flush()
	if a.waitIdle(ctx, idle, max(0, grace-a.cfg.Account)) {
		return
	}
	a.giveUp(ctx)
	if !a.waitIdle(ctx, idle, a.cfg.Account) {
		a.mu.Lock()
		a.warnLeft(ctx, "host did not take everything before the end")
		a.mu.Unlock()
	}
}

// waitIdle returns true when nothing is left to wait for.
func (a *Agent) waitIdle(ctx context.Context, idle <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return true
	case <-t.C:
		return false
	}
}

// warnLeft tells the guest's operator what nobody will hear of. The lock is held.
func (a *Agent) warnLeft(ctx context.Context, text string) {
	a.cfg.Log.WarnContext(ctx, text, "records", a.queue.len(), "frames", len(a.retained), "spool", a.spool, "losses", a.losses.any())
}

// settle tells finish when nothing is left. The lock is held.
func (a *Agent) settle() {
	if a.drained && a.idle != nil && !a.packing && a.queue.len() == 0 && !a.spool.holds() && !a.losses.any() && len(a.retained) == 0 && len(a.results) == 0 {
		close(a.idle)
		a.idle = nil
	}
}

// keptBytes bounds what the agent's last frame says of the agent itself.
const keptBytes = 64 << 10

// giveUp turns all records that wait for a frame into losses. Only what the
// agent says of itself stays, that it was stopped, that it was attacked, and of
// that what is in memory and fits into keptBytes: on the disk it is counted like
// any other, by its class. Frames that were made stay as well: the last one names
// them. It goes out behind them, whatever the host's window is.
func (a *Agent) giveUp(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing = true
	kept := queue{limit: keptBytes}
	var lost uint64
	lose := func(k lossKey, n, at uint64) {
		k.reason = record.LossReason_LOSS_REASON_AGENT_ENDED
		a.losses.add(k, n, at)
		lost += n
	}
	empty := func(c *chunk) {
		for at := c.copy(); at.count > 0; {
			r := at.take()
			if !ofAgent(&r.header) || !kept.push(r) {
				lose(lossKey{lane: r.header.Lane, class: r.header.Class}, r.acts(), r.header.Time)
			}
		}
	}
	if s := a.spool; s != nil {
		for _, c := range s.front {
			empty(c)
		}
		now := a.cfg.Boot()
		for _, r := range s.kept {
			for k, n := range r.spills {
				lose(k, n, now)
			}
		}
		if s.moving != nil {
			empty(s.moving)
		}
		s.front, s.kept, s.moving, s.away = nil, nil, nil, 0
	}
	for _, c := range a.queue.chunks {
		empty(c)
	}
	kept.limit = a.queue.limit
	a.queue = kept
	a.cfg.Log.WarnContext(ctx, "the time is over: telling what the host did not take", "records", lost, "frames", len(a.retained))
	a.settle()
	a.Flush()
}

// ofAgent says whether a record is about the agent and not about the guest.
func ofAgent(h *record.Header) bool {
	if h.Lane != record.NoLane {
		return false
	}
	switch h.Class {
	case record.ClassAgentHooks, record.ClassAgentTamper, record.ClassAgentStopped, record.ClassAgentDropped:
		return true
	}
	return false
}

// acts is how many acts a record stands for: a sum that is lost is that many.
func (r *queued) acts() uint64 {
	if r.header.Lane != record.NoLane || ofAgent(&r.header) {
		return 1 // lanes count records
	}
	// What the agent makes itself beside those is an event. Decode would link what
	// reads every kind of payload there is.
	var e record.Event
	if err := e.UnmarshalVT(r.payload); err != nil {
		return 1
	}
	return max(1, e.Count)
}
