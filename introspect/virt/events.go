package virt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// rebootTime is when each domain last rebooted, to mark repetitions.
type rebootTime map[domain.UUID]time.Time

// otherAdder notes an event that is not one of a domain's, with what takes it off.
type otherAdder func(name string, deregister func(int) error, id int, err error)

// register asks for every event this package listens to and returns what takes each off again. An event this
// libvirt does not have is named in the coverage and is no error. TUNABLE is never asked for: the
// binding's decoder of it panics on each one, so anyone who may call schedinfo could blind the daemon.
func (h *Host) register(conn *libvirt.Connect, cov *Coverage) (off []func() error) {
	other := func(name string, deregister func(int) error, id int, err error) {
		if err != nil {
			cov.Missing[name] = err.Error()
			return
		}
		cov.Events = append(cov.Events, name)
		off = append(off, func() error { return deregister(id) })
	}
	add := func(name string, id int, err error) { other(name, conn.DomainEventDeregister, id, err) }
	id, err := conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
		h.guard(func() { h.onLifecycle(d, int(e.Event), e.Detail) })
	})
	add("lifecycle", id, err)
	id, err = conn.DomainEventRebootRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) {
		h.guard(func() { h.onReboot(d) })
	})
	add("reboot", id, err)
	id, err = conn.DomainEventDeviceAddedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceAdded) {
		h.guard(func() { h.onDevice(d, record.ClassVMDeviceAttach, told("device-added").device(e.DevAlias)) })
	})
	add("device-added", id, err)
	id, err = conn.DomainEventDeviceRemovedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemoved) {
		h.guard(func() { h.onDevice(d, record.ClassVMDeviceDetach, told("device-removed").device(e.DevAlias)) })
	})
	add("device-removed", id, err)
	id, err = conn.DomainEventMetadataChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMetadataChange) {
		h.guard(func() {
			t := told("metadata").status(metadataTypes, int(e.Type)).number("type", int(e.Type)).text("uri", e.NSURI)
			h.onDevice(d, record.ClassVMMetadata, t)
		})
	})
	add("metadata", id, err)
	h.registerNotices(conn, add)
	h.registerDeviceNotices(conn, add)
	h.registerMonitor(conn, other)
	h.registerSurroundings(conn, other)
	return off
}

// guard keeps a fault in the copying of one event from unwinding through libvirt's frames.
func (h *Host) guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			h.stats.CallbackPanics.Add(1)
			h.cfg.Log.ErrorContext(context.Background(), "copying a libvirt event failed", "panic", fmt.Sprint(r))
		}
	}()
	h.stats.Events.Add(1)
	f()
}

// borrowed copies what a callback's domain says of itself. The domain is libvirt's and invalid
// after the callback; none of this makes a call to the daemon.
func borrowed(d *libvirt.Domain) domain.Domain {
	out := domain.Domain{ID: -1}
	if b, err := d.GetUUID(); err == nil && len(b) == len(out.UUID) {
		copy(out.UUID[:], b)
	}
	out.Name, _ = d.GetName()
	if id, err := d.GetID(); err == nil && int32(id) >= 0 {
		out.ID = int(id)
	}
	return out
}

func (h *Host) onLifecycle(d *libvirt.Domain, event, detail int) {
	o := Observation{Kind: KindLifecycle, Event: event, Detail: detail, Domain: borrowed(d), Time: h.cfg.Now()}
	o.Type, o.Word, o.Reason = describeLifecycle(event, detail)
	if c := h.causes.take(o.Domain.UUID, o.Word, o.Time); c != nil {
		o.Hypervisor = c
	}
	if o.Word == "stop" || o.Word == "undefine" {
		delete(h.reboots, o.Domain.UUID)
		h.causes.forget(o.Domain.UUID)
		h.limits.drop(o.Domain.UUID, h.repeated) // in front of what may be the end of the domain's log
	}
	p := pending{obs: o}
	switch o.Word {
	case "define", "undefine", "start", "stop":
		p.facts = h.startFacts(o.Domain.UUID, o.Word)
	}
	h.queue.put(p)
}

func (h *Host) onReboot(d *libvirt.Domain) {
	o := Observation{Kind: KindReboot, Type: "vm.reboot", Word: "reboot", Event: -1, Detail: -1, Domain: borrowed(d), Time: h.cfg.Now()}
	last, ok := h.reboots[o.Domain.UUID]
	o.Repeat = ok && o.Time.Sub(last) < time.Second
	h.reboots[o.Domain.UUID] = o.Time
	o.Hypervisor = h.causes.take(o.Domain.UUID, o.Word, o.Time)
	h.queue.put(pending{obs: o})
}

// onDevice tells an event after which the facts of the domain are read.
func (h *Host) onDevice(d *libvirt.Domain, class record.Class, t teller) {
	o := h.notice(borrowed(d), class, t)
	o.Kind = KindDevice
	h.queue.put(pending{obs: o, facts: h.startFacts(o.Domain.UUID, o.Word)})
}

// onNotice tells an event as it is. Guests, and whoever reaches a console, can
// cause any number of them: beyond a rate they are counted, and the count is told.
func (h *Host) onNotice(d *libvirt.Domain, class record.Class, t teller) {
	h.tell(h.notice(borrowed(d), class, t))
}

func (h *Host) tell(o Observation) {
	if repeats, ok := h.limits.allow(&o); ok {
		o.Hypervisor.Repeats = repeats
		h.queue.put(pending{obs: o})
	}
}

func (h *Host) notice(d domain.Domain, class record.Class, t teller) Observation {
	return Observation{Kind: KindNotice, Type: class.String(), Word: t.Word, Reason: t.Status, Event: -1, Detail: -1,
		Domain: d, Time: h.cfg.Now(), Hypervisor: t.Hypervisor}
}

// repeated tells how many events were only counted.
func (h *Host) repeated(o Observation, n uint64) {
	o.Time, o.Hypervisor = h.cfg.Now(), &record.Hypervisor{Word: o.Word, Status: "counted", Repeats: n}
	o.Reason = o.Hypervisor.Status
	h.queue.put(pending{obs: o})
}

// startFacts reads a domain's facts in the background. That a domain is gone after it was stopped
// or undefined is no error.
func (h *Host) startFacts(id domain.UUID, word string) chan facts {
	ch := make(chan facts, 1) // never blocks the reader: one result
	if err := h.calls.start(func() {
		f := h.facts(context.Background(), id)
		if (word == "stop" || word == "undefine") && errors.Is(f.err, ErrNotFound) {
			f.err = nil
		}
		ch <- f
	}); err != nil {
		ch <- facts{err: err}
	}
	return ch
}

// facts is Inspect with the deadline of snapshots.
func (h *Host) facts(ctx context.Context, id domain.UUID) facts {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.SnapshotTimeout)
	defer cancel()
	s, err := h.Inspect(ctx, id)
	if err != nil {
		return facts{err: err}
	}
	return facts{snap: &s}
}
