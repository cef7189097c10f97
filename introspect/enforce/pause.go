package enforce

import (
	"context"
	"fmt"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// pause stops the domain's processors, for a while or until it is released.
type pause struct{ resumeAfter time.Duration }

func readPause(_ *record.Action, p *params) action {
	return pause{p.seconds("resume_after")}
}

func (p pause) run(ctx context.Context, x *attempt) error {
	if err := x.current("pause"); err != nil {
		return err
	}
	h := x.hold(HoldPause)
	h.Pause = true
	if p.resumeAfter > 0 {
		h.Until = h.Since + int64(p.resumeAfter)
	}
	before, after, err := x.pause(ctx)
	if err != nil {
		return err
	}
	x.o.StateBefore, x.o.StateAfter = stateText(before), stateText(after)
	x.o.Result = resultDone
	if before.State == after.State {
		x.o.Result, x.o.OtherIndex = resultAlready, x.held.pauser(h.Log)
	}
	x.lasts = &h
	x.held.add(h)
	if x.held.PausedAt == 0 {
		x.o.Detail = "it was paused before Provost came: it is left to whoever did that to resume it"
	}
	return nil
}

// pause has the domain paused, and learns whether it was Provost who did it.
func (x *attempt) pause(ctx context.Context) (before, after virt.Status, err error) {
	before, after, err = x.e.cfg.Actor.Pause(ctx, x.j.id)
	if err != nil && before.State.Active() {
		// A guest that sleeps cannot be paused until it wakes.
		return before, after, fmt.Errorf("pause a domain that is %s: %w: %w", stateText(before), record.ErrRetry, err)
	}
	if err != nil {
		return before, after, fmt.Errorf("pause: %w", err)
	}
	if before.State == domain.Paused && passing[before.Reason] {
		return before, after, fmt.Errorf("pause: libvirt has paused the domain for a while (%s): %w", before.Reason, record.ErrRetry)
	}
	if after.State != domain.Paused {
		return before, after, fmt.Errorf("pause: libvirt says the domain is %s afterwards", after.State)
	}
	if before.State != domain.Paused {
		x.d.paused = x.e.cfg.Now().UnixNano() // also where somebody has let it run in between
		x.held.PausedAt = x.d.paused
	} else if !x.held.pauses() || x.held.PausedAt == 0 {
		// By an attempt of this run that failed otherwise, or else by somebody else. A
		// crash between the pause and its outcome ends here as well: whose pause it is
		// cannot be told then, and so it is not ours to end.
		x.held.PausedAt = x.d.paused
	}
	return before, after, nil
}

// passing are the reasons of a pause that libvirt ends by itself.
var passing = map[string]bool{"migration": true, "save": true, "dump": true, "snapshot": true, "starting-up": true, "postcopy": true}

// stateText is a state with libvirt's reason for it: who paused a domain
// decides who may resume it.
func stateText(s virt.Status) string { return s.State.String() + " (" + s.Reason + ")" }
