package virt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// ChannelName names the product's virtio-serial port, in the domain's XML and in the guest. It is
// part of the interface between host and guest and must not change. It is short because libvirt
// builds a socket path from it that has to fit into 107 bytes.
const ChannelName = "org.provost.0"

// EnrollResult says what Enroll or Unenroll found and did.
type EnrollResult struct {
	Domain domain.Domain `json:"domain"`
	// Config and Live say whether the persistent configuration and the running domain were changed.
	Config bool `json:"config_changed"`
	Live   bool `json:"live_changed"`
	// Controller says that a virtio-serial controller had to be plugged in first.
	Controller bool `json:"controller_added"`
	// ChannelPath is the channel's socket in the running domain, empty when it does not run.
	ChannelPath string `json:"channel_path,omitempty"`
}

// Enroll adds the product's channel to a domain, named by UUID or else by name: to its persistent
// configuration and, when it runs, to the running domain. What is there already is left alone, so
// it may be repeated. When the second step fails the first one stays, and the error says so.
func (h *Host) Enroll(ctx context.Context, nameOrUUID string) (EnrollResult, error) {
	r, err := h.withNamed(ctx, nameOrUUID, enroll)
	if err != nil {
		return r, fmt.Errorf("enroll domain %q: %w", nameOrUUID, err)
	}
	return r, nil
}

// Unenroll takes the channel away again, from the running domain and from its configuration. A
// controller which Enroll has added stays: others may use it by now.
func (h *Host) Unenroll(ctx context.Context, nameOrUUID string) (EnrollResult, error) {
	r, err := h.withNamed(ctx, nameOrUUID, unenroll)
	if err != nil {
		return r, fmt.Errorf("unenroll domain %q: %w", nameOrUUID, err)
	}
	return r, nil
}

// Find looks a domain up by UUID or else by name.
func (h *Host) Find(ctx context.Context, nameOrUUID string) (domain.Domain, error) {
	r, err := h.withNamed(ctx, nameOrUUID, func(dom *libvirt.Domain) (EnrollResult, error) {
		d, _, err := describe(dom)
		return EnrollResult{Domain: d}, err
	})
	if err != nil {
		return domain.Domain{}, fmt.Errorf("find domain %q: %w", nameOrUUID, err)
	}
	return r.Domain, nil
}

func (h *Host) withNamed(ctx context.Context, nameOrUUID string, f func(*libvirt.Domain) (EnrollResult, error)) (EnrollResult, error) {
	return withConn(ctx, h, domain.UUID{}, false, func(conn *libvirt.Connect) (EnrollResult, error) {
		var dom *libvirt.Domain
		var err error
		if id, perr := domain.ParseUUID(nameOrUUID); perr == nil {
			dom, err = conn.LookupDomainByUUID(id[:])
		} else {
			dom, err = conn.LookupDomainByName(nameOrUUID)
		}
		if err != nil {
			return EnrollResult{}, err
		}
		defer dom.Free()
		return f(dom)
	})
}

func enroll(dom *libvirt.Domain) (r EnrollResult, err error) {
	if r.Domain, _, err = describe(dom); err != nil {
		return r, err
	}
	text, err := channelXML(&libvirtxml.DomainChannel{
		Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
		Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: ChannelName}}})
	if err != nil {
		return r, err
	}
	if r.Domain.Persistent {
		def, err := definition(dom, libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return r, err
		}
		if ch := findChannel(def); ch == nil {
			if err := dom.AttachDeviceFlags(text, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG); err != nil {
				return r, fmt.Errorf("add channel to the persistent configuration: %w", err)
			}
			r.Config = true
		} else if ch.Source == nil || ch.Source.UNIX == nil {
			return r, wrongChannel("persistent")
		}
	}
	if !r.Domain.State.Active() {
		return r, nil
	}
	live, err := definition(dom, 0)
	if err != nil {
		return r, err
	}
	if findChannel(live) == nil {
		if !hasController(live) {
			if err := dom.AttachDeviceFlags("<controller type='virtio-serial'/>", libvirt.DOMAIN_DEVICE_MODIFY_LIVE); err != nil {
				return r, fmt.Errorf("plug in a virtio-serial controller%s: %w", halfDone(r), err)
			}
			r.Controller = true
		}
		if err := dom.AttachDeviceFlags(text, libvirt.DOMAIN_DEVICE_MODIFY_LIVE); err != nil {
			return r, fmt.Errorf("plug in channel%s: %w", halfDone(r), err)
		}
		r.Live = true
		if live, err = definition(dom, 0); err != nil {
			return r, err
		}
	}
	ch := findChannel(live)
	if ch == nil || ch.Source == nil || ch.Source.UNIX == nil {
		return r, wrongChannel("live")
	}
	r.ChannelPath = channelPath(ch)
	return r, nil
}

func halfDone(r EnrollResult) string {
	if r.Config {
		return " (the persistent configuration has it now; it takes effect at the next start)"
	}
	return ""
}

func wrongChannel(which string) error {
	return fmt.Errorf("%w: the %s configuration has a channel %s that is not of type unix; remove it and enroll again",
		record.ErrReject, which, ChannelName)
}

func unenroll(dom *libvirt.Domain) (r EnrollResult, err error) {
	if r.Domain, _, err = describe(dom); err != nil {
		return r, err
	}
	remove := func(flags libvirt.DomainXMLFlags, how libvirt.DomainDeviceModifyFlags) (bool, error) {
		def, err := definition(dom, flags)
		if err != nil {
			return false, err
		}
		ch := findChannel(def)
		if ch == nil {
			return false, nil
		}
		text, err := channelXML(ch) // libvirt compares the source too, so the XML found is sent back
		if err != nil {
			return false, err
		}
		return true, dom.DetachDeviceFlags(text, how)
	}
	if r.Domain.State.Active() {
		if r.Live, err = remove(0, libvirt.DOMAIN_DEVICE_MODIFY_LIVE); err != nil {
			return r, fmt.Errorf("unplug channel: %w", err)
		}
		if r.Live {
			if err := waitUnplugged(dom); err != nil {
				return r, err
			}
		}
	}
	if r.Domain.Persistent {
		if r.Config, err = remove(libvirt.DOMAIN_XML_INACTIVE, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG); err != nil {
			return r, fmt.Errorf("remove channel from the persistent configuration: %w", err)
		}
	}
	return r, nil
}

// waitUnplugged makes sure that the channel is really gone: libvirt reports success for an unplug
// that the guest has only been asked for.
func waitUnplugged(dom *libvirt.Domain) error {
	for range 50 {
		def, err := definition(dom, 0)
		if err != nil {
			return err
		}
		if findChannel(def) == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) // runs in a call with a deadline of its own
	}
	return fmt.Errorf("unplug channel: %w: the guest has not let go of it within 5 s", record.ErrRetry)
}

func definition(dom *libvirt.Domain, flags libvirt.DomainXMLFlags) (*libvirtxml.Domain, error) {
	text, err := dom.GetXMLDesc(flags)
	if err != nil {
		return nil, err
	}
	var def libvirtxml.Domain
	if err := def.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read domain XML: %w", err)
	}
	if def.Devices == nil {
		return nil, errors.New("read domain XML: no devices element")
	}
	return &def, nil
}

// findChannel is the product's channel in a definition, nil if there is none.
func findChannel(def *libvirtxml.Domain) *libvirtxml.DomainChannel {
	if def.Devices == nil {
		return nil
	}
	for i := range def.Devices.Channels {
		ch := &def.Devices.Channels[i]
		if ch.Target != nil && ch.Target.VirtIO != nil && ch.Target.VirtIO.Name == ChannelName {
			return ch
		}
	}
	return nil
}

func hasController(def *libvirtxml.Domain) bool {
	for _, c := range def.Devices.Controllers {
		if c.Type == "virtio-serial" {
			return true
		}
	}
	return false
}

// channelPath is the socket of a channel. It changes with each start, so it is always read.
func channelPath(ch *libvirtxml.DomainChannel) string {
	if ch.Source == nil || ch.Source.UNIX == nil {
		return ""
	}
	return ch.Source.UNIX.Path
}

func channelXML(ch *libvirtxml.DomainChannel) (string, error) {
	text, err := ch.Marshal()
	if err != nil {
		return "", fmt.Errorf("write channel XML: %w", err)
	}
	return text, nil
}
