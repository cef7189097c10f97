package probe

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var networkKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_CONNECT: {record.ClassNetworkConnect, (*decoder).network},
	bpf.ProbeEventTypeEV_ACCEPT:  {record.ClassNetworkAccept, (*decoder).network},
	bpf.ProbeEventTypeEV_BIND:    {record.ClassNetworkBind, (*decoder).network},
	bpf.ProbeEventTypeEV_LISTEN:  {record.ClassNetworkListen, (*decoder).network},
	bpf.ProbeEventTypeEV_RAW:     {record.ClassNetworkRaw, (*decoder).network},
	bpf.ProbeEventTypeEV_SEND:    {record.ClassNetworkSend, (*decoder).network},
	bpf.ProbeEventTypeEV_FLOW:    {record.ClassNetworkFlow, (*decoder).network},
	bpf.ProbeEventTypeEV_DNS:     {record.ClassDNSQuery, (*decoder).dns}, // or the answer
	bpf.ProbeEventTypeEV_UNIX:    {record.ClassNetworkUnix, (*decoder).unix},
}

var socketTypes = map[uint16]string{
	unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw", unix.SOCK_RDM: "rdm",
	unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_DCCP: "dccp", unix.SOCK_PACKET: "packet",
}

// protocols are the names of IP's.
var protocols = map[uint16]string{
	unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_IGMP: "igmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp",
	unix.IPPROTO_DCCP: "dccp", unix.IPPROTO_GRE: "gre", unix.IPPROTO_ESP: "esp", unix.IPPROTO_AH: "ah",
	unix.IPPROTO_ICMPV6: "icmpv6", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_RAW: "raw",
	unix.IPPROTO_MPTCP: "mptcp",
}

// families are the names of those that are not IP.
var families = map[uint16]string{
	unix.AF_UNIX: "unix", unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_BLUETOOTH: "bluetooth", unix.AF_CAN: "can",
	unix.AF_TIPC: "tipc", unix.AF_SMC: "smc", unix.AF_KEY: "key", unix.AF_XDP: "xdp", unix.AF_RDS: "rds", unix.AF_PPPOX: "pppox",
}

func named(names map[uint16]string, what string, n uint16) string {
	if s, ok := names[n]; ok {
		return s
	}
	return what + strconv.Itoa(int(n))
}

func (d *decoder) network(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventNet](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	e.Network = networkOf(&x)
	d.name(e, &x.H)
	if bpf.ProbeEventType(x.H.Type) == bpf.ProbeEventTypeEV_SEND {
		d.pins.hold(x.H.Tgid, d.known(&x.H), x.H.Time) // what follows is told as a sum
	}
	return e, nil
}

func networkOf(x *bpf.ProbeEventNet) *record.Network {
	n := &record.Network{Type: socketTypes[uint16(x.Type)], Number: uint32(x.Protocol), SourcePort: x.Sport, DestinationPort: x.Dport,
		Direction: "egress", Backlog: x.Backlog, Cookie: x.Cookie, Packets: x.Packets, Bytes: x.Bytes, Namespace: x.Netns}
	switch {
	case x.Family == unix.AF_INET:
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[:4], x.Daddr[:4]
	case x.Family == unix.AF_INET6 && (mapped(x.Daddr) || mapped(x.Saddr)):
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[12:], x.Daddr[12:]
	case x.Family == unix.AF_INET6:
		n.Family, n.SourceIp, n.DestinationIp = 6, x.Saddr[:], x.Daddr[:]
	case x.Family == unix.AF_VSOCK:
		n.SourceCid, n.DestinationCid = binary.NativeEndian.Uint32(x.Saddr[:]), binary.NativeEndian.Uint32(x.Daddr[:])
	}
	if n.Family != 0 {
		n.Protocol = named(protocols, "ip-", x.Protocol)
	} else {
		n.Protocol = named(families, "family-", uint16(x.Family))
	}
	bits := bpf.ProbeNetBits(x.Bits)
	if bits&bpf.ProbeNetBitsNET_FAST_OPEN != 0 {
		n.Flags |= record.NetworkFastOpen
	}
	if bits&bpf.ProbeNetBitsNET_FIRST != 0 {
		n.Flags |= record.NetworkFirst
	}
	switch bpf.ProbeEventType(x.H.Type) {
	case bpf.ProbeEventTypeEV_BIND, bpf.ProbeEventTypeEV_LISTEN:
		n.Direction, n.DestinationIp, n.DestinationPort, n.DestinationCid = "", nil, 0, 0
	case bpf.ProbeEventTypeEV_RAW: // only the kind of socket is known yet
		n.Direction, n.SourceIp, n.DestinationIp = "", nil, nil
	}
	if bits&bpf.ProbeNetBitsNET_INGRESS != 0 {
		// The source of a connection is who began it.
		n.Direction = "ingress"
		n.SourceIp, n.DestinationIp = n.DestinationIp, n.SourceIp
		n.SourcePort, n.DestinationPort = n.DestinationPort, n.SourcePort
		n.SourceCid, n.DestinationCid = n.DestinationCid, n.SourceCid
	}
	return n
}

// name tells what the destination is called.
func (d *decoder) name(e *record.Event, h *bpf.ProbeEventHead) {
	if n := e.Network; n.Direction == "egress" {
		n.Name = d.names.name(identity{h.Tgid, h.Start}, n.Namespace, n.DestinationIp, h.Time)
	}
}

// dns tells of a question to a server or of its answer, and takes note of the
// latter's addresses.
func (d *decoder) dns(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventDns](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventDns](b)
	data := t.next(x.DataLen)
	if t.err != nil {
		return nil, t.err
	}
	n := &record.Network{Family: 4, Protocol: "udp", Number: unix.IPPROTO_UDP, Type: "dgram", DestinationIp: x.Server[:4], DestinationPort: 53,
		SourcePort: uint32(x.Port), Direction: "egress", Cookie: x.Cookie, Namespace: x.Netns, Bytes: uint64(x.DataLen)}
	if x.Family == unix.AF_INET6 {
		n.Family, n.DestinationIp = 6, x.Server[:]
	}
	// Whoever sent it last through the socket: it may be gone by now.
	p := d.then(x.H.Tgid, x.H.Start, x.H.Time)
	e := &record.Event{Process: p.subject(x.H.Tid, x.H.Euid, x.H.Mntns), Network: n}
	e.Process.ContainerId = d.groups.find(p.cgroup).container
	p.kin(e)
	if x.Answer != 0 {
		d.class = record.ClassDNSAnswer
		n.Direction = "ingress"
		n.SourceIp, n.SourcePort, n.DestinationIp, n.DestinationPort = n.DestinationIp, n.DestinationPort, nil, n.SourcePort
	}
	m, err := parseDNS(data)
	if err != nil || m.response != (x.Answer != 0) {
		// Anyone may send anything to that port: it is told as what it is.
		e.Dns = &record.DNS{Answer: x.Answer != 0}
		e.Reason = "malformed"
		return e, nil
	}
	e.Dns = &record.DNS{Question: []byte(m.question), Type: uint32(m.qtype), Code: uint32(m.code), Answer: m.response, Id: uint32(m.id)}
	if !m.response {
		d.asked.ask(&x, &m)
		return e, nil
	}
	if !d.asked.answers(&x, &m) {
		// What it says is nobody's answer: it names nothing.
		e.Reason = "not asked"
		return e, nil
	}
	e.Dns.Addresses = m.addresses
	for _, name := range m.names {
		e.Dns.Names = append(e.Dns.Names, []byte(name))
	}
	e.Dns.Truncated = m.cut || bpf.ProbeEventFlag(x.H.Flags)&bpf.ProbeEventFlagFL_ARGS_TRUNC != 0
	d.names.learn(identity{x.H.Tgid, x.H.Start}, x.Netns, &m, x.H.Time, resolves(e.Process, x.H.Euid))
	return e, nil
}

// mapped reports whether a is an IPv4 address in IPv6's clothes.
func mapped(a [16]uint8) bool {
	return [12]uint8(a[:12]) == [12]uint8{10: 0xff, 11: 0xff}
}

// unix tells of a connection to a unix socket: the address has every byte that
// the process passed. A path has none after its NUL.
func (d *decoder) unix(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventUnix](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventUnix](b)
	name := t.next(x.NameLen)
	if t.err != nil {
		return nil, t.err
	}
	if len(name) > 0 && name[0] != 0 {
		name = cstring(name)
	}
	e := d.actor(&x.H)
	e.Network = &record.Network{Protocol: "unix", Type: socketTypes[x.Type], Path: name, Direction: "egress"}
	return e, nil
}
