package enforce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// looksAtOnce bounds the domains that are looked at side by side.
const looksAtOnce = 4

// notices are what may undo what holds a domain, or bring one that is marked.
var notices = map[record.Class]bool{
	record.ClassVMStart: true, record.ClassVMStop: true, record.ClassVMCrash: true, record.ClassVMResume: true, record.ClassVMReboot: true,
	record.ClassVMMigrate: true, record.ClassVMDefine: true, record.ClassVMDeviceAttach: true, record.ClassVMDeviceDetach: true, record.ClassVMChange: true,
}

// arrivals are those which may bring a domain that another host has marked.
var arrivals = map[record.Class]bool{record.ClassVMMigrate: true, record.ClassVMDefine: true, record.ClassVMStart: true}

// notice has a domain looked at whose log says that something was done to it.
func (e *Enforcer) notice(it *chain.Item) {
	class := it.Leaf.Header.Class
	if !notices[class] || it.Leaf.Origin != record.OriginHost || it.Log.Name().IsHost() {
		return
	}
	id, err := domain.ParseUUID(it.Log.Name().Domain)
	if err != nil {
		return
	}
	var ev record.Event // what cannot be read says nothing; the sweep finds what it hid
	if it.Unreadable == nil && ev.UnmarshalVT(it.Payload) != nil {
		ev = record.Event{}
	}
	e.mu.Lock()
	_, is := e.shown[id]
	if is || arrivals[class] {
		e.due[id] = true
	}
	if is && class == record.ClassVMResume {
		e.resumed[id] = ev.GetVm().GetArrived()
	}
	if is && class == record.ClassVMMigrate && ev.GetVm().GetLibvirtEvent() == lifecycleStopped {
		e.left[id] = true
	}
	e.mu.Unlock()
	e.nudge()
}

// lifecycleStopped is libvirt's number of the event.
const lifecycleStopped = 5

// nudge has keep look for what is due.
func (e *Enforcer) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// keep ends what is held for a time when that is over, and sees to it that what is held
// stays so. It ends with ctx, or when the ledger fails.
func (e *Enforcer) keep(ctx context.Context) error {
	for _, id := range e.cfg.Running() { // what came while no daemon ran may be marked
		e.mu.Lock()
		e.due[id] = true
		e.mu.Unlock()
	}
	sweep := time.NewTicker(e.cfg.Sweep)
	defer sweep.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, looksAtOnce)
	failed := make(chan error, looksAtOnce)
	for {
		next := time.NewTimer(e.next())
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case err := <-failed:
			next.Stop()
			return err
		case <-sweep.C:
			e.mu.Lock()
			for id := range e.shown {
				e.due[id] = true
			}
			maps.Copy(e.due, e.missed)
			clear(e.missed)
			e.mu.Unlock()
		case <-e.wake:
		case <-next.C:
		}
		next.Stop()
		for _, id := range e.takeDue() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				defer func() {
					e.looked(id)
					<-slots
				}()
				if err := e.look(ctx, e.dom(id)); err != nil && ctx.Err() == nil {
					select {
					case failed <- err:
					default: // one is enough
					}
				}
			})
		}
	}
}

// next is how long it is until a hold ends.
func (e *Enforcer) next() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	wait := time.Hour
	for id, h := range e.shown {
		for _, n := range h.Holds {
			if n.Until > 0 && !e.looking[id] {
				wait = min(wait, max(0, time.Unix(0, n.Until).Sub(e.cfg.Now())))
			}
		}
	}
	return max(wait, 10*time.Millisecond) // a hold that cannot be ended now is not asked for in a loop
}

// looked says that a look at a domain is over.
func (e *Enforcer) looked(id domain.UUID) {
	e.mu.Lock()
	delete(e.looking, id)
	e.mu.Unlock()
	e.nudge()
}

// takeDue returns the domains to look at: those that were noticed, and those of which a
// hold is over. One that is looked at just now stays due: a busy one has one place only.
func (e *Enforcer) takeDue() []domain.UUID {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.cfg.Now().UnixNano()
	for id, h := range e.shown {
		if slices.ContainsFunc(h.Holds, func(n Hold) bool { return n.Until > 0 && n.Until <= now }) {
			e.due[id] = true
		}
	}
	all := make([]domain.UUID, 0, len(e.due))
	for id := range e.due {
		if !e.looking[id] {
			all = append(all, id)
			e.looking[id] = true
			delete(e.due, id)
		}
	}
	return all
}

// look brings one domain to what holds it. What libvirt does not do now is tried at the
// next look; an error is one of the ledger.
func (e *Enforcer) look(ctx context.Context, d *dom) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	if err := d.enter(ctx); err != nil {
		e.miss(d.id) // somebody acts on it
		return nil
	}
	defer d.leave()
	var ledger ledgerError
	err := e.departed(ctx, d)
	if err == nil {
		err = e.adopt(ctx, d)
	}
	if len(d.held.Holds) > 0 && err == nil {
		err = errors.Join(e.lift(ctx, d), e.over(ctx, d), e.again(ctx, d))
	}
	if errors.As(err, &ledger) {
		return fmt.Errorf("look after domain %s: %w", d.id, ledger.error)
	}
	problem := ""
	if err != nil && !errors.Is(err, virt.ErrNotFound) {
		problem = err.Error()
	}
	if problem != "" {
		e.miss(d.id)
	}
	if errors.Is(err, virt.ErrNotFound) {
		e.limits.free(d.id) // it is none of those that run
	} else if len(d.held.Holds) > 0 && !d.held.Adopted {
		e.limits.hold(d.id)
	}
	// Such as before libvirt is heard for the first time.
	waits := len(d.held.Holds) == 0 && errors.Is(err, record.ErrRetry)
	if problem != "" && problem != d.told && !waits {
		e.cfg.Log.WarnContext(ctx, "what holds a domain cannot be seen to now, trying on", "uuid", d.id.String(), "error", err)
	}
	d.told = problem
	return nil
}

// miss has the next sweep come to a domain, also where nothing holds it yet: it may bear
// a mark.
func (e *Enforcer) miss(id domain.UUID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missed[id] = true
}

// ledgerError is an error that ends the enforcer.
type ledgerError struct{ error }

// lookSeal seals an entry of a look.
func (e *Enforcer) lookSeal(ctx context.Context, d *dom, class record.Class, m *record.Held, h held) error {
	if err := e.sealHeld(ctx, d, nil, record.OriginPolicy, class, m, h); err != nil {
		return ledgerError{err}
	}
	return nil
}

// departed gives up what holds a domain that has left by migration: its quarantine goes
// with it, in its mark, and may be released there.
func (e *Enforcer) departed(ctx context.Context, d *dom) error {
	e.mu.Lock()
	left := e.left[d.id]
	delete(e.left, d.id)
	e.mu.Unlock()
	if !left || len(d.held.Holds) == 0 {
		return nil
	}
	if s, err := e.cfg.Actor.State(ctx, d.id); err == nil && s.State.Active() || err != nil && !errors.Is(err, virt.ErrNotFound) {
		return nil // it is here
	}
	m := &record.Held{Holds: recordHolds(d.held.Holds), Cause: "the domain has left by migration: a quarantine goes with it in its mark"}
	if err := e.lookSeal(ctx, d, record.ClassPolicyReleased, m, held{}); err != nil {
		return err
	}
	d.paused = 0
	e.limits.free(d.id)
	return nil
}

// adopt takes over the quarantine of a domain that came from another host.
func (e *Enforcer) adopt(ctx context.Context, d *dom) error {
	if len(d.held.Holds) > 0 {
		return nil
	}
	live, config, err := e.cfg.Actor.QuarantineMark(ctx, d.id)
	text := live
	if text == "" {
		text = config
	}
	if err != nil || text == "" {
		return err
	}
	all, err := e.cfg.Actor.Interfaces(ctx, d.id)
	if err != nil {
		return err
	}
	h, err := parseMark(text, all)
	if err != nil {
		return err
	}
	h.Adopted = true
	m := &record.Held{Holds: recordHolds(h.Holds), Cause: "the domain came with the mark of a quarantine", Links: recordLinks(all, true)}
	return e.lookSeal(ctx, d, record.ClassPolicyReapplied, m, h)
}

// lift ends pauses that somebody else has ended: a domain that was let run, or does not
// run any more, is not resumed later by us, whoever pauses it then.
func (e *Enforcer) lift(ctx context.Context, d *dom) error {
	var gone []Hold
	for _, h := range d.held.Holds {
		if h.Action == HoldPause {
			gone = append(gone, h)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	s, err := e.cfg.Actor.State(ctx, d.id)
	if err != nil {
		return err
	}
	e.mu.Lock()
	resumed := e.resumed[d.id]
	delete(e.resumed, d.id)
	e.mu.Unlock()
	m := &record.Held{Holds: recordHolds(gone), Cause: "somebody else has let it run, or it has stopped", StateAfter: stateText(s)}
	if s.State == domain.Paused {
		if d.held.PausedAt == 0 || resumed <= d.held.PausedAt {
			return nil
		}
		m.Cause = "somebody else has let it run and paused it again"
	}
	rest := d.held.clone()
	rest.Holds = slices.DeleteFunc(rest.Holds, func(h Hold) bool { return h.Action == HoldPause })
	if d.paused = 0; !rest.pauses() {
		rest.PausedAt = 0
	}
	if err := e.lookSeal(ctx, d, record.ClassPolicyReleased, m, rest); err != nil {
		return err
	}
	if len(rest.Holds) == 0 {
		e.limits.free(d.id)
	}
	return nil
}

// over ends the holds whose time is over.
func (e *Enforcer) over(ctx context.Context, d *dom) error {
	now := e.cfg.Now().UnixNano()
	gone := slices.DeleteFunc(slices.Clone(d.held.Holds), func(h Hold) bool { return h.Until == 0 || h.Until > now })
	if len(gone) == 0 {
		return nil
	}
	// While libvirt is away nothing is sealed again and again.
	if _, err := e.cfg.Actor.State(ctx, d.id); err != nil && !errors.Is(err, virt.ErrNotFound) {
		return e.later(d, err)
	}
	_, err := e.end(ctx, d, gone, record.OriginPolicy, &record.Held{Cause: "its time is over", Holds: recordHolds(gone)})
	if err != nil && e.cfg.Store.Err() != nil {
		return ledgerError{err}
	}
	if err != nil {
		return e.later(d, err)
	}
	return nil
}

// later puts off the holds that are over and could not be ended, longer each time: each
// try may be sealed.
func (e *Enforcer) later(d *dom, err error) error {
	h := d.held.clone()
	wait := min(5*time.Second<<min(d.late, 10), 5*time.Minute)
	d.late++
	for i := range h.Holds {
		if h.Holds[i].Until > 0 {
			h.Holds[i].Until = max(h.Holds[i].Until, e.cfg.Now().Add(wait).UnixNano())
		}
	}
	e.setHeld(d, h) // not durable: a restart tries at once
	return err
}

// again does again what a quarantine wants, where somebody has undone it, and seals that.
func (e *Enforcer) again(ctx context.Context, d *dom) error {
	var q []Hold
	cut, pause := false, false
	for _, h := range d.held.Holds {
		if h.Action == HoldQuarantine {
			q, cut, pause = append(q, h), cut || h.All, pause || h.Pause
		}
	}
	if len(q) == 0 {
		return nil
	}
	s, err := e.cfg.Actor.State(ctx, d.id)
	if err != nil {
		return err
	}
	h := d.held.clone()
	var causes []string
	m := &record.Held{Holds: recordHolds(q), StateBefore: stateText(s)}
	paused := false
	if pause && s.State == domain.Running { // first, as in the quarantine itself
		causes = append(causes, "it ran")
		_, after, err := e.cfg.Actor.Pause(ctx, d.id)
		m.StateAfter = stateText(after)
		if paused = err == nil; paused {
			d.paused = e.cfg.Now().UnixNano()
			h.PausedAt = d.paused
		} else {
			m.Error = err.Error()
		}
	}
	if cut {
		all, err := e.cfg.Actor.Interfaces(ctx, d.id)
		if err != nil {
			return err
		}
		if e.cfg.Guard != nil {
			e.filter(ctx, d.id, all)
		}
		if up := upIn(all); len(up) > 0 {
			causes = append(causes, "links were up: "+strings.Join(up, ", "))
			if fresh := h.save(all); len(fresh) > 0 {
				about := &record.Held{Holds: m.Holds, Cause: "interfaces that are new", Links: recordLinks(fresh, true)}
				if err := e.lookSeal(ctx, d, record.ClassPolicyActing, about, h); err != nil {
					return err
				}
			}
			after, err := e.cfg.Actor.LinksDown(ctx, d.id, nil)
			m.Links = recordLinks(after, false)
			if err != nil {
				m.Error = strings.TrimSpace(m.Error + " " + err.Error())
			}
		}
	}
	live, config, err := e.cfg.Actor.QuarantineMark(ctx, d.id)
	if err != nil {
		return err
	}
	if live == "" && s.State.Active() || config == "" && live == "" {
		causes = append(causes, "its mark was gone")
	}
	if err := e.cfg.Actor.SetQuarantineMark(ctx, d.id, markText(&h)); err != nil {
		m.Error = strings.TrimSpace(m.Error + " " + err.Error())
	}
	if m.Error != "" && (len(causes) == 0 || m.Error == d.told && !paused) {
		return errors.New(m.Error) // sealed once
	}
	if len(causes) == 0 {
		return nil
	}
	m.Cause = strings.Join(causes, "; ")
	if err := e.lookSeal(ctx, d, record.ClassPolicyReapplied, m, h); err != nil {
		return err
	}
	e.cfg.Log.WarnContext(ctx, "a quarantine was undone and is in force again", "uuid", d.id.String(), "cause", m.Cause, "error", m.Error)
	if m.Error != "" {
		return errors.New(m.Error)
	}
	return nil
}
