package virt

import (
	"net"
	"strconv"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
)

// registerNotices asks for the events about a domain as a whole.
func (h *Host) registerNotices(conn *libvirt.Connect, add func(string, int, error)) {
	id, err := conn.DomainEventWatchdogRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventWatchdog) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMWatchdog, told("watchdog").status(watchdogActions, int(e.Action)).number("action", int(e.Action)))
		})
	})
	add("watchdog", id, err)
	id, err = conn.DomainEventControlErrorRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) {
		h.guard(func() { h.onNotice(d, record.ClassVMControlLost, told("control-error")) })
	})
	add("control-error", id, err)
	id, err = conn.DomainEventJobCompletedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventJobCompleted) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMJob, told("job-completed").device(wordOf(jobOperations, int(e.Info.Operation))).
				status(jobTypes, int(e.Info.Type)).number("operation", int(e.Info.Operation)).number("type", int(e.Info.Type)))
		})
	})
	add("job-completed", id, err)
	id, err = conn.DomainEventMigrationIterationRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMigrationIteration) {
		h.guard(func() {
			if e.Iteration == 1 { // later ones say only that memory is still copied
				h.onNotice(d, record.ClassVMJob, told("memory-copy").number("iteration", e.Iteration))
			}
		})
	})
	add("migration-iteration", id, err)
	id, err = conn.DomainEventAgentLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventAgentLifecycle) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMChannel, told("qemu-ga").device("org.qemu.guest_agent.0").status(guestAgentStates, int(e.State)).
				number("state", int(e.State)).number("reason", int(e.Reason)))
		})
	})
	add("qemu-ga", id, err)
	id, err = conn.DomainEventGraphicsRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventGraphics) {
		h.guard(func() { h.onNotice(d, record.ClassVMConsole, graphics(e)) })
	})
	add("graphics", id, err)
	id, err = conn.DomainEventRTCChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventRTCChange) {
		h.guard(func() { h.onNotice(d, record.ClassVMChange, told("clock").now(strconv.FormatInt(e.Utcoffset, 10))) })
	})
	add("clock", id, err)
	id, err = conn.DomainEventPMSuspendRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventPMSuspend) {
		h.guard(func() { h.onNotice(d, record.ClassVMChange, told("power-suspend").number("reason", e.Reason)) })
	})
	add("power-suspend", id, err)
	id, err = conn.DomainEventPMSuspendDiskRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventPMSuspendDisk) {
		h.guard(func() { h.onNotice(d, record.ClassVMChange, told("power-suspend-disk").number("reason", e.Reason)) })
	})
	add("power-suspend-disk", id, err)
	id, err = conn.DomainEventPMWakeupRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventPMWakeup) {
		h.guard(func() { h.onNotice(d, record.ClassVMChange, told("power-wakeup").number("reason", e.Reason)) })
	})
	add("power-wakeup", id, err)
	h.registerMemory(conn, add)
}

func (h *Host) registerMemory(conn *libvirt.Connect, add func(string, int, error)) {
	id, err := conn.DomainEventBalloonChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventBalloonChange) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMMemory, told("balloon").now(strconv.FormatUint(e.Actual, 10)+" KiB"))
		})
	})
	add("balloon", id, err)
	id, err = conn.DomainEventMemoryDeviceSizeChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMemoryDeviceSizeChange) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMMemory, told("memory-device").device(e.Alias).now(strconv.FormatUint(e.Size, 10)+" KiB"))
		})
	})
	add("memory-device", id, err)
	id, err = conn.DomainEventMemoryFailureRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMemoryFailure) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMMemoryFailure, told("memory-failure").device(wordOf(memoryRecipients, int(e.Recipient))).
				status(memoryActions, int(e.Action)).number("recipient", int(e.Recipient)).number("action", int(e.Action)).number("flags", int(e.Flags)))
		})
	})
	add("memory-failure", id, err)
}

// registerDeviceNotices asks for the events about one device of a domain.
func (h *Host) registerDeviceNotices(conn *libvirt.Connect, add func(string, int, error)) {
	id, err := conn.DomainEventIOErrorReasonRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventIOErrorReason) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMIOError, told("ioerror").device(e.DevAlias).path(e.SrcPath).says(e.Reason).
				text("does", wordOf(ioErrorActions, int(e.Action))).number("action", int(e.Action)))
		})
	})
	add("ioerror", id, err)
	id, err = conn.DomainEventDeviceRemovalFailedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemovalFailed) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMChange, told("device-removal-failed").device(e.DevAlias))
		})
	})
	add("device-removal-failed", id, err)
	// The older event of block jobs tells the same with the path in place of the target.
	id, err = conn.DomainEventBlockJob2Register(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventBlockJob) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMBlockJob, told("block-job").device(e.Disk).status(blockJobStates, int(e.Status)).
				text("job", wordOf(blockJobTypes, int(e.Type))).number("type", int(e.Type)).number("status", int(e.Status)))
		})
	})
	add("block-job", id, err)
	id, err = conn.DomainEventBlockThresholdRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventBlockThreshold) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMChange, told("block-threshold").device(e.Dev).path(e.Path).
				text("threshold", strconv.FormatUint(e.Threshold, 10)).text("excess", strconv.FormatUint(e.Excess, 10)))
		})
	})
	add("block-threshold", id, err)
	id, err = conn.DomainEventDiskChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDiskChange) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMDiskChanged, told("disk-change").device(e.DevAlias).was(e.OldSrcPath).now(e.NewSrcPath).
				status(diskReasons, int(e.Reason)).number("reason", int(e.Reason)))
		})
	})
	add("disk-change", id, err)
	id, err = conn.DomainEventTrayChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventTrayChange) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMTray, told("tray").device(e.DevAlias).status(trayReasons, int(e.Reason)).number("reason", int(e.Reason)))
		})
	})
	add("tray", id, err)
	id, err = conn.DomainEventNICMACChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventNICMACChange) {
		h.guard(func() {
			h.onNotice(d, record.ClassVMInterface, told("mac-change").device(e.Alias).was(e.OldMAC).now(e.NewMAC))
		})
	})
	add("mac-change", id, err)
}

// graphics says who came to the console or left it, and how they were let in.
func graphics(e *libvirt.DomainEventGraphics) teller {
	from := e.Remote.Node
	if e.Remote.Service != "" {
		from = net.JoinHostPort(e.Remote.Node, e.Remote.Service)
	}
	t := told("graphics").address(from).status(graphicsPhases, int(e.Phase)).number("phase", int(e.Phase)).
		text("local", e.Local.Node).text("port", e.Local.Service).text("auth", e.AuthScheme)
	for _, s := range e.Subject {
		t = t.text("identity-"+s.Type, s.Name)
	}
	return t
}
