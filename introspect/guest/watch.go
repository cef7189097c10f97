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
	known  bool // it has been heard since the session began
	silent bool // sealed as silent
	heard  bool // there was a sign of life since the silence was sealed
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
func (a *aliveness) answered(nonce uint64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if nonce != 0 && (nonce == a.nonce || nonce == a.prev) {
		a.last, a.known, a.heard = now, true, true
	}
}

func (a *aliveness) seen(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last, a.known, a.heard = now, true, true
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

// turn says whether silence begins or ends now, and how long it has lasted.
func (a *aliveness) turn(now time.Time, after, grace time.Duration) (begins, ends bool, silence time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known {
		after = max(after, grace)
	}
	silence = now.Sub(a.last)
	switch {
	case !a.silent && silence > after:
		a.silent, a.heard = true, false
		return true, false, silence
	case a.silent && a.heard:
		a.silent = false
		return false, true, silence
	}
	return false, false, silence
}

// watch seals the silence of an agent whose domain runs, and its end
// (invariant I4).
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(min(time.Second, s.cfg.SilentAfter/4))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d := s.dom.Load()
		if d.Paused {
			s.alive.restart(s.cfg.Now())
			continue
		}
		begins, ends, silence := s.alive.turn(s.cfg.Now(), s.cfg.SilentAfter, s.cfg.BootGrace)
		class := record.ClassAgentHeartbeatLost
		switch {
		case begins:
			s.cfg.Stats.Silences.Add(1)
			s.log.WarnContext(ctx, "agent is silent", "for", silence)
		case ends:
			class = record.ClassAgentHeartbeatBack
		default:
			continue
		}
		e, err := s.cfg.Store.Draft(record.OriginHost, class, &record.AgentState{
			Session: s.status.Load().Session, Silent: int64(silence), Reason: "no sign of life while the domain runs"})
		if err != nil {
			return fmt.Errorf("seal silence of %s: %w", d.Name, err)
		}
		if _, err := s.cfg.Store.Append(ctx, chain.Batch{Log: d.Log, Entries: []chain.Entry{e}}); err != nil && ctx.Err() == nil {
			return fmt.Errorf("seal silence of %s: %w", d.Name, err)
		}
	}
}
