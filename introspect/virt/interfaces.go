package virt

import (
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// NIC is one network interface of a domain, as packet filters see it.
type NIC struct {
	Kind string // libvirt's word: network, bridge, user, direct, hostdev, ...
	// Device is the tap on the host, where the domain runs and the kind has one.
	Device string
	MAC    string
}

// Tapped reports whether the kind has a tap device on the host, through which all
// that it sends passes. Of a network it depends on how that one forwards.
func (i *NIC) Tapped() bool {
	return (i.Kind == "network" || i.Kind == "bridge" || i.Kind == "ethernet") && i.Device != ""
}

// Named is what a domain's XML says of it.
type Named struct {
	UUID, Name string
	Interfaces []NIC
}

// ReadXML reads what packet filters need of a domain's XML. The device of a macvtap
// interface is no tap; it is left out.
func ReadXML(text string) (*Named, error) {
	var def libvirtxml.Domain
	if err := def.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read domain XML: %w", err)
	}
	n := &Named{UUID: def.UUID, Name: def.Name}
	if def.Devices == nil {
		return n, nil
	}
	for _, x := range def.Devices.Interfaces {
		i := NIC{Kind: kindOf(x.Source)}
		if x.Target != nil {
			i.Device = x.Target.Dev
		}
		if x.MAC != nil {
			i.MAC = x.MAC.Address
		}
		// A network that forwards by macvtap or passes devices through has that kind
		// in the XML of the run.
		if i.Kind == "direct" || i.Kind == "hostdev" {
			i.Device = ""
		}
		n.Interfaces = append(n.Interfaces, i)
	}
	return n, nil
}

func kindOf(s *libvirtxml.DomainInterfaceSource) string {
	switch {
	case s == nil:
		return "none"
	case s.Network != nil:
		return "network"
	case s.Bridge != nil:
		return "bridge"
	case s.Ethernet != nil:
		return "ethernet"
	case s.User != nil:
		return "user"
	case s.Direct != nil:
		return "direct"
	case s.Hostdev != nil:
		return "hostdev"
	case s.VHostUser != nil:
		return "vhostuser"
	case s.VDPA != nil:
		return "vdpa"
	}
	return "other"
}
