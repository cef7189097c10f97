package egress

import (
	"encoding/binary"
	"net/netip"
)

// Frames as a guest makes them. Checksums are left out: nothing between looks.

var (
	guestMAC  = []byte{0x52, 0x54, 0, 0, 0, 1}
	otherMAC  = []byte{0x52, 0x54, 0, 0, 0, 2}
	guest4    = netip.MustParseAddr("10.0.0.2")
	guest6    = netip.MustParseAddr("2001:db8:1::2")
	allowed4  = netip.MustParseAddr("198.51.100.7")
	allowed6  = netip.MustParseAddr("2001:db8:10::7")
	denied4   = netip.MustParseAddr("192.0.2.66")
	denied6   = netip.MustParseAddr("2001:db8:66::1")
	internal4 = netip.MustParseAddr("10.0.0.9")
)

func ethernet(source []byte, kind uint16, payload []byte) []byte {
	f := append([]byte{0x52, 0x54, 0, 0, 0, 9}, source...)
	f = binary.BigEndian.AppendUint16(f, kind)
	return append(f, payload...)
}

func vlan(kind, tag uint16, frame []byte) []byte {
	f := append([]byte{}, frame[:12]...)
	f = binary.BigEndian.AppendUint16(f, kind)
	f = binary.BigEndian.AppendUint16(f, tag)
	return append(f, frame[12:]...)
}

func l4(protocol uint8, sport, dport uint16, flags uint8) []byte {
	switch protocol {
	case protocolTCP:
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, sport)
		binary.BigEndian.PutUint16(b[2:], dport)
		b[12], b[13] = 5<<4, flags
		return b
	case protocolICMP, protocolICMPv6:
		b := make([]byte, 32)
		b[0] = uint8(sport)
		binary.BigEndian.PutUint16(b[4:], dport)
		return b
	}
	b := make([]byte, 32)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], 32)
	return b
}

// packet4 is an IPv4 packet; off holds flags and offset as they stand in the header.
func packet4(from, to netip.Addr, protocol uint8, id, off uint16, options, payload []byte) []byte {
	b := make([]byte, 20)
	b[0] = 4<<4 | uint8(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], off)
	b[8], b[9] = 64, protocol
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	return append(append(b, options...), payload...)
}

func packet6(from, to netip.Addr, next, hops uint8, payload []byte) []byte {
	b := make([]byte, 40)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, hops
	f, t := from.As16(), to.As16()
	copy(b[8:], f[:])
	copy(b[24:], t[:])
	return append(b, payload...)
}

// extension is a header of eight bytes before payload.
func extension(next uint8, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

func fragment6(next uint8, off uint16, id uint32, payload []byte) []byte {
	b := []byte{next, 0}
	b = binary.BigEndian.AppendUint16(b, off)
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

func tcp4(to netip.Addr, port uint16) []byte {
	return ethernet(guestMAC, 0x0800, packet4(guest4, to, protocolTCP, 1, 0, nil, l4(protocolTCP, 40000, port, 2)))
}

func udp4(to netip.Addr, port uint16) []byte {
	return ethernet(guestMAC, 0x0800, packet4(guest4, to, protocolUDP, 1, 0, nil, l4(protocolUDP, 40000, port, 0)))
}

func tcp6(to netip.Addr, port uint16) []byte {
	return ethernet(guestMAC, 0x86dd, packet6(guest6, to, protocolTCP, 64, l4(protocolTCP, 40000, port, 2)))
}

func ip4(to netip.Addr, protocol uint8, payload []byte) []byte {
	return ethernet(guestMAC, 0x0800, packet4(guest4, to, protocol, 1, 0, nil, payload))
}

func part4(to netip.Addr, protocol uint8, id, off uint16, payload []byte) []byte {
	return ethernet(guestMAC, 0x0800, packet4(guest4, to, protocol, id, off, nil, payload))
}

func ip6(to netip.Addr, next uint8, payload []byte) []byte {
	return ethernet(guestMAC, 0x86dd, packet6(guest6, to, next, 64, payload))
}

func arp(from, to netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(b, guestMAC...)
	b = append(b, from.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	b = append(b, to.AsSlice()...)
	return ethernet(guestMAC, 0x0806, b)
}

// ndp is a message of neighbour discovery about a target.
func ndp(kind, hops uint8, to, target netip.Addr) []byte {
	b := make([]byte, 24)
	b[0] = kind
	a := target.As16()
	copy(b[8:], a[:])
	return ethernet(guestMAC, 0x86dd, packet6(guest6, to, protocolICMPv6, hops, b))
}

// inbound4 is a packet of somebody else to the guest.
func inbound4(from netip.Addr, protocol uint8, sport, dport uint16, flags uint8) []byte {
	f := ethernet(otherMAC, 0x0800, packet4(from, guest4, protocol, 1, 0, nil, l4(protocol, sport, dport, flags)))
	copy(f, guestMAC)
	return f
}
