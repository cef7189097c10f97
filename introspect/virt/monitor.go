package virt

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// maxDetails bounds the JSON of one event of QEMU that is read.
const maxDetails = 16 << 10

// registerMonitor asks for the events of QEMU's monitor. libvirt passes them on
// without promising to: they add to what libvirt's own events tell, and nothing rests
// on them. Listening does not taint a domain.
func (h *Host) registerMonitor(conn *libvirt.Connect, other otherAdder) {
	// The binding passes an empty name as a name: only a pattern gets all events.
	id, err := conn.DomainQemuMonitorEventRegister(nil, ".*", func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainQemuMonitorEvent) {
		h.guard(func() { h.onMonitor(borrowed(d), e) })
	}, libvirt.CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX)
	other("qemu-monitor", conn.DomainQemuEventDeregister, id, err)
}

// twice are QEMU's events of which libvirt makes events of its own, with more in them.
var twice = []string{
	"STOP", "RESUME", "MIGRATION", "MIGRATION_PASS", "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "DEVICE_TRAY_MOVED", "RTC_CHANGE",
	"BALLOON_CHANGE", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_READY", "BLOCK_JOB_PENDING", "BLOCK_JOB_ERROR",
	"BLOCK_IO_ERROR", "BLOCK_WRITE_THRESHOLD", "WATCHDOG", "SUSPEND", "SUSPEND_DISK", "WAKEUP", "MEMORY_FAILURE",
	"MEMORY_DEVICE_SIZE_CHANGE", "VNC_CONNECTED", "VNC_INITIALIZED", "VNC_DISCONNECTED", "SPICE_CONNECTED", "SPICE_INITIALIZED",
	"SPICE_DISCONNECTED", "SPICE_MIGRATE_COMPLETED",
}

// details are the parts of QEMU's events that are understood.
type details struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Path   string `json:"path"`
	Status string `json:"status"`
	Reason string `json:"reason"`
	Action string `json:"action"`
	Error  string `json:"error"`
	Open   bool   `json:"open"`
	Guest  bool   `json:"guest"`
}

// onMonitor tells an event of QEMU, or keeps it for the event of libvirt that it
// explains and that follows it.
func (h *Host) onMonitor(d domain.Domain, e *libvirt.DomainQemuMonitorEvent) {
	if slices.Contains(twice, e.Event) {
		h.stats.MonitorSkipped.Add(1)
		return
	}
	var x details
	if len(e.Details) <= maxDetails {
		_ = json.Unmarshal([]byte(e.Details), &x) // what is not understood is told as it is
	}
	now := h.cfg.Now()
	switch e.Event {
	case "RESET", "SHUTDOWN":
		word := map[string]string{"RESET": "reboot", "SHUTDOWN": "shutdown"}[e.Event]
		t := told(word).says(x.Reason).text("guest", strconv.FormatBool(x.Guest)).text("qemu", e.Event)
		if old := h.causes.put(d.UUID, word, t.Hypervisor, now); old != nil { // nothing has followed it
			h.tell(h.notice(d, record.ClassVMChange, teller{old}))
		}
	case "VSERPORT_CHANGE":
		h.tell(h.notice(d, record.ClassVMChannel, told("port").device(x.ID).says(map[bool]string{true: "open", false: "closed"}[x.Open])))
	case "NIC_RX_FILTER_CHANGED":
		h.tell(h.notice(d, record.ClassVMInterface, told("receive-filter").device(x.Name).text("path", x.Path)))
	case "DUMP_COMPLETED":
		t := told("dump").says("completed").text("details", e.Details)
		if x.Error != "" {
			t.says("failed")
		}
		h.tell(h.notice(d, record.ClassVMJob, t))
	case "JOB_STATUS_CHANGE":
		if x.Status == "created" || x.Status == "concluded" || x.Status == "aborting" { // between them lies only its progress
			h.tell(h.notice(d, record.ClassVMJob, told("qemu-job").device(x.ID).says(x.Status)))
		}
	case "POWERDOWN":
		h.tell(h.notice(d, record.ClassVMChange, told("power-button")))
	case "GUEST_PANICKED", "GUEST_CRASHLOADED":
		h.tell(h.notice(d, record.ClassVMChange, told("panic").says(x.Action).text("qemu", e.Event).text("details", e.Details)))
	default:
		h.tell(h.notice(d, record.ClassVMChange, told("qemu-event").device(e.Event).says(strings.ToLower(x.Status)).text("details", e.Details)))
	}
}

// causes holds, for each domain, what QEMU said of an act of which libvirt's own
// event comes next. It is never waited for.
type causes map[causeKey]cause

type causeKey struct {
	id   domain.UUID
	word string
}

type cause struct {
	says *record.Hypervisor
	at   time.Time
}

// causeFor is how long an event may come behind its cause.
const causeFor = 5 * time.Second

// put keeps a cause and returns the one before it, if no event has taken it.
func (c causes) put(id domain.UUID, word string, says *record.Hypervisor, now time.Time) *record.Hypervisor {
	k := causeKey{id, word}
	old := c[k]
	c[k] = cause{says, now}
	return old.says
}

// take returns the cause of an event, or nil. libvirt may tell one reset several
// times: the first event takes it.
func (c causes) take(id domain.UUID, word string, now time.Time) *record.Hypervisor {
	k := causeKey{id, word}
	x, ok := c[k]
	if !ok || now.Sub(x.at) > causeFor {
		return nil // one that is too old is told when the next one comes, or forgotten with the run
	}
	delete(c, k)
	return x.says
}

func (c causes) forget(id domain.UUID) {
	delete(c, causeKey{id, "reboot"})
	delete(c, causeKey{id, "shutdown"})
}
