package guest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// aliveness is what is known of an agent's last sign of life.
type aliveness struct {
	mu     sync.Mutex // guards all fields
	nonce  uint64     // newest challenge
	prev   uint64     // the one before: its answer may be on the way
	last   time.Time
	spoke  time.Time // the newest sign of life, which last may be ahead of
	known  bool      // it has been heard since the session began
	silent bool      // sealed as silent
	heard  bool      // there was a sign of life since the silence was sealed
	// stopped is the authorised stop which explains the agent's silence, nil
	// for none; gone says that the silence has come and was sealed.
	stopped *stopMark
	gone    bool
	epoch   [16]byte // newest in which it was heard
}

// enrolled says that the agent was heard in an epoch.
func (a *aliveness) enrolled(epoch [16]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch = epoch
}

// heardIn reports whether the agent was heard in an epoch.
func (a *aliveness) heardIn(epoch [16]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.epoch == epoch
}

// stop says which authorised stop the agent has begun, nil: none.
func (a *aliveness) stop(m *stopMark) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m == nil || a.stopped == nil || *m != *a.stopped {
		a.gone = false
	}
	a.stopped = m
}

// isStopped reports whether the agent was told to stop and has done so.
func (a *aliveness) isStopped() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped != nil && a.gone
}

// stopping reports whether a stop explains silence.
func (a *aliveness) stopping() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped != nil
}

// inEpoch forgets a stop of another epoch: the guest has started anew and its
// agent with it, which has the time of a boot to be heard.
func (a *aliveness) inEpoch(epoch [16]byte, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped != nil && a.stopped.Epoch != epoch {
		a.stopped, a.gone, a.known, a.last = nil, false, false, now
	}
}

// challenge draws the nonce of the next heartbeat.
func (a *aliveness) challenge() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	a.mu.Lock()
	defer a.mu.Unlock()
	a.prev, a.nonce = a.nonce, binary.BigEndian.Uint64(b[:])
	return a.nonce
}

// answered takes a heartbeat. Only one that repeats a recent challenge counts.
func (a *aliveness) answered(nonce uint64, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if nonce == 0 || nonce != a.nonce && nonce != a.prev {
		return false
	}
	a.last, a.spoke, a.known, a.heard = now, now, true, true
	return true
}

func (a *aliveness) seen(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last, a.spoke, a.known, a.heard = now, now, true, true
}

// restart gives the agent its full time again: the guest did not run.
func (a *aliveness) restart(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = now
}

func (a *aliveness) isSilent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.silent
}

// change is what becomes of an agent's silence.
type change int

const (
	unchanged change = iota
	fellSilent
	spokeAgain
	endedAsTold // it is silent behind an authorised stop
	wentOn      // it has answered a stop, and speaks long after
)

// turn says what changes now, how long the agent has been silent, and which
// stop explains that.
func (a *aliveness) turn(now time.Time, after, grace time.Duration) (change, time.Duration, *stopMark) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known && a.stopped == nil {
		after = max(after, grace)
	}
	silence := now.Sub(a.last)
	switch {
	case a.stopped != nil && a.spoke.UnixNano() > a.stopped.At+2*int64(after):
		// A stop does not excuse whatever comes a week later.
		a.stopped, a.gone = nil, false
		return wentOn, silence, nil
	case a.stopped != nil && !a.silent:
		if silence > after && !a.gone {
			a.gone, a.heard = true, false
			return endedAsTold, silence, a.stopped
		}
		if a.gone && a.heard {
			a.gone = false // it speaks after all: its next silence is told again
		}
	case !a.silent && silence > after:
		a.silent, a.heard = true, false
		return fellSilent, silence, nil
	case a.silent && a.heard:
		a.silent = false
		return spokeAgain, silence, nil
	}
	return unchanged, silence, nil
}

// watch seals the silence of an agent whose domain runs, and its end
// (invariant I4).
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(min(time.Second, s.duty.SilentAfter/4))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d := s.dom.Load()
		if d.Paused || s.held.Load() {
			s.alive.restart(s.cfg.Now())
			continue
		}
		s.alive.inEpoch(d.Epoch, s.cfg.Now())
		what, silence, stop := s.alive.turn(s.cfg.Now(), s.duty.SilentAfter, s.duty.BootGrace)
		var class record.Class
		var m record.Message = &record.AgentState{
			Session: s.status.Load().Session, Silent: int64(silence), Reason: "no sign of life while the domain runs"}
		switch what {
		case fellSilent:
			class = record.ClassAgentHeartbeatLost
			if !s.alive.heardIn(d.Epoch) {
				class = record.ClassAgentAbsent
				m = &record.AgentState{Silent: int64(silence), Reason: "the domain runs, and its agent was never heard in this epoch"}
			}
			s.cfg.Stats.Silences.Add(1)
			s.log.WarnContext(ctx, "agent is silent", "for", silence)
		case spokeAgain:
			class = record.ClassAgentHeartbeatBack
		case wentOn:
			class = record.ClassAgentHeartbeatBack
			m = &record.AgentState{Session: s.status.Load().Session, Reason: "the agent has answered a stop and goes on: its silence will be an alarm again"}
			s.log.WarnContext(ctx, "agent goes on though it was told to stop")
		case endedAsTold:
			class = record.ClassAgentStopped
			m = &record.AgentStopped{Authorised: true, Command: stop.Command[:], Reason: "silent since the stop that it was told and has answered"}
			s.log.InfoContext(ctx, "agent has stopped as it was told to", "command", fmt.Sprintf("%x", stop.Command))
		default:
			continue
		}
		if err := s.sealChange(ctx, d, class, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (s *session) sealChange(ctx context.Context, d *Domain, class record.Class, m record.Message) error {
	e, err := s.cfg.Store.Draft(record.OriginHost, class, m)
	if err != nil {
		return fmt.Errorf("seal silence of %s: %w", d.Name, err)
	}
	if _, err := s.cfg.Store.Append(ctx, chain.Batch{Log: d.Log, Entries: []chain.Entry{e}}); err != nil {
		return fmt.Errorf("seal silence of %s: %w", d.Name, err)
	}
	return nil
}
