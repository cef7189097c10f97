package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// Release asks for the end of what holds a domain.
type Release struct {
	Action            string // HoldPause, HoldNetwork, HoldQuarantine; "": all
	Requester, Reason string
	// Statement and Signatures are a second person's, where one must agree.
	Statement  []byte
	Signatures [][]byte
	// DryRun only says what would be released.
	DryRun bool
}

// Agreed is the word of a second person.
type Agreed struct {
	Statement       []byte
	Signatures      [][]byte
	Signers         []string
	ApproversSHA256 []byte
}

// Released says what has ended, and how the domain is behind it.
type Released struct {
	Holds         []Hold
	Before, After string
	Links         []virt.Interface
	Detail        string
}

// Release ends holds of a domain, for the one who asks, and seals that. A crash before
// the seal leaves the holds in force: the next run does again what they want.
func (e *Enforcer) Release(ctx context.Context, id domain.UUID, r Release) (*Released, error) {
	if strings.TrimSpace(r.Reason) == "" && !r.DryRun {
		return nil, fmt.Errorf("release domain %s: no reason is given; it is sealed: %w", id, record.ErrReject)
	}
	if r.Action != "" && !slices.Contains([]string{HoldPause, HoldNetwork, HoldQuarantine}, r.Action) {
		return nil, fmt.Errorf("release domain %s: there is no action %.40q that lasts, only %s, %s and %s: %w", id, r.Action, HoldPause, HoldNetwork, HoldQuarantine, record.ErrReject)
	}
	d := e.dom(id)
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	gone := slices.DeleteFunc(slices.Clone(d.held.Holds), func(h Hold) bool { return r.Action != "" && h.Action != r.Action })
	if len(gone) == 0 {
		what := "Provost"
		if r.Action != "" {
			what = "the action " + r.Action
		}
		return nil, fmt.Errorf("release domain %s: nothing of %s holds it: %w", id, what, record.ErrReject)
	}
	m := &record.Held{Cause: "operator", Requester: r.Requester, Reason: r.Reason, Holds: recordHolds(gone)}
	if second := slices.DeleteFunc(slices.Clone(gone), func(h Hold) bool { return !h.Second }); len(second) > 0 && !r.DryRun {
		if e.cfg.Second == nil {
			return nil, fmt.Errorf("release domain %s: a second person must agree, and this host knows of nobody: set release_group: %w", id, record.ErrReject)
		}
		a, err := e.cfg.Second(id, second, r.Statement, r.Signatures)
		if err != nil {
			return nil, fmt.Errorf("release domain %s: a second person must agree: %w", id, err)
		}
		m.Statement, m.Signatures, m.Signers, m.ApproversSha256 = a.Statement, a.Signatures, a.Signers, a.ApproversSHA256
	}
	if r.DryRun {
		return &Released{Holds: gone, Detail: "nothing is done"}, nil
	}
	return e.end(context.WithoutCancel(ctx), d, gone, record.OriginOperator, m)
}

// end undoes what only the given holds want, and seals that they have ended. The caller
// has the domain's turn. Of what fails nothing ends: it is sealed, and can be asked for
// again.
func (e *Enforcer) end(ctx context.Context, d *dom, gone []Hold, origin record.Origin, m *record.Held) (*Released, error) {
	rest := d.held.clone()
	rest.Holds = slices.DeleteFunc(rest.Holds, func(h Hold) bool { return slices.ContainsFunc(gone, h.same) })
	out := &Released{Holds: gone}
	var notes []string
	s, err := e.cfg.Actor.State(ctx, d.id)
	switch {
	case errors.Is(err, virt.ErrNotFound):
		notes, err = append(notes, "the domain is not on this host"), nil
		rest.Links, rest.Modes = nil, nil
	case err == nil:
		m.StateBefore = stateText(s)
		var note string
		out.Links, err = e.restore(ctx, d, &rest)
		if err == nil {
			note, err = e.resume(ctx, d, &rest, s)
		}
		if note != "" {
			notes = append(notes, note)
		}
		if now, serr := e.cfg.Actor.State(ctx, d.id); serr == nil {
			m.StateAfter = stateText(now)
		}
	}
	m.Detail, m.Links = strings.Join(notes, "; "), recordLinks(out.Links, false)
	out.Before, out.After, out.Detail = m.StateBefore, m.StateAfter, m.Detail
	keep := rest
	if err != nil {
		m.Error, keep = err.Error(), d.held.clone()
	}
	if serr := e.sealHeld(ctx, d, nil, origin, record.ClassPolicyReleased, m, keep); serr != nil {
		return nil, errors.Join(err, serr)
	}
	if err != nil {
		return nil, fmt.Errorf("release domain %s: %w", d.id, err)
	}
	d.late = 0
	if !rest.pauses() {
		d.paused = 0
	}
	if len(rest.Holds) == 0 {
		e.limits.free(d.id)
	}
	e.cfg.Log.InfoContext(ctx, "released", "uuid", d.id.String(), "cause", m.Cause, "requester", m.Requester, "holds", len(gone), "left", len(rest.Holds), "detail", m.Detail)
	return out, nil
}

// restore gives back the interfaces that no hold of rest wants, and takes the mark and
// the packet filter away with the last quarantine.
func (e *Enforcer) restore(ctx context.Context, d *dom, rest *held) ([]virt.Interface, error) {
	modes := map[string][]virt.Interface{}
	rest.Links, rest.Modes = nil, nil
	for _, n := range d.held.Links {
		if rest.cuts(n.Key) {
			rest.Links = append(rest.Links, n)
			if mode := d.held.Modes[n.Key]; mode != "" {
				rest.cutBy(mode, []string{n.Key})
			}
			continue
		}
		mode := virt.ModeLink
		if m := d.held.Modes[n.Key]; m != "" {
			mode = m
		}
		modes[mode] = append(modes[mode], n)
	}
	var err error
	if d.held.quarantined() && !rest.quarantined() && e.cfg.Guard != nil {
		// Before the links: what fails leaves them down.
		err = e.cfg.Guard.Uncut(ctx, d.id)
	}
	var all []virt.Interface
	for _, mode := range []string{virt.ModeLink, virt.ModeIsolate, virt.ModeUnplug} {
		if len(modes[mode]) > 0 && err == nil {
			all, err = e.cfg.Actor.RestoreLinks(ctx, d.id, modes[mode], mode)
		}
	}
	if err == nil && d.held.quarantined() {
		err = e.cfg.Actor.SetQuarantineMark(ctx, d.id, markText(rest))
	}
	return all, err
}

// resume lets a domain go on that no hold of rest wants paused, if it was Provost who
// paused it.
func (e *Enforcer) resume(ctx context.Context, d *dom, rest *held, now virt.Status) (string, error) {
	if !d.held.pauses() {
		return "", nil
	}
	if rest.pauses() {
		return "another verdict wants it paused", nil
	}
	rest.PausedAt = 0
	switch {
	case now.State != domain.Paused:
		return "it is not paused any more", nil
	case d.held.PausedAt == 0:
		return "it was paused before Provost came: whoever did that may resume it", nil
	case now.Reason != "user":
		return "libvirt keeps it paused: " + now.Reason, nil
	}
	_, after, err := e.cfg.Actor.Resume(ctx, d.id)
	if err == nil && after.State == domain.Paused {
		err = fmt.Errorf("libvirt says the domain is %s afterwards", stateText(after))
	}
	return "", err
}
