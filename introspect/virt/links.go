package virt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Interface is a network interface of a domain, in the running domain and in its
// persistent configuration. The JSON form is kept in the ledger.
type Interface struct {
	// Key tells the interfaces of a domain apart: the MAC address, and behind a #
	// which one it is where several have the same.
	Key    string `json:"key"`
	Alias  string `json:"alias,omitempty"`  // in the running domain
	Device string `json:"device,omitempty"` // tap on the host, while it runs
	Type   string `json:"type"`             // network, bridge, user, direct, hostdev, ...
	// Live and Config are libvirt's XML of it, "" where it has none.
	Live   string `json:"live,omitempty"`
	Config string `json:"config,omitempty"`
	// LiveLink and ConfigLink are up or down, "" where it has none.
	LiveLink   string `json:"live_link,omitempty"`
	ConfigLink string `json:"config_link,omitempty"`
}

// The states of a link.
const (
	LinkUp   = "up"
	LinkDown = "down"
)

// Down reports whether the link is down wherever the interface is.
func (n *Interface) Down() bool { return n.LiveLink != LinkUp && n.ConfigLink != LinkUp }

// Is reports whether the interface has a name: MAC address, alias or device.
func (n *Interface) Is(name string) bool {
	mac, _, _ := strings.Cut(n.Key, "#")
	return strings.EqualFold(mac, name) || name != "" && (n.Alias == name || n.Device == name)
}

// Interfaces reads the interfaces of a domain. It takes no job lock in libvirt.
func (h *Host) Interfaces(ctx context.Context, id domain.UUID) ([]Interface, error) {
	all, err := withDomain(ctx, h, id, true, interfaces)
	if err != nil {
		return nil, fmt.Errorf("read interfaces of domain %s: %w", id, err)
	}
	return all, nil
}

func interfaces(dom *libvirt.Domain) ([]Interface, error) {
	d, _, err := describe(dom)
	if err != nil {
		return nil, err
	}
	var all []Interface
	if d.State.Active() {
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return nil, err
		}
		if all, err = merge(nil, text, true); err != nil {
			return nil, err
		}
	}
	if d.Persistent {
		text, err := dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return nil, err
		}
		if all, err = merge(all, text, false); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// merge adds the interfaces of a domain's XML to those known.
func merge(all []Interface, text string, live bool) ([]Interface, error) {
	spans, err := elements(text, "devices/interface")
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for _, s := range spans {
		raw := text[s.from:s.to]
		var v struct {
			Type string `xml:"type,attr"`
			MAC  struct {
				Address string `xml:"address,attr"`
			} `xml:"mac"`
			Target struct {
				Dev string `xml:"dev,attr"`
			} `xml:"target"`
			Alias struct {
				Name string `xml:"name,attr"`
			} `xml:"alias"`
			Link struct {
				State string `xml:"state,attr"`
			} `xml:"link"`
		}
		if err := xml.Unmarshal([]byte(raw), &v); err != nil {
			return nil, fmt.Errorf("read interface XML: %w", err)
		}
		key := strings.ToLower(v.MAC.Address)
		if seen[key]++; seen[key] > 1 {
			key = fmt.Sprintf("%s#%d", key, seen[key])
		}
		i := slices.IndexFunc(all, func(n Interface) bool { return n.Key == key })
		if i < 0 {
			all, i = append(all, Interface{Key: key, Type: v.Type}), len(all)
		}
		link := LinkUp // also where it has no such element
		if v.Link.State == LinkDown {
			link = LinkDown
		}
		if live {
			all[i].Live, all[i].LiveLink, all[i].Alias, all[i].Device, all[i].Type = raw, link, v.Alias.Name, v.Target.Dev, v.Type
		} else {
			all[i].Config, all[i].ConfigLink = raw, link
		}
	}
	return all, nil
}

// pick returns the interfaces with the given keys; nil: all.
func pick(all []Interface, keys []string) []Interface {
	if keys == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(n Interface) bool { return !slices.Contains(keys, n.Key) })
}

// LinksDown sets the links of interfaces down, those with the given keys or all where
// keys is nil, in the running domain first and then in its persistent configuration.
// It goes on behind one that fails, and returns what is read back.
func (h *Host) LinksDown(ctx context.Context, id domain.UUID, keys []string) ([]Interface, error) {
	return h.links(ctx, id, "set links down", func(dom *libvirt.Domain, all []Interface) error {
		var err error
		for _, n := range pick(all, keys) {
			if n.LiveLink == LinkUp {
				err = errors.Join(err, n.update(dom, n.Live, libvirt.DOMAIN_DEVICE_MODIFY_LIVE, "link", "<link state='down'/>"))
			}
		}
		for _, n := range pick(all, keys) {
			if n.ConfigLink == LinkUp {
				err = errors.Join(err, n.update(dom, n.Config, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG, "link", "<link state='down'/>"))
			}
		}
		return err
	})
}

// links does something to the interfaces of a domain and reads them again. The error of
// what was done comes with what was read.
func (h *Host) links(ctx context.Context, id domain.UUID, what string, f func(*libvirt.Domain, []Interface) error) ([]Interface, error) {
	type result struct {
		all []Interface
		err error
	}
	r, err := withDomain(ctx, h, id, true, func(dom *libvirt.Domain) (r result, err error) {
		all, err := interfaces(dom)
		if err != nil {
			return r, err
		}
		r.err = f(dom, all)
		r.all, err = interfaces(dom)
		return r, err
	})
	if err == nil {
		err = classify(r.err)
	}
	if err != nil {
		return r.all, fmt.Errorf("%s of domain %s: %w", what, id, err)
	}
	return r.all, nil
}

// update replaces one child of the XML of an interface.
func (n *Interface) update(dom *libvirt.Domain, text string, how libvirt.DomainDeviceModifyFlags, name, with string) error {
	text, err := withChild(text, name, with)
	if err == nil {
		err = dom.UpdateDeviceFlags(text, how)
	}
	if err != nil {
		return fmt.Errorf("interface %s (%s): %w", n.Key, n.Type, err)
	}
	return nil
}

// RestoreLinks gives interfaces what they had when they were saved: the state of the
// link, the network, and the device itself where it was unplugged. All else about them
// stays as it is by now. An interface that its owner has removed meanwhile is left so.
func (h *Host) RestoreLinks(ctx context.Context, id domain.UUID, saved []Interface, mode string) ([]Interface, error) {
	return h.links(ctx, id, "restore interfaces", func(dom *libvirt.Domain, all []Interface) error {
		d, _, err := describe(dom)
		if err != nil {
			return err
		}
		for _, s := range saved {
			i := slices.IndexFunc(all, func(n Interface) bool { return n.Key == s.Key })
			var n Interface
			if i >= 0 {
				n = all[i]
			}
			if d.State.Active() {
				err = errors.Join(err, s.restore(dom, wasThere(s.Live, s.Config, n.Live), n.Live, mode, libvirt.DOMAIN_DEVICE_MODIFY_LIVE))
			}
			if d.Persistent {
				err = errors.Join(err, s.restore(dom, wasThere(s.Config, s.Live, n.Config), n.Config, mode, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG))
			}
		}
		return err
	})
}

// wasThere is what one side of an interface, live or persistent, was. Where it had no such side
// and has one now, that was made of the other, as it was when it was cut off: a domain that was off
// and has been started has links that are down, and must have again what its configuration said.
func wasThere(side, other, is string) string {
	if side == "" && is != "" {
		return other
	}
	return side
}

// The modes in which interfaces are cut off.
const (
	ModeLink    = "link_down"
	ModeUnplug  = "unplug"
	ModeIsolate = "isolate"
)

// restore brings one side of an interface, live or persistent, from what it is to what
// it was.
func (n *Interface) restore(dom *libvirt.Domain, was, is, mode string, how libvirt.DomainDeviceModifyFlags) error {
	if was == "" || was == is {
		return nil
	}
	if is == "" {
		if mode != ModeUnplug {
			return nil // its owner has taken it away
		}
		if err := dom.AttachDeviceFlags(was, how); err != nil {
			return fmt.Errorf("plug in interface %s again: %w", n.Key, err)
		}
		return nil
	}
	if mode == ModeIsolate {
		source, err := child(was, "source")
		if err != nil {
			return err
		}
		if is, err = withChild(is, "source", source); err != nil {
			return err
		}
		is = withType(is, interfaceType(was))
	}
	link, err := child(was, "link")
	if err != nil {
		return err
	}
	return n.update(dom, is, how, "link", link)
}

func interfaceType(raw string) string {
	var v struct {
		Type string `xml:"type,attr"`
	}
	if xml.Unmarshal([]byte(raw), &v) != nil {
		return ""
	}
	return v.Type
}

// withType replaces the type attribute of an interface element.
func withType(raw, typ string) string {
	end := strings.IndexByte(raw, '>')
	old := interfaceType(raw)
	if end < 0 || typ == "" || old == "" {
		return raw
	}
	head := strings.NewReplacer("type='"+old+"'", "type='"+typ+"'", `type="`+old+`"`, `type="`+typ+`"`).Replace(raw[:end])
	return head + raw[end:]
}

// Isolate moves interfaces to a libvirt network, in the running domain and in its
// persistent configuration. Interfaces of types which libvirt does not move so fail.
func (h *Host) Isolate(ctx context.Context, id domain.UUID, keys []string, network string) ([]Interface, error) {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(network)) // to a builder: never fails
	source := "<source network='" + b.String() + "'/>"
	return h.links(ctx, id, "move interfaces to the network "+network, func(dom *libvirt.Domain, all []Interface) error {
		var err error
		for _, n := range pick(all, keys) {
			if n.Live != "" && NetworkOf(n.Live) != network {
				err = errors.Join(err, n.update(dom, withType(n.Live, "network"), libvirt.DOMAIN_DEVICE_MODIFY_LIVE, "source", source))
			}
			if n.Config != "" && NetworkOf(n.Config) != network {
				err = errors.Join(err, n.update(dom, withType(n.Config, "network"), libvirt.DOMAIN_DEVICE_MODIFY_CONFIG, "source", source))
			}
		}
		return err
	})
}

// NetworkOf is the libvirt network that an interface element names, "" for none.
func NetworkOf(raw string) string {
	var v struct {
		Type   string `xml:"type,attr"`
		Source struct {
			Network string `xml:"network,attr"`
		} `xml:"source"`
	}
	if xml.Unmarshal([]byte(raw), &v) != nil || v.Type != "network" {
		return ""
	}
	return v.Source.Network
}

// unplugWait is how long a guest has to let go of a device.
const unplugWait = 10 * time.Second

// Unplug takes interfaces out of the running domain and of its configuration. Libvirt
// says yes as soon as the guest was asked: it is done when the device is gone, and an
// error where the guest keeps it.
func (h *Host) Unplug(ctx context.Context, id domain.UUID, keys []string) ([]Interface, error) {
	all, err := h.links(ctx, id, "unplug interfaces", func(dom *libvirt.Domain, all []Interface) error {
		var err error
		for _, n := range pick(all, keys) {
			if n.Live != "" {
				if derr := dom.DetachDeviceFlags(n.Live, libvirt.DOMAIN_DEVICE_MODIFY_LIVE); derr != nil {
					err = errors.Join(err, fmt.Errorf("interface %s (%s): %w", n.Key, n.Type, derr))
				}
			}
			if n.Config != "" {
				if derr := dom.DetachDeviceFlags(n.Config, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG); derr != nil {
					err = errors.Join(err, fmt.Errorf("interface %s (%s), persistent: %w", n.Key, n.Type, derr))
				}
			}
		}
		return err
	})
	until := h.cfg.Now().Add(unplugWait)
	for err == nil {
		kept := slices.ContainsFunc(pick(all, keys), func(n Interface) bool { return n.Live != "" })
		if !kept {
			return all, nil
		}
		if h.cfg.Now().After(until) {
			return all, fmt.Errorf("unplug interfaces of domain %s: the guest has not let go of them within %s: %w", id, unplugWait, record.ErrReject)
		}
		select {
		case <-ctx.Done():
			return all, fmt.Errorf("unplug interfaces of domain %s: %w: %w", id, record.ErrRetry, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
		all, err = h.Interfaces(ctx, id)
	}
	return all, err
}

// QuarantineSpace is the XML namespace of the mark that a quarantined domain bears.
const QuarantineSpace = "https://github.com/provostd/provost/quarantine/1"

// QuarantineMark reads the mark in the metadata of a domain, live and persistent; "" where there
// is none, or no such side.
func (h *Host) QuarantineMark(ctx context.Context, id domain.UUID) (live, config string, err error) {
	type marks struct{ live, config string }
	m, err := withDomain(ctx, h, id, true, func(dom *libvirt.Domain) (m marks, err error) {
		d, _, err := describe(dom)
		if err != nil {
			return m, err
		}
		if d.State.Active() {
			if m.live, err = quarantineMark(dom, libvirt.DOMAIN_AFFECT_LIVE); err != nil {
				return m, err
			}
		}
		if d.Persistent {
			m.config, err = quarantineMark(dom, libvirt.DOMAIN_AFFECT_CONFIG)
		}
		return m, err
	})
	if err != nil {
		return "", "", fmt.Errorf("read mark of domain %s: %w", id, err)
	}
	return m.live, m.config, nil
}

func quarantineMark(dom *libvirt.Domain, how libvirt.DomainModificationImpact) (string, error) {
	text, err := dom.GetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, QuarantineSpace, how)
	var le libvirt.Error
	if errors.As(err, &le) && le.Code == libvirt.ERR_NO_DOMAIN_METADATA {
		return "", nil
	}
	return text, err
}

// SetQuarantineMark puts a mark into the metadata of a domain, in the running domain and in its
// persistent configuration: it travels with migration. "" takes it away. What is there
// already is left alone.
func (h *Host) SetQuarantineMark(ctx context.Context, id domain.UUID, text string) error {
	_, err := withDomain(ctx, h, id, true, func(dom *libvirt.Domain) (struct{}, error) {
		d, _, err := describe(dom)
		if err != nil {
			return struct{}{}, err
		}
		set := func(how libvirt.DomainModificationImpact) error {
			is, err := quarantineMark(dom, how)
			if err != nil || (is == "") == (text == "") && (text == "" || sameMark(is, text)) {
				return err
			}
			return dom.SetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, text, "provost", QuarantineSpace, how)
		}
		if d.State.Active() {
			err = set(libvirt.DOMAIN_AFFECT_LIVE)
		}
		if d.Persistent {
			err = errors.Join(err, set(libvirt.DOMAIN_AFFECT_CONFIG))
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("mark domain %s: %w", id, err)
	}
	return nil
}

// sameMark compares marks without libvirt's way to write namespaces.
func sameMark(a, b string) bool {
	type m struct {
		XMLName xml.Name
		Attrs   []xml.Attr `xml:",any,attr"`
		Holds   []struct {
			Attrs []xml.Attr `xml:",any,attr"`
		} `xml:",any"`
	}
	norm := func(s string) string {
		var v m
		if xml.Unmarshal([]byte(s), &v) != nil {
			return "?" + s
		}
		out := v.XMLName.Local
		for _, x := range v.Attrs {
			if x.Name.Local != "xmlns" && x.Name.Space != "xmlns" {
				out += " " + x.Name.Local + "=" + x.Value
			}
		}
		for _, one := range v.Holds {
			for _, x := range one.Attrs {
				out += " " + x.Name.Local + "=" + x.Value
			}
		}
		return out
	}
	return norm(a) == norm(b)
}

// SetLinks has the saved form of an interface say what its links were.
func (n *Interface) SetLinks(live, config string) {
	set := func(raw, state string, link *string) string {
		if raw == "" || state != LinkUp && state != LinkDown {
			return raw
		}
		changed, err := withChild(raw, "link", "<link state='"+state+"'/>")
		if err != nil {
			return raw // it was read by the same reader before
		}
		*link = state
		return changed
	}
	n.Live, n.Config = set(n.Live, live, &n.LiveLink), set(n.Config, config, &n.ConfigLink)
}
