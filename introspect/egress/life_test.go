package egress

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// TestReplies: what others begin is answered, unless their address is denied by
// name; what the guest begins is not made an answer by what comes back.
func TestReplies(t *testing.T) {
	l, h := newLAN(t), newHeard()
	g := newGuard(t, bpffs(t), h, false)
	p := external()
	hard := netip.MustParseAddr("192.0.2.99")
	p.Deny = []Entry{{Prefix: netip.PrefixFrom(hard, 32)}}
	l.guard(g, table(t, p))
	reply := func(to netip.Addr, protocol uint8, sport, dport uint16, flags uint8) []byte {
		return ethernet(guestMAC, 0x0800, packet4(guest4, to, protocol, 1, 0, nil, l4(protocol, sport, dport, flags)))
	}
	for _, c := range []struct {
		name  string
		comes []byte // nil: nothing
		goes  []byte
		pass  bool
	}{
		{"nothing came", nil, reply(denied4, protocolTCP, 22, 5000, 0x12), false},
		{"a SYN came", inbound4(denied4, protocolTCP, 5000, 22, 2), reply(denied4, protocolTCP, 22, 5000, 0x12), true},
		{"to another port", nil, reply(denied4, protocolTCP, 22, 5001, 0x10), false},
		{"from another port", nil, reply(denied4, protocolTCP, 23, 5000, 0x10), false},
		{"no SYN came", inbound4(denied4, protocolTCP, 6000, 22, 0x10), reply(denied4, protocolTCP, 22, 6000, 0x10), false},
		{"an answer to a SYN came", inbound4(denied4, protocolTCP, 6001, 22, 0x12), reply(denied4, protocolTCP, 22, 6001, 0x10), false},
		{"its SYN instead", nil, reply(denied4, protocolTCP, 22, 5000, 2), false},
		{"a datagram came", inbound4(denied4, protocolUDP, 5000, 53, 0), reply(denied4, protocolUDP, 53, 5000, 0), true},
		{"an echo came", inbound4(denied4, protocolICMP, 8, 77, 0), reply(denied4, protocolICMP, 0, 77, 0), true},
		{"an echo of another number came", nil, reply(denied4, protocolICMP, 0, 78, 0), false},
		{"an own echo instead", nil, reply(denied4, protocolICMP, 8, 77, 0), false},
		{"denied by name", inbound4(hard, protocolTCP, 5000, 22, 2), reply(hard, protocolTCP, 22, 5000, 0x12), false},
	} {
		if c.comes != nil && !l.receive(c.comes, internal4) {
			t.Errorf("%s: the guest does not get it", c.name)
		}
		if got := l.send(c.goes); (len(got) > 0) != c.pass {
			t.Errorf("%s: %d frames arrive, want passing %v", c.name, len(got), c.pass)
		}
	}
	h.find(t, "the connection that came", func(e *Event) bool { return e.Kind == In && e.Flow.Remote == denied4 && e.Flow.LocalPort == 22 })
}

// TestAudit: policies that only tell let everything through, and tell.
func TestAudit(t *testing.T) {
	l, h := newLAN(t), newHeard()
	g := newGuard(t, bpffs(t), h, false)
	p := external()
	p.Enforce = false
	l.guard(g, table(t, p))
	for _, f := range frames() {
		if got := l.send(f.frame); len(got) == 0 && f.why == 1 {
			t.Errorf("%s: does not arrive", f.name)
		}
	}
	c := counts(t, g)
	if c.Audited == 0 || c.Denied[1] != 0 {
		t.Errorf("counted %+v", c)
	}
	h.find(t, "what would be denied", func(e *Event) bool { return e.Kind == Audited && e.Flow.Remote == denied4 && len(e.Policies) == 1 })
}

// TestCut: nothing passes in either direction but with whom is named, at once,
// whatever policies say, over a restart, and on a tap that comes later.
func TestCut(t *testing.T) {
	l, dir := newLAN(t), bpffs(t)
	repair := netip.MustParseAddr("192.0.2.10") // which the policy denies
	allow := []netip.Prefix{netip.PrefixFrom(repair, 32), netip.PrefixFrom(internal4, 32)}
	g := newGuard(t, dir, nil, false)
	l.guard(g, table(t, external()))
	check := func(when string, cut bool) {
		t.Helper()
		for _, c := range []struct {
			name     string
			frame    []byte
			cut, not bool // whether it passes while cut off, and while not
		}{
			{"what policies allow", tcp4(allowed4, 80), false, true},
			{"whom the cut names", tcp4(repair, 80), true, false},
			{"internal", tcp4(netip.MustParseAddr("10.0.0.3"), 80), false, true},
			{"ARP for somebody", arp(guest4, netip.MustParseAddr("10.0.0.3")), false, true},
			{"ARP for whom the cut names", arp(guest4, internal4), true, true},
			{"DHCP", ethernet(guestMAC, 0x0800, packet4(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), protocolUDP, 1, 0, nil, l4(protocolUDP, 68, 67, 0))), false, true},
			{"discovery of somebody", ndp(135, 255, netip.MustParseAddr("ff02::1:ff00:1"), guest6), false, true},
		} {
			want := c.not
			if cut {
				want = c.cut
			}
			if got := l.send(c.frame); (len(got) > 0) != want {
				t.Errorf("%s, %s: %d frames arrive, want passing %v", when, c.name, len(got), want)
			}
		}
		if got := l.receive(inbound4(netip.MustParseAddr("10.0.0.3"), protocolUDP, 9, 9, 0), internal4); got == cut {
			t.Errorf("%s: the guest gets what comes: %v", when, got)
		}
		if got := l.receive(inbound4(repair, protocolUDP, 9, 9, 0), internal4); !got {
			t.Errorf("%s: the guest does not get what comes from whom the cut names", when)
		}
		if is, err := g.IsCut(vm); is != cut || err != nil {
			t.Errorf("%s: is cut %v, %v", when, is, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("before", false)
	must(g.Cut(t.Context(), vm, []string{l.name}, allow))
	check("cut off", true)
	must(g.Cut(t.Context(), vm, []string{l.name}, allow[1:]))
	if got := l.send(tcp4(repair, 80)); len(got) != 0 {
		t.Error("whom a later cut does not name is reached")
	}
	must(g.Cut(t.Context(), vm, []string{l.name}, allow))
	must(g.Close())
	check2 := l.send(tcp4(allowed4, 80))
	if len(check2) != 0 {
		t.Error("a cut ends with the daemon")
	}
	g = newGuard(t, dir, nil, false)
	l.guard(g, table(t, external()))
	check("after a restart", true)
	must(g.Close())
	g = newGuard(t, dir, nil, false)
	g.digest = "another-object"
	l.guard(g, table(t, external()))
	check("by another version", true)
	if all, err := os.ReadDir(filepath.Join(dir, strconv.Itoa(g.Devices()[0].Index))); err != nil || len(all) != 3 {
		t.Errorf("left in the directory of pins: %v, %v", all, err)
	}
	must(g.Uncut(t.Context(), vm))
	check("after it", false)
	// A tap that nobody guards is cut off all the same, and so is one that is made
	// while its domain is cut off.
	must(g.Detach(l.name))
	must(g.Cut(t.Context(), vm, []string{l.name}, allow))
	check("unguarded", true)
	must(l.tap.Close())
	l.open()
	l.join()
	if gone, err := g.Forget(); err != nil || len(gone) != 1 || gone[0].Name != l.name {
		t.Errorf("gone are %v, %v", gone, err)
	}
	l.guard(g, table(t))
	check("made anew", true)
	must(g.Uncut(t.Context(), vm))
	if got := l.send(tcp4(repair, 80)); len(got) != 1 {
		t.Error("without policies and cut, something is kept back")
	}
}

// TestNoGap has a guest send all the time what is denied, while policies change
// and daemons come and go: nothing of it arrives, and one program stands on the tap.
func TestNoGap(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcx", true: "clsact"}[legacy], func(t *testing.T) {
			l, dir := newLAN(t), bpffs(t)
			a, b := external(), external()
			b.Allow = b.Allow[:1]
			b.Listed, b.Deny = false, []Entry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
			g := newGuard(t, dir, nil, legacy)
			l.guard(g, table(t, a))
			stop := make(chan struct{})
			var guest sync.WaitGroup
			guest.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if _, err := l.tap.Write(tcp4(denied4, 80)); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
			for i := range 12 {
				l.guard(g, table(t, []Policy{a, b}[i%2]))
				if i%3 == 2 {
					if err := g.Close(); err != nil {
						t.Fatal(err)
					}
					g = newGuard(t, dir, nil, legacy)
					if i == 8 {
						g.digest = "another-object"
					}
					l.guard(g, table(t, []Policy{b, a}[i%2]))
				}
			}
			close(stop)
			guest.Wait()
			if got := l.send(tcp4(denied4, 80)); len(got) != 0 {
				t.Errorf("%d frames that are denied have arrived", len(got))
			}
			if c := counts(t, g); c.Denied[1] == 0 {
				t.Error("nothing was denied: the guest sent nothing")
			}
			if legacy {
				return
			}
			ifc, err := net.InterfaceByName(l.name)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				r, err := link.QueryPrograms(link.QueryOptions{Target: ifc.Index, Attach: at})
				if err != nil || len(r.Programs) != 1 {
					t.Errorf("%v: programs %v, %v, want one", at, r, err)
				}
			}
		})
	}
}

// TestMACAndResolvers: frames from other addresses, and in the name of a resolver,
// are denied where that is asked for.
func TestMACAndResolvers(t *testing.T) {
	l := newLAN(t)
	g := newGuard(t, bpffs(t), nil, false, netip.MustParseAddr("10.0.0.53"))
	if err := g.Attach(t.Context(), Device{Domain: vm, Name: l.name, MAC: guestMAC, CheckMAC: true}, table(t)); err != nil {
		t.Fatal(err)
	}
	other := append(append([]byte{}, tcp4(allowed4, 80)[:6]...), append(append([]byte{}, otherMAC...), tcp4(allowed4, 80)[12:]...)...)
	if got := l.send(other); len(got) != 0 {
		t.Error("a frame from another address leaves")
	}
	if got := l.send(tcp4(allowed4, 80)); len(got) != 1 {
		t.Error("a frame from the interface's address does not leave")
	}
	strange := ethernet(otherMAC, 0x88b5, make([]byte, 46))
	if got := l.send(strange); len(got) != 0 {
		t.Error("a frame of another kind from another address leaves")
	}
	spoofed := ethernet(guestMAC, 0x0800, packet4(netip.MustParseAddr("10.0.0.53"), guest4, protocolUDP, 1, 0, nil, l4(protocolUDP, 53, 9, 0)))
	if got := l.send(spoofed); len(got) != 0 {
		t.Error("a frame in the name of a resolver leaves")
	}
	optioned := ethernet(guestMAC, 0x0800, packet4(netip.MustParseAddr("10.0.0.53"), guest4, protocolUDP, 1, 0, []byte{1, 1, 1, 0}, l4(protocolUDP, 53, 9, 0)))
	if got := l.send(optioned); len(got) != 0 {
		t.Error("a frame in the name of a resolver leaves with options")
	}
	c := counts(t, g)
	if c.Denied[5] != 2 || c.Denied[15] != 2 {
		t.Errorf("counted %v", c.Denied)
	}
}

// TestCutOwners: a release that comes before the taps are adopted counts, and a tap
// that outlives its domain is cut off as the next one is.
func TestCutOwners(t *testing.T) {
	l, dir := newLAN(t), bpffs(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	passes := func(when string, want int) {
		t.Helper()
		if got := l.send(tcp4(allowed4, 80)); len(got) != want {
			t.Errorf("%s: %d frames arrive, want %d", when, len(got), want)
		}
	}
	allow := []netip.Prefix{netip.PrefixFrom(internal4, 32)}
	g := newGuard(t, dir, nil, false)
	l.guard(g, table(t))
	must(g.Cut(t.Context(), vm, []string{l.name}, allow))
	must(g.Close())
	g = newGuard(t, dir, nil, false)
	must(g.Uncut(t.Context(), vm))
	l.guard(g, table(t))
	passes("released", 1)
	other := vm
	other[15]++
	must(g.Cut(t.Context(), other, nil, allow))
	must(g.Attach(t.Context(), Device{Domain: other, Name: l.name}, table(t)))
	passes("the tap of a domain that is cut off", 0)
	l.guard(g, table(t))
	passes("and of one that is not", 1)
}

// TestRefused: no guard without a place that outlives the daemon.
func TestRefused(t *testing.T) {
	if _, err := New(Config{Dir: t.TempDir()}); err == nil {
		t.Error("a guard on an ordinary file system is made")
	}
	g := newGuard(t, bpffs(t), nil, false)
	if err := g.Attach(t.Context(), Device{Name: "nosuch0"}, table(t)); err == nil {
		t.Error("a device that does not exist is guarded")
	}
	if err := g.Cut(t.Context(), vm, []string{"nosuch0"}, nil); err == nil {
		t.Error("a device that does not exist is cut off")
	}
	if err := g.Cut(t.Context(), vm, nil, make([]netip.Prefix, 1)); err == nil {
		t.Error("an exception that is no prefix is taken")
	}
	ip(t, "link add refused0 type veth peer name refused1")
	t.Cleanup(func() { ip(t, "link del refused0") })
	ip(t, "link add link refused0 name refused2 type macvtap mode bridge")
	for _, name := range []string{"refused0", "refused2"} {
		if err := g.Attach(t.Context(), Device{Name: name}, table(t)); err == nil || !strings.Contains(err.Error(), "no tap") {
			t.Errorf("%s is guarded as if it were a tap: %v", name, err)
		}
	}
	if err := Probe(); err != nil {
		t.Error(err)
	}
}
