package egress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// TestOwnReplies: a guest cannot begin a flow to itself in the name of whom it may not
// reach, by a frame that a router or its own other interface brings back to it.
func TestOwnReplies(t *testing.T) {
	l := newLAN(t)
	g := newGuard(t, bpffs(t), nil, false)
	l.guard(g, table(t, external()))
	for _, protocol := range []uint8{protocolUDP, protocolTCP, protocolSCTP} {
		const syn = 2
		spoofed := ethernet(guestMAC, 0x0800, packet4(denied4, internal4, protocol, 1, 0, nil, l4(protocol, 5000, 40000, syn)))
		if got := l.send(spoofed); len(got) != 1 {
			t.Fatal("it does not leave: this test would prove nothing")
		}
		if !l.receive(inbound4(denied4, protocol, 5000, 40000, syn), internal4) {
			t.Error("what comes back does not reach the guest")
		}
		reply := ethernet(guestMAC, 0x0800, packet4(guest4, denied4, protocol, 1, 0, nil, l4(protocol, 40000, 5000, 0x12)))
		if got := l.send(reply); len(got) != 0 {
			t.Errorf("protocol %d: the guest reaches whom it may not, as a reply to itself", protocol)
		}
	}
	// Out of one tap of a domain, and back by another.
	other, far := newLAN(t), netip.MustParseAddr("192.0.2.77")
	other.guard(g, table(t, external()))
	l.send(ethernet(guestMAC, 0x0800, packet4(far, internal4, protocolUDP, 1, 0, nil, l4(protocolUDP, 5000, 40000, 0))))
	other.receive(inbound4(far, protocolUDP, 5000, 40000, 0), internal4)
	if got := other.send(ethernet(guestMAC, 0x0800, packet4(guest4, far, protocolUDP, 1, 0, nil, l4(protocolUDP, 40000, 5000, 0)))); len(got) != 0 {
		t.Error("the guest reaches whom it may not by two interfaces")
	}
}

// offload makes the tap one that takes virtio's header, as QEMU has it, and has the
// device behind the bridge write the checksums that are missing, as hardware does.
func offload(t *testing.T, l *lan) {
	t.Helper()
	l.tap.Close()
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	const vnetHeader = 0x4000
	var req struct {
		name [16]byte
		data uintptr
		_    [16]byte
	}
	copy(req.name[:], l.name)
	*(*uint16)(unsafe.Pointer(&req.data)) = syscall.IFF_TAP | syscall.IFF_NO_PI | vnetHeader
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		t.Fatal(e)
	}
	l.tap = os.NewFile(uintptr(fd), l.name)
	l.join()
	const siocEthtool, setTxChecksum = 0x8946, 0x17
	off := [2]uint32{setTxChecksum, 0}
	req.name = [16]byte{}
	copy(req.name[:], "wi"+strings.TrimPrefix(l.name, "tap"))
	req.data = uintptr(unsafe.Pointer(&off))
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(s)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), siocEthtool, uintptr(unsafe.Pointer(&req))); e != 0 {
		t.Fatal(e)
	}
}

// offloaded is a frame with virtio's header: a checksum of what begins at start is to
// be written offset bytes behind that.
func offloaded(frame []byte, start, offset int) []byte {
	h := []byte{1, 0, 0, 0, 0, 0} // NEEDS_CSUM
	h = binary.NativeEndian.AppendUint16(h, uint16(start))
	return append(binary.NativeEndian.AppendUint16(h, uint16(offset)), frame...)
}

// sendRaw has the guest send a frame with virtio's header, and returns what arrives.
func (l *lan) sendRaw(frame []byte) [][]byte {
	l.t.Helper()
	l.seq++
	mark := udp4(internal4, l.seq)
	for _, f := range [][]byte{frame, append(make([]byte, 10), mark...)} {
		if _, err := l.tap.Write(f); err != nil {
			l.t.Fatalf("%v: %x", err, f)
		}
	}
	var got [][]byte
	buf := make([]byte, 4096)
	for {
		n, _, _, from, err := syscall.Recvmsg(l.world, buf, nil, 0)
		if err != nil {
			l.t.Fatalf("the frame that is always let through did not arrive: %v", err)
		}
		if s, ok := from.(*syscall.SockaddrLinklayer); ok && s.Pkttype == syscall.PACKET_OUTGOING {
			continue
		}
		if bytes.Equal(buf[:n], mark) {
			return got
		}
		got = append(got, bytes.Clone(buf[:n]))
	}
}

// TestChecksumOffload: the guest says where the host is to write a checksum, which
// happens behind the filter; upon an address or a port it would be another frame that
// leaves than the one that was judged.
func TestChecksumOffload(t *testing.T) {
	l := newLAN(t)
	offload(t, l)
	frame := udp4(allowed4, 80)
	reach := func(got [][]byte) string {
		if len(got) != 1 {
			return fmt.Sprint(len(got), " frames")
		}
		a, _ := netip.AddrFromSlice(got[0][30:34])
		return fmt.Sprint(a, ":", binary.BigEndian.Uint16(got[0][36:]))
	}
	if got := reach(l.sendRaw(offloaded(frame, 20, 10))); got == "198.51.100.7:80" || !strings.HasSuffix(got, ".100.7:80") {
		t.Fatalf("without a guard %s is reached: nothing is written upon the address, and this test would prove nothing", got)
	}
	h := newHeard()
	g := newGuard(t, bpffs(t), h, false)
	l.guard(g, table(t, external()))
	six := tcp6(allowed6, 80)
	for _, c := range []struct {
		name          string
		frame         []byte
		start, offset int
		pass          bool
	}{
		{"upon the IPv4 address", frame, 20, 10, false},
		{"upon its last half", frame, 20, 12, false},
		{"upon the port", frame, 34, 2, false},
		{"half upon the port", frame, 34, 3, false},
		{"upon the IPv6 address", six, 20, 18, false},
		{"upon flags of TCP", six, 54, 12, false},
		{"in ARP", arp(guest4, netip.MustParseAddr("10.0.0.1")), 20, 8, false},
		{"upon a later fragment's address", part4(allowed4, protocolUDP, 10, 4, l4(protocolUDP, 1, 2, 0)), 20, 10, false},
		{"of UDP", frame, 34, 6, true},
		{"of TCP", six, 54, 16, true},
		{"of an echo", ip4(allowed4, protocolICMP, l4(protocolICMP, 8, 7, 0)), 34, 2, true},
		{"in a tunnel", ip4(allowed4, 4, packet4(guest4, denied4, protocolUDP, 1, 0, nil, l4(protocolUDP, 1, 2, 0))), 54, 6, true},
	} {
		before := counts(t, g).Denied[17]
		if got := l.sendRaw(offloaded(c.frame, c.start, c.offset)); (len(got) > 0) != c.pass {
			t.Errorf("%s: %d frames arrive, want passing %v", c.name, len(got), c.pass)
		}
		if n := counts(t, g).Denied[17] - before; (n > 0) == c.pass {
			t.Errorf("%s: counted %d times", c.name, n)
		}
	}
	if got := l.sendRaw(offloaded(vlan(0x8100, 5, frame), 24, 10)); len(got) != 0 {
		t.Error("upon the address behind a tag: it arrives")
	}
	if got := l.sendRaw(offloaded(vlan(0x8100, 5, frame), 38, 6)); len(got) != 1 {
		t.Error("a good one behind a tag does not arrive")
	}
	h.find(t, "the frame", func(e *Event) bool { return e.Kind == Denied && e.Reason.String() == "checksum" })
}

// TestClsactTaken: where another queue stands in the place of the filters nothing is
// taken for guarded, and filters that somebody takes away stand again.
func TestClsactTaken(t *testing.T) {
	l := newLAN(t)
	ifc, err := net.InterfaceByName(l.name)
	if err != nil {
		t.Fatal(err)
	}
	f := &filter{dev: Device{Name: l.name, Index: ifc.Index}, ingress: true}
	queue := func(kind string, what, flags uint16) {
		t.Helper()
		if err := request(what, flags, attribute(f.message(handleClsact, parentClsact, 0), attrKind, []byte(kind+"\x00"))); err != nil {
			t.Fatal(kind, err)
		}
	}
	queue("ingress", syscall.RTM_NEWQDISC, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL)
	g := newGuard(t, bpffs(t), nil, true)
	if err := g.Attach(t.Context(), Device{Domain: vm, Name: l.name, MAC: guestMAC}, table(t, external())); err == nil {
		t.Errorf("a device with a queue of kind ingress is guarded; %d denied frames arrive", len(l.send(tcp4(denied4, 80))))
	}
	queue("ingress", syscall.RTM_DELQDISC, 0)
	l.guard(g, table(t, external()))
	if lapsed := g.restore(); len(lapsed) != 0 {
		t.Errorf("filters that stand are missed: %v", lapsed)
	}
	queue("clsact", syscall.RTM_DELQDISC, 0)
	if got := l.send(tcp4(denied4, 80)); len(got) != 1 {
		t.Fatal("the filter stands although it was taken away: this test would prove nothing")
	}
	if lapsed := g.restore(); len(lapsed) != 1 || lapsed[0].Name != l.name {
		t.Errorf("missed are %v", lapsed)
	}
	if got := l.send(tcp4(denied4, 80)); len(got) != 0 {
		t.Error("the filter does not stand again")
	}
}
