package virt

import (
	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
)

// registerSurroundings asks for the events of what domains use. Not every
// libvirt has networks, storage and secrets in the daemon that serves domains: what
// cannot be had is named in the coverage.
func (h *Host) registerSurroundings(conn *libvirt.Connect, other otherAdder) {
	id, err := conn.NetworkEventLifecycleRegister(nil, func(_ *libvirt.Connect, n *libvirt.Network, e *libvirt.NetworkEventLifecycle) {
		h.guard(func() {
			name, _ := n.GetName()
			uuid, _ := n.GetUUIDString()
			h.onSurroundings(record.ClassHostNetwork, told("network").device(name).status(networkEvents, int(e.Event)).
				number("event", int(e.Event)).number("detail", e.Detail).text("uuid", uuid))
		})
	})
	other("network", conn.NetworkEventDeregister, id, err)
	id, err = conn.StoragePoolEventLifecycleRegister(nil, func(_ *libvirt.Connect, p *libvirt.StoragePool, e *libvirt.StoragePoolEventLifecycle) {
		h.guard(func() {
			name, _ := p.GetName()
			uuid, _ := p.GetUUIDString()
			h.onSurroundings(record.ClassHostPool, told("pool").device(name).status(poolEvents, int(e.Event)).
				number("event", int(e.Event)).number("detail", e.Detail).text("uuid", uuid))
		})
	})
	other("pool", conn.StoragePoolEventDeregister, id, err)
	id, err = conn.SecretEventLifecycleRegister(nil, func(_ *libvirt.Connect, s *libvirt.Secret, e *libvirt.SecretEventLifecycle) {
		h.guard(func() { h.onSecret(s, wordOf(secretEvents, int(e.Event))) })
	})
	other("secret", conn.SecretEventDeregister, id, err)
	id, err = conn.SecretEventValueChangedRegister(nil, func(_ *libvirt.Connect, s *libvirt.Secret) {
		h.guard(func() { h.onSecret(s, "value-changed") })
	})
	other("secret-value", conn.SecretEventDeregister, id, err)
}

// onSecret names a secret by what it is for. Its value is never asked for.
func (h *Host) onSecret(s *libvirt.Secret, what string) {
	uuid, _ := s.GetUUIDString()
	usage, _ := s.GetUsageID()
	h.onSurroundings(record.ClassHostSecret, told("secret").device(uuid).says(what).text("usage", usage))
}

func (h *Host) onSurroundings(class record.Class, t teller) {
	h.queue.put(pending{obs: Observation{Kind: KindHost, Type: class.String(), Word: t.Word, Reason: t.Status, Event: -1, Detail: -1,
		Time: h.cfg.Now(), Hypervisor: t.Hypervisor}})
}
