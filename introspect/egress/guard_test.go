package egress

import (
	"net/netip"
	"testing"
)

// What a guest's root may try, and what of it leaves the tap.
func frames() []struct {
	name  string
	frame []byte
	pass  bool
	why   Reason
} {
	p443 := netip.MustParseAddr("203.0.113.10")
	inner := packet4(guest4, denied4, protocolTCP, 1, 0, nil, l4(protocolTCP, 1, 80, 2))
	long := l4(protocolUDP, 40000, 80, 0)
	return []struct {
		name  string
		frame []byte
		pass  bool
		why   Reason
	}{
		{"allowed", tcp4(allowed4, 80), true, 0},
		{"denied", tcp4(denied4, 80), false, 1},
		{"denied datagram", udp4(denied4, 53), false, 1},
		{"internal", tcp4(netip.MustParseAddr("192.168.7.7"), 80), true, 0},
		{"allowed on this port", tcp4(p443, 443), true, 0},
		{"not on that port", tcp4(p443, 80), false, 1},
		{"not by that protocol", udp4(p443, 443), false, 1},
		{"no echo where a port is named", ip4(p443, protocolICMP, l4(protocolICMP, 8, 7, 0)), false, 1},
		{"echo", ip4(allowed4, protocolICMP, l4(protocolICMP, 8, 7, 0)), true, 0},
		{"denied echo", ip4(denied4, protocolICMP, l4(protocolICMP, 8, 7, 0)), false, 1},
		{"IPv6", tcp6(allowed6, 80), true, 0},
		{"denied IPv6", tcp6(denied6, 80), false, 1},
		{"other MAC", append(append([]byte{0x52, 0x54, 0, 0, 0, 9}, otherMAC...), tcp4(denied4, 80)[12:]...), false, 1},
		{"VLAN", vlan(0x8100, 5, tcp4(denied4, 80)), false, 1},
		{"VLAN, allowed", vlan(0x8100, 5, tcp4(allowed4, 80)), true, 0},
		{"QinQ", vlan(0x88a8, 6, vlan(0x8100, 5, tcp4(denied4, 80))), false, 1},
		{"QinQ, allowed", vlan(0x88a8, 6, vlan(0x8100, 5, tcp4(allowed4, 80))), true, 0},
		{"three tags", vlan(0x8100, 7, vlan(0x8100, 6, vlan(0x8100, 5, tcp4(allowed4, 80)))), false, 4},
		{"IPv4 in IPv4", ip4(denied4, 4, inner), false, 1},
		{"GRE", ip4(denied4, 47, append([]byte{0, 0, 8, 0}, inner...)), false, 1},
		{"IPv6 in IPv4", ip4(denied4, 41, packet6(guest6, denied6, protocolTCP, 64, l4(protocolTCP, 1, 80, 2))), false, 1},
		{"VXLAN", ip4(denied4, protocolUDP, append(l4(protocolUDP, 4789, 4789, 0), tcp4(denied4, 80)...)), false, 1},
		{"tunnel to an allowed address", ip4(allowed4, 47, append([]byte{0, 0, 8, 0}, inner...)), true, 0},
		{"first fragment, denied", part4(denied4, protocolUDP, 9, 0x2000, long), false, 1},
		{"later fragment of it", part4(denied4, protocolUDP, 9, 4, long), false, 13},
		{"later fragment of nothing", part4(allowed4, protocolUDP, 77, 4, long), false, 13},
		{"first fragment", part4(allowed4, protocolUDP, 10, 0x2000, long), true, 0},
		{"later fragment", part4(allowed4, protocolUDP, 10, 4, long), true, 0},
		{"later fragment of its number elsewhere", part4(denied4, protocolUDP, 10, 4, long), false, 13},
		{"first fragment too small for ports", part4(allowed4, protocolTCP, 11, 0x2000, l4(protocolTCP, 1, 80, 2)[:8]), false, 12},
		{"fragment upon TCP's flags", part4(allowed4, protocolTCP, 10, 1, long), false, 13},
		{"source route", ethernet(guestMAC, 0x0800, packet4(guest4, allowed4, protocolTCP, 1, 0, []byte{0x83, 7, 4, 192, 0, 2, 66, 0}, l4(protocolTCP, 1, 80, 2))), false, 9},
		{"IPv6 extensions", ip6(denied6, 0, extension(60, extension(protocolTCP, l4(protocolTCP, 1, 80, 2)))), false, 1},
		{"IPv6 extensions, allowed", ip6(allowed6, 0, extension(60, extension(protocolTCP, l4(protocolTCP, 1, 80, 2)))), true, 0},
		{"IPv6 routing header", ip6(allowed6, 43, extension(protocolTCP, l4(protocolTCP, 1, 80, 2))), false, 11},
		{"hop-by-hop in second place", ip6(allowed6, 60, extension(0, extension(protocolTCP, l4(protocolTCP, 1, 80, 2)))), false, 10},
		{"nine extensions", ip6(allowed6, 60, extension(60, extension(60, extension(60, extension(60, extension(60, extension(60, extension(60, extension(60, extension(protocolTCP, l4(protocolTCP, 1, 80, 2))))))))))), false, 10},
		{"IPv6 first fragment", ip6(allowed6, 44, fragment6(protocolUDP, 1, 5, long)), true, 0},
		{"IPv6 later fragment", ip6(allowed6, 44, fragment6(protocolUDP, 32, 5, long)), true, 0},
		{"IPv6 later fragment of nothing", ip6(allowed6, 44, fragment6(protocolUDP, 32, 6, long)), false, 13},
		{"IPv6 fragment without all headers", ip6(allowed6, 44, fragment6(60, 1, 7, []byte{protocolTCP, 0, 1, 4})), false, 10},
		{"IPv6, denied, in one fragment", ip6(denied6, 44, fragment6(protocolUDP, 0, 8, long)), false, 1},
		{"mapped address", tcp6(netip.AddrFrom16(denied4.As16()), 80), false, 14},
		{"ARP", arp(guest4, netip.MustParseAddr("10.0.0.1")), true, 0},
		{"ARP of another kind", ethernet(guestMAC, 0x0806, make([]byte, 28)), false, 7},
		{"ARP cut short", ethernet(guestMAC, 0x0806, []byte{0, 1, 8, 0, 6, 4, 0, 1}), false, 7},
		{"neighbour solicitation", ndp(135, 255, netip.MustParseAddr("ff02::1:ff00:1"), guest6), true, 0},
		{"neighbour advertisement elsewhere", ndp(136, 255, denied6, guest6), false, 1},
		{"solicitation that was routed", ndp(135, 64, netip.MustParseAddr("fe80::1"), guest6), true, 0}, // link-local is internal
		{"DHCP", ethernet(guestMAC, 0x0800, packet4(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), protocolUDP, 1, 0, nil, l4(protocolUDP, 68, 67, 0))), true, 0},
		{"DHCP elsewhere", ethernet(guestMAC, 0x0800, packet4(guest4, denied4, protocolUDP, 1, 0, nil, l4(protocolUDP, 68, 67, 0))), false, 1},
		{"runt of IPv4", ethernet(guestMAC, 0x0800, []byte{0x45, 0}), false, 8},
		{"longer than the frame", ethernet(guestMAC, 0x0800, func() []byte { b := inner[:30]; return append([]byte{}, b...) }()), false, 8},
		{"header too small", ethernet(guestMAC, 0x0800, append([]byte{0x44}, inner[1:]...)), false, 8},
		{"version 6 as IPv4", ethernet(guestMAC, 0x0800, append([]byte{0x65}, inner[1:]...)), false, 8},
		{"TCP offset beyond the packet", ip4(allowed4, protocolTCP, append(append(l4(protocolTCP, 1, 80, 2)[:12], 0xf0), make([]byte, 7)...)), false, 12},
		{"LLDP", ethernet(guestMAC, 0x88cc, make([]byte, 46)), false, 6},
		{"802.3", ethernet(guestMAC, 0x0040, make([]byte, 64)), false, 6},
		{"PPPoE", ethernet(guestMAC, 0x8864, make([]byte, 64)), false, 6},
		{"MPLS", ethernet(guestMAC, 0x8847, append([]byte{0, 0, 1, 64}, inner...)), false, 6},
	}
}

// TestDenied has every frame go into a real tap on a bridge, and looks at what
// arrives behind the bridge.
func TestDenied(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcx", true: "clsact"}[legacy], func(t *testing.T) {
			l, h := newLAN(t), newHeard()
			if got := l.send(tcp4(denied4, 80)); len(got) != 1 {
				t.Fatalf("without a guard %d frames arrive, want 1: this test would prove nothing", len(got))
			}
			g := newGuard(t, bpffs(t), h, legacy)
			l.guard(g, table(t, external()))
			for _, f := range frames() {
				before := counts(t, g)
				got := l.send(f.frame)
				if (len(got) > 0) != f.pass {
					t.Errorf("%s: %d frames arrive, want passing %v", f.name, len(got), f.pass)
				}
				after := counts(t, g)
				for r := range reasons {
					want := uint64(0)
					if !f.pass && Reason(r) == f.why {
						want = 1
					}
					if d := after.Denied[Reason(r)] - before.Denied[Reason(r)]; d != want {
						t.Errorf("%s: counted %d times for reason %q, want %d", f.name, d, Reason(r), want)
					}
				}
			}
			e := h.find(t, "the denied connection", func(e *Event) bool { return e.Kind == Denied && e.Flow.RemotePort == 80 && e.Flow.Remote == denied4 })
			if e.Flow.Protocol != protocolTCP || e.Flow.Local != guest4 || e.Reason.String() != "list" || len(e.Policies) != 1 || e.Policies[0] != "egress_allowlist" || e.Prefix.String() != "0.0.0.0/0" {
				t.Errorf("event %+v", e)
			}
			h.find(t, "the allowed connection", func(e *Event) bool { return e.Kind == Out && e.Flow.Remote == allowed4 && e.Flow.RemotePort == 80 })
		})
	}
}

func counts(t *testing.T, g *Guard) Counters {
	t.Helper()
	all, err := g.Counters()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d guarded taps, %v", len(all), err)
	}
	return all[0]
}
