package guestagent

import (
	"context"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Protector keeps others from silencing the agent. Its methods may be called
// from any goroutine.
type Protector interface {
	// Protecting reports whether it does so now.
	Protecting() bool
	// Release gives it up for good, because of a stop.
	Release(reason string) error
}

// stopGrace is how many times Config.Grace an authorised stop may take: it was
// asked for by someone who waits, and whatever is lost is lost to them.
const stopGrace = 10

// Terminate is what a request from inside the guest comes to, a signal in
// practice. Who sent it is not known, so where the agent is protected it stays
// and tells of the attempt, unless the machine goes down anyway. Where it is
// not, it tells of both, and ends.
func (a *Agent) Terminate(ctx context.Context, signal string) {
	down := a.cfg.GoingDown != nil && a.cfg.GoingDown()
	protected := a.cfg.Protector != nil && a.cfg.Protector.Protecting()
	reason := "asked by " + signal + ", by whom is not known"
	if down {
		reason = "the machine goes down"
	} else {
		a.tell(ctx, record.ClassAgentTamper, &record.Event{Tamper: &record.Tamper{
			Kind: "stop_requested", Detail: signal + ", by whom is not known", Refused: protected}})
		if protected {
			a.cfg.Log.WarnContext(ctx, "asked to end and staying: the host can stop this agent, with \"provost domain agent-stop\"", "signal", signal)
			return
		}
	}
	if protected {
		if err := a.cfg.Protector.Release(reason); err != nil {
			// The machine goes down with it or without.
			a.cfg.Log.ErrorContext(ctx, "protection cannot be released", "error", err)
		}
	}
	a.end(&record.AgentStopped{Reason: reason})
}

// tell observes a record of the agent's own.
func (a *Agent) tell(ctx context.Context, c record.Class, m record.Message) {
	b, err := record.Encode(m)
	if err != nil {
		a.cfg.Log.ErrorContext(ctx, "record of the agent cannot be encoded", "class", c.String(), "error", err)
		a.Lose(record.NoLane, c, record.LossReason_LOSS_REASON_UNDECODABLE, 1)
		return
	}
	a.Observe(record.Header{Class: c, Lane: record.NoLane, Time: a.cfg.Boot()}, b)
	a.Flush()
}

// end begins the end: the source is stopped, and what it still brings goes
// before last, which is the session's last record. The first reason stays.
func (a *Agent) end(last *record.AgentStopped) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = last
		close(a.ending)
	}
}

// lastRecord tells why the session ends, and returns how long the host may
// take for the rest. Without a reason there is no record: whoever ended Run's
// context knows.
func (a *Agent) lastRecord(ctx context.Context) time.Duration {
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	if last == nil {
		return a.cfg.Grace
	}
	a.tell(ctx, record.ClassAgentStopped, last)
	if last.Authorised {
		return stopGrace * a.cfg.Grace
	}
	return a.cfg.Grace
}
