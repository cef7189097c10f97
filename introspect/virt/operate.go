package virt

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// State reads a domain's state and libvirt's reason for it.
func (h *Host) State(ctx context.Context, id domain.UUID) (Status, error) {
	s, err := withDomain(ctx, h, id, true, status)
	if err != nil {
		return Status{}, fmt.Errorf("read state of domain %s: %w", id, err)
	}
	return s, nil
}

func status(dom *libvirt.Domain) (Status, error) {
	state, code, err := dom.GetState()
	if err != nil {
		return Status{}, err
	}
	return describeState(domain.State(state), code), nil
}

type transition struct{ before, after Status }

// Pause stops the domain's processors (virDomainSuspend). A domain that is paused already is no
// error; before then says by whom: reason "user" is anyone who asked libvirt for it, the owner
// included. Reasons such as "migration" and "snapshot" are passing: libvirt resumes such a domain
// itself, so the pause is asked for all the same and after is to be looked at again later. A domain that
// does not run is ErrInactive. The call passes all bounds on calls and is never queued (I8).
//
// After an error before may be set (it was read) and after is zero unless it could be read too.
func (h *Host) Pause(ctx context.Context, id domain.UUID) (before, after Status, err error) {
	t, err := withDomain(ctx, h, id, true, func(dom *libvirt.Domain) (transition, error) {
		return change(dom, func(s Status) bool { return s.State == domain.Paused && s.Reason == "user" }, dom.Suspend)
	})
	if err != nil {
		return t.before, t.after, fmt.Errorf("pause domain %s: %w", id, err)
	}
	if t.after.State != domain.Paused {
		// libvirt said yes: somebody has resumed it since.
		return t.before, t.after, fmt.Errorf("pause domain %s: %w: it is %s (%s) right after the pause", id, record.ErrRetry, t.after.State, t.after.Reason)
	}
	return t.before, t.after, nil
}

// Resume lets a paused domain go on (virDomainResume). A domain that runs already is no error.
func (h *Host) Resume(ctx context.Context, id domain.UUID) (before, after Status, err error) {
	t, err := withDomain(ctx, h, id, true, func(dom *libvirt.Domain) (transition, error) {
		return change(dom, func(s Status) bool { return s.State == domain.Running }, dom.Resume)
	})
	if err != nil {
		return t.before, t.after, fmt.Errorf("resume domain %s: %w", id, err)
	}
	return t.before, t.after, nil
}

// change reads the state, acts unless there is nothing to do, and reads the state again.
func change(dom *libvirt.Domain, done func(Status) bool, act func() error) (t transition, err error) {
	if t.before, err = status(dom); err != nil {
		return t, err
	}
	if !t.before.State.Active() {
		return t, fmt.Errorf("%w: %w: it is %s (%s)", record.ErrReject, ErrInactive, t.before.State, t.before.Reason)
	}
	if done(t.before) {
		t.after = t.before
		return t, nil
	}
	if err := act(); err != nil {
		t.after, _ = status(dom) // the error tells the story; the state helps when it can be read
		return t, err
	}
	t.after, err = status(dom)
	return t, err
}
