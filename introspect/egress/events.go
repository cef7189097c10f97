package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/cilium/ebpf/ringbuf"

	bpfegress "github.com/provostd/provost/bpf/egress"
)

// Kind says what an event tells.
type Kind uint8

// The kinds of events.
const (
	Denied  = Kind(bpfegress.EgressEventKindEVENT_DENIED)
	Audited = Kind(bpfegress.EgressEventKindEVENT_AUDITED)
	Out     = Kind(bpfegress.EgressEventKindEVENT_OUT)
	In      = Kind(bpfegress.EgressEventKindEVENT_IN)
	answer  = Kind(bpfegress.EgressEventKindEVENT_DNS)
)

// Reason is why a frame was denied.
type Reason uint8

var reasons = [bpfegress.EgressReasonREASONS]string{
	"", "list", "cut", "runt", "vlan", "source_mac", "ethertype", "arp", "header", "options", "extension",
	"routing", "transport", "fragment", "mapped", "resolver", "table", "checksum",
}

// String is one word.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Flow is who speaks with whom, seen from the guest.
type Flow struct {
	Family                uint8 // 4, 6, or 0 where it is not IP
	Protocol              uint8
	Local, Remote         netip.Addr
	LocalPort, RemotePort uint16
}

// Event is something that a tap tells.
type Event struct {
	Time       uint64 // on the boot clock
	Kind       Kind
	Reason     Reason
	Flow       Flow
	Ethertype  uint16
	VLAN       [2]uint16
	Source     net.HardwareAddr
	Destin     net.HardwareAddr
	TCPFlags   uint8
	Fragment   uint8
	Outbound   bool
	Length     uint32
	Rule       uint32
	PolicyBits uint32
	Prefix     netip.Prefix // what decided; invalid where none did
	Policies   []string     // those that deny it
	dns        []byte
}

// read starts the reader of a tap's events. The caller holds mu.
func (g *Guard) read(t *tap) error {
	r, err := ringbuf.NewReader(t.objects.maps[bpfegress.EgressMapEvents])
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	t.events = r
	name := t.dev.Name
	g.readers.Go(func() {
		for {
			rec, err := r.Read()
			if err != nil {
				if !errors.Is(err, ringbuf.ErrClosed) {
					g.cfg.Log.Error("events of a tap are not read any more", "device", name, "error", err)
				}
				return
			}
			g.told(t, rec.RawSample)
		}
	})
	return nil
}

func (g *Guard) told(t *tap, raw []byte) {
	e, err := parseEvent(raw)
	if err != nil {
		g.cfg.Log.Error("an event of the kernel's own program cannot be read", "error", err)
		return
	}
	g.mu.Lock()
	dev, table := t.dev, t.table
	g.mu.Unlock()
	if e.Reason == Reason(bpfegress.EgressReasonREASON_LIST) && table != nil {
		e.Prefix, _ = table.Rule(e.Rule)
		e.Policies = table.Policies(e.PolicyBits)
	}
	g.cfg.Sink(dev, e)
}

func parseEvent(raw []byte) (*Event, error) {
	var h bpfegress.EgressEvent
	r := bytes.NewReader(raw)
	if err := binary.Read(r, binary.NativeEndian, &h); err != nil {
		return nil, fmt.Errorf("read event of %d bytes: %w", len(raw), err)
	}
	e := &Event{
		Time: h.Time, Kind: Kind(h.Kind), Reason: Reason(h.Reason), Flow: flowOf(&h.Flow, h.Family), Ethertype: h.Ethertype, VLAN: h.Vlan,
		Source: bytes.Clone(h.SourceMac[:]), Destin: bytes.Clone(h.DestinationMac[:]), TCPFlags: h.TcpFlags, Fragment: h.Fragment,
		Outbound: h.Outbound != 0, Length: h.Length, Rule: h.Rule, PolicyBits: h.Policies,
	}
	if e.Kind == answer {
		n := binary.Size(h)
		if len(raw) < n+4 {
			return nil, fmt.Errorf("read event: an answer of %d bytes is cut short", len(raw))
		}
		size := binary.NativeEndian.Uint32(raw[n:])
		if uint64(size) > uint64(len(raw)-n-4) {
			return nil, fmt.Errorf("read event: an answer says it has %d bytes of %d", size, len(raw)-n-4)
		}
		e.dns = bytes.Clone(raw[n+4 : n+4+int(size)])
	}
	return e, nil
}

func flowOf(f *bpfegress.EgressFlow, family uint8) Flow {
	return Flow{Family: family, Protocol: f.Protocol, Local: netip.AddrFrom16(f.Local).Unmap(), Remote: netip.AddrFrom16(f.Remote).Unmap(),
		LocalPort: f.LocalPort, RemotePort: f.RemotePort}
}
