package virt

import (
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/introspect/domain"
)

// notices is a host that hears events without a libvirt.
func notices(t *testing.T) (*Host, *time.Time) {
	t.Helper()
	now := time.Unix(1000, 0)
	h, err := New(Config{Sink: newCollector().sink, RunDir: t.TempDir(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return h, &now
}

func (h *Host) taken() []Observation {
	h.queue.mu.Lock()
	defer h.queue.mu.Unlock()
	var all []Observation
	for _, p := range h.queue.items {
		all = append(all, p.obs)
	}
	h.queue.items = nil
	return all
}

// TestFloodIsCounted: a guest that opens and closes a port for ever costs a
// bounded number of entries, and every one that is not told is counted in one that is (I4, I8).
func TestFloodIsCounted(t *testing.T) {
	h, now := notices(t)
	guest, other := domain.Domain{UUID: domain.UUID{1}}, domain.Domain{UUID: domain.UUID{2}}
	port := &libvirt.DomainQemuMonitorEvent{Event: "VSERPORT_CHANGE", Details: `{"open":true,"id":"channel1"}`}
	const flood = 10000
	for range flood {
		h.onMonitor(guest, port)
	}
	h.onMonitor(other, port)
	var alone int
	var told, counted uint64
	count := func() {
		for _, o := range h.taken() {
			if o.Domain.UUID == other.UUID {
				alone++
				continue
			}
			counted += o.Hypervisor.Repeats
			if o.Hypervisor.Status != "counted" {
				told++
			}
		}
	}
	count()
	if told != limitBurst || alone != 1 {
		t.Errorf("%d told of the flood and %d of the other domain, want %d and 1", told, alone, limitBurst)
	}
	*now = now.Add(limitEvery)
	h.onMonitor(guest, port)
	count()
	if told != limitBurst+1 || told+counted != flood+1 {
		t.Errorf("%d told and %d counted of %d", told, counted, flood+1)
	}
	for range 5 {
		h.onMonitor(guest, port)
	}
	h.limits.due(now.Add(time.Second), h.repeated)
	count()
	if told+counted != flood+1 {
		t.Errorf("counts were told too early: %d and %d", told, counted)
	}
	h.limits.due(now.Add(time.Minute), h.repeated)
	count()
	for range 3 {
		h.onMonitor(guest, port)
	}
	h.limits.drop(guest.UUID, h.repeated)
	count()
	if told+counted != flood+1+5+3 {
		t.Errorf("%d told and %d counted of %d", told, counted, flood+1+5+3)
	}
	if len(h.limits.all) != 1 {
		t.Errorf("%d buckets are kept, want that of the other domain", len(h.limits.all))
	}
}

// TestCauseOfReset: what QEMU says of a reset stands in libvirt's event behind
// it, once; what no event follows is told by itself.
func TestCauseOfReset(t *testing.T) {
	h, now := notices(t)
	d := domain.Domain{UUID: domain.UUID{1}}
	reset := &libvirt.DomainQemuMonitorEvent{Event: "RESET", Details: `{"guest":true,"reason":"guest-reset"}`}
	h.onMonitor(d, reset)
	if all := h.taken(); len(all) != 0 {
		t.Fatalf("a reset was told before libvirt's event: %+v", all)
	}
	c := h.causes.take(d.UUID, "reboot", *now)
	if c == nil || c.Status != "guest-reset" || !strings.Contains(strings.Join(c.Numbers, " "), "guest=true") {
		t.Fatalf("cause of the reset: %+v", c)
	}
	if c := h.causes.take(d.UUID, "reboot", *now); c != nil {
		t.Errorf("one cause was given twice: %+v", c)
	}
	h.onMonitor(d, reset)
	if c := h.causes.take(d.UUID, "reboot", now.Add(causeFor+time.Second)); c != nil {
		t.Errorf("a cause of long ago was given to another reset: %+v", c)
	}
	h.onMonitor(d, reset)
	if all := h.taken(); len(all) != 1 || all[0].Type != "vm.change" || all[0].Hypervisor.Status != "guest-reset" {
		t.Errorf("a reset that no event followed: %+v", all)
	}
	h.causes.forget(d.UUID)
	if len(h.causes) != 0 {
		t.Errorf("causes are kept: %v", h.causes)
	}
}

// TestMonitorEvents: what QEMU says becomes bounded facts, whatever it says.
func TestMonitorEvents(t *testing.T) {
	for _, tc := range []struct{ event, details, typ, word, device, status string }{
		{"VSERPORT_CHANGE", `{"open":false,"id":"channel0"}`, "vm.channel", "port", "channel0", "closed"},
		{"NIC_RX_FILTER_CHANGED", `{"name":"net0","path":"/machine/x"}`, "vm.interface", "receive-filter", "net0", ""},
		{"DUMP_COMPLETED", `{"result":{"total":1,"status":"completed","completed":1}}`, "vm.job", "dump", "", "completed"},
		{"DUMP_COMPLETED", `{"result":{"status":"failed"},"error":"no space"}`, "vm.job", "dump", "", "failed"},
		{"JOB_STATUS_CHANGE", `{"status":"concluded","id":"create-libvirt-3-format"}`, "vm.job", "qemu-job", "create-libvirt-3-format", "concluded"},
		{"POWERDOWN", ``, "vm.change", "power-button", "", ""},
		{"GUEST_PANICKED", `{"action":"pause"}`, "vm.change", "panic", "", "pause"},
		{"SOMETHING_NEW", `{"status":"X"}`, "vm.change", "qemu-event", "SOMETHING_NEW", "x"},
		{"VSERPORT_CHANGE", `[`, "vm.channel", "port", "", "closed"},
		{strings.Repeat("A", 5000), strings.Repeat("[", 1<<20), "vm.change", "qemu-event", strings.Repeat("A", maxText) + "...", ""},
	} {
		h, _ := notices(t)
		h.onMonitor(domain.Domain{UUID: domain.UUID{9}}, &libvirt.DomainQemuMonitorEvent{Event: tc.event, Details: tc.details})
		all := h.taken()
		if len(all) != 1 {
			t.Errorf("%.20s made %d observations", tc.event, len(all))
			continue
		}
		o := all[0]
		if o.Type != tc.typ || o.Word != tc.word || o.Hypervisor.Device != tc.device || o.Hypervisor.Status != tc.status {
			t.Errorf("%.20s: %s %s %.30q %q, want %s %s %.30q %q", tc.event, o.Type, o.Word, o.Hypervisor.Device, o.Hypervisor.Status, tc.typ, tc.word, tc.device, tc.status)
		}
		if n := o.Hypervisor.SizeVT(); n > 4*maxText {
			t.Errorf("%.20s makes %d bytes", tc.event, n)
		}
	}
	h, _ := notices(t)
	for _, e := range twice {
		h.onMonitor(domain.Domain{UUID: domain.UUID{9}}, &libvirt.DomainQemuMonitorEvent{Event: e})
	}
	if all := h.taken(); len(all) != 0 || h.Stats().MonitorSkipped.Load() != uint64(len(twice)) {
		t.Errorf("what libvirt tells itself was told twice: %+v", all)
	}
}

func TestGraphicsNamesWhoLooked(t *testing.T) {
	e := graphics(&libvirt.DomainEventGraphics{Phase: 0, AuthScheme: "vnc", Remote: libvirt.DomainEventGraphicsAddress{Node: "2001:db8::7", Service: "4711"},
		Subject: []libvirt.DomainEventGraphicsSubjectIdentity{{Type: "sasl", Name: "eve"}}})
	if e.Address != "[2001:db8::7]:4711" || e.Status != "connect" || !strings.Contains(strings.Join(e.Numbers, " "), "auth=vnc identity-sasl=eve") {
		t.Errorf("%+v", e.Hypervisor)
	}
}
