package guest

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	// clockSlack is what a guest's clock may be off by, besides the way of two heartbeats.
	clockSlack = 5 * time.Second
	// clockSlew is by how much the two clocks may drift apart in one heartbeat.
	clockSlew = 10 * time.Millisecond
	// clockTellEvery bounds the findings that a guest can provoke.
	clockTellEvery = time.Minute
)

// guestClock compares the time since the guest's boot, which heartbeats tell, with the
// host's monotone time. An answer may be late, which lets the guest look behind by the
// time it took; it is never early. So the least late of them all is what others are held
// against.
type guestClock struct {
	session, pauses uint64
	epoch           [16]byte
	known           bool
	base            time.Duration // guest less host
	told            time.Duration // host time of the newest finding
	everTold        bool
}

// jump returns by how much the guest's clock has jumped since the heartbeats before this
// one. Slack is what does not count. Another session, another epoch and a pause each begin
// anew.
func (c *guestClock) jump(session, pauses uint64, epoch [16]byte, guest uint64, host, slack time.Duration) (time.Duration, bool) {
	offset := time.Duration(min(guest, math.MaxInt64/2)) - host
	if !c.known || c.session != session || c.pauses != pauses || c.epoch != epoch {
		c.known, c.session, c.pauses, c.epoch, c.base = true, session, pauses, epoch, offset
		return 0, false
	}
	by := offset - c.base
	if by > slack || by < -slack {
		c.base = offset
		if c.everTold && host-c.told < clockTellEvery {
			return 0, false
		}
		c.everTold, c.told = true, host
		return by, true
	}
	c.base = max(c.base-clockSlew, offset)
	return 0, false
}

// checkClock seals that the guest's clock has jumped. A guest can set the time of day and
// nobody cares; the time since its boot goes on as long as it runs, so a jump tells of a
// guest that stood though its host knows of no pause, or of an agent that lies.
func (s *session) checkClock(ctx context.Context, d *Domain, guest uint64) error {
	now := s.dom.Load()
	pauses := s.pauses.Load()
	if now.Paused { // it ran when it answered, and its resume is on its way to us
		pauses = math.MaxUint64
	}
	by, ok := s.clock.jump(s.prog.Session, pauses, d.Epoch, guest, s.cfg.Now().Sub(s.made), clockSlack+2*s.cfg.Heartbeat)
	if !ok {
		return nil
	}
	how := "ahead of"
	if by < 0 {
		how = "behind"
	}
	s.log.WarnContext(ctx, "the guest's clock has jumped", "by", by)
	return s.sealChange(ctx, d, record.ClassAgentClockJump, &record.AgentState{Session: s.prog.Session, Frame: s.prog.Frame,
		Reason: fmt.Sprintf("the guest's clock has jumped %.1f s %s the host's, and no pause is known", by.Abs().Seconds(), how)})
}
