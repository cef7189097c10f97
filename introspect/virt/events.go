package virt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/introspect/domain"
)

// rebootTime is when each domain last rebooted, to mark repetitions.
type rebootTime map[domain.UUID]time.Time

// register asks for every event this package listens to and returns their ids. An event this
// libvirt does not have is named in the coverage and is no error. TUNABLE is never asked for: the
// binding's decoder of it panics on each one, so anyone who may call schedinfo could blind the daemon.
func (h *Host) register(conn *libvirt.Connect, cov *Coverage) []int {
	var ids []int
	add := func(name string, id int, err error) {
		if err != nil {
			cov.Missing[name] = err.Error()
			return
		}
		cov.Events = append(cov.Events, name)
		ids = append(ids, id)
	}
	id, err := conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
		h.guard(func() { h.onLifecycle(d, int(e.Event), e.Detail) })
	})
	add("lifecycle", id, err)
	id, err = conn.DomainEventRebootRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) {
		h.guard(func() { h.onReboot(d) })
	})
	add("reboot", id, err)
	id, err = conn.DomainEventDeviceAddedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceAdded) {
		h.guard(func() { h.onDevice(d, "vm.device_attach", "device-added", map[string]string{"alias": e.DevAlias}) })
	})
	add("device-added", id, err)
	id, err = conn.DomainEventDeviceRemovedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemoved) {
		h.guard(func() { h.onDevice(d, "vm.device_detach", "device-removed", map[string]string{"alias": e.DevAlias}) })
	})
	add("device-removed", id, err)
	id, err = conn.DomainEventMetadataChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMetadataChange) {
		h.guard(func() {
			h.onDevice(d, "vm.change", "metadata", map[string]string{"type": strconv.Itoa(int(e.Type)), "uri": e.NSURI})
		})
	})
	add("metadata", id, err)
	h.registerNotices(conn, add)
	return ids
}

// registerNotices asks for the events that are recorded as they are.
func (h *Host) registerNotices(conn *libvirt.Connect, add func(string, int, error)) {
	id, err := conn.DomainEventWatchdogRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventWatchdog) {
		h.guard(func() { h.onNotice(d, "watchdog", map[string]string{"action": strconv.Itoa(int(e.Action))}) })
	})
	add("watchdog", id, err)
	id, err = conn.DomainEventIOErrorReasonRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventIOErrorReason) {
		h.guard(func() {
			h.onNotice(d, "ioerror", map[string]string{"path": e.SrcPath, "alias": e.DevAlias, "reason": e.Reason, "action": strconv.Itoa(int(e.Action))})
		})
	})
	add("ioerror", id, err)
	id, err = conn.DomainEventControlErrorRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) {
		h.guard(func() { h.onNotice(d, "control-error", nil) })
	})
	add("control-error", id, err)
	id, err = conn.DomainEventJobCompletedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventJobCompleted) {
		h.guard(func() {
			h.onNotice(d, "job-completed", map[string]string{"operation": strconv.Itoa(int(e.Info.Operation)), "type": strconv.Itoa(int(e.Info.Type))})
		})
	})
	add("job-completed", id, err)
	id, err = conn.DomainEventAgentLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventAgentLifecycle) {
		h.guard(func() {
			h.onNotice(d, "qemu-ga", map[string]string{"state": strconv.Itoa(int(e.State)), "reason": strconv.Itoa(int(e.Reason))})
		})
	})
	add("qemu-ga", id, err)
	id, err = conn.DomainEventDeviceRemovalFailedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemovalFailed) {
		h.guard(func() { h.onNotice(d, "device-removal-failed", map[string]string{"alias": e.DevAlias}) })
	})
	add("device-removal-failed", id, err)
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
	p := pending{obs: o}
	switch o.Word {
	case "define", "undefine", "start", "stop":
		p.facts = h.startFacts(o.Domain.UUID, o.Word)
	}
	if o.Word == "stop" || o.Word == "undefine" {
		delete(h.reboots, o.Domain.UUID)
	}
	h.queue.put(p)
}

func (h *Host) onReboot(d *libvirt.Domain) {
	o := Observation{Kind: KindReboot, Type: "vm.reboot", Word: "reboot", Event: -1, Detail: -1, Domain: borrowed(d), Time: h.cfg.Now()}
	last, ok := h.reboots[o.Domain.UUID]
	o.Repeat = ok && o.Time.Sub(last) < time.Second
	h.reboots[o.Domain.UUID] = o.Time
	h.queue.put(pending{obs: o})
}

func (h *Host) onDevice(d *libvirt.Domain, typ, word string, data map[string]string) {
	o := Observation{Kind: KindDevice, Type: typ, Word: word, Event: -1, Detail: -1, Domain: borrowed(d), Time: h.cfg.Now(), Data: data}
	h.queue.put(pending{obs: o, facts: h.startFacts(o.Domain.UUID, word)})
}

func (h *Host) onNotice(d *libvirt.Domain, word string, data map[string]string) {
	h.queue.put(pending{obs: Observation{Kind: KindNotice, Type: "vm.change", Word: word, Event: -1, Detail: -1,
		Domain: borrowed(d), Time: h.cfg.Now(), Data: data}})
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
