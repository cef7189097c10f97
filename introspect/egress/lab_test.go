package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/provostd/provost/introspect/domain"
)

// TestMain runs the tests in network and mount namespaces of their own, with a BPF
// file system of their own: they make devices, and leave nothing behind.
func TestMain(m *testing.M) {
	if os.Getenv("PROVOST_EGRESS_NS") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "PROVOST_EGRESS_NS=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			os.Exit(exit.ExitCode())
		case err != nil:
			fmt.Fprintf(os.Stderr, "these tests take root, for namespaces, taps and BPF: %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Where iptables look at bridged packets they drop those without checksums.
	knobs, _ := filepath.Glob("/proc/sys/net/bridge/bridge-nf-call-*") // a good pattern
	for _, k := range knobs {
		if err := os.WriteFile(k, []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// bpffs mounts a BPF file system for one test.
func bpffs(t *testing.T) string {
	t.Helper()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := syscall.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "egress")
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// lan is a bridge with a tap, as libvirt makes one, and the world behind a veth.
type lan struct {
	t     *testing.T
	tap   *os.File // the guest's side
	name  string
	world int // a socket that sees what reaches the world
	index int // of the world's device
	seq   uint16
}

var lans int

func newLAN(t *testing.T) *lan {
	t.Helper()
	lans++
	l := &lan{t: t, name: fmt.Sprintf("tap%d", lans)}
	l.open()
	br, in, out := fmt.Sprintf("br%d", lans), fmt.Sprintf("wi%d", lans), fmt.Sprintf("wo%d", lans)
	ip(t, fmt.Sprintf("link add %s type bridge mcast_snooping 0 forward_delay 0", br))
	ip(t, fmt.Sprintf("link add %s type veth peer name %s", in, out))
	for _, d := range []string{br, in, out} {
		ip(t, fmt.Sprintf("link set %s addrgenmode none", d))
	}
	ip(t, fmt.Sprintf("link set %s master %s", in, br))
	for _, d := range []string{br, in, out} {
		ip(t, fmt.Sprintf("link set %s up", d))
	}
	l.join()
	ifc, err := net.InterfaceByName(out)
	if err != nil {
		t.Fatal(err)
	}
	l.index = ifc.Index
	l.world, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(htons(syscall.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(l.world); ip(t, "link del "+in); ip(t, "link del "+br) })
	if err := syscall.Bind(l.world, &syscall.SockaddrLinklayer{Protocol: htons(syscall.ETH_P_ALL), Ifindex: l.index}); err != nil {
		t.Fatal(err)
	}
	const packetAuxdata = 8
	if err := syscall.SetsockoptInt(l.world, syscall.SOL_PACKET, packetAuxdata, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptTimeval(l.world, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	return l
}

// open makes the tap, as a domain's start does.
func (l *lan) open() {
	l.t.Helper()
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], l.name)
	req.flags = syscall.IFF_TAP | syscall.IFF_NO_PI
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		l.t.Fatal(e)
	}
	l.tap = os.NewFile(uintptr(fd), l.name)
	l.t.Cleanup(func() { l.tap.Close() })
}

func (l *lan) join() {
	l.t.Helper()
	bridge := "br" + strings.TrimPrefix(l.name, "tap")
	ip(l.t, fmt.Sprintf("link set %s addrgenmode none", l.name))
	ip(l.t, fmt.Sprintf("link set %s master %s up", l.name, bridge))
	for limit := time.Now().Add(20 * time.Second); ; { // the kernel looks at carriers when it has time
		out, err := exec.Command("ip", "-d", "link", "show", "master", bridge).CombinedOutput()
		if err != nil {
			l.t.Fatalf("look at %s: %v: %s", bridge, err, out)
		}
		if bytes.Count(out, []byte("state forwarding")) == 2 {
			return
		}
		if time.Now().After(limit) {
			l.t.Fatalf("%s does not forward: %s", bridge, out)
		}
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// send has the guest send a frame, and returns what of it reached the world: all
// that came before a second frame that is always let through.
func (l *lan) send(frame []byte) [][]byte {
	l.t.Helper()
	l.seq++
	mark := udp4(internal4, l.seq)
	for _, f := range [][]byte{frame, mark} {
		if _, err := l.tap.Write(f); err != nil {
			l.t.Fatal(err)
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

// receive has the world send a frame, and reports whether the guest gets it: it is
// read before the next one of from, which is always let through.
func (l *lan) receive(frame []byte, from netip.Addr) bool {
	l.t.Helper()
	l.seq++
	mark := inbound4(from, protocolUDP, l.seq, 9, 0)
	for _, f := range [][]byte{frame, mark} {
		if err := syscall.Sendto(l.world, f, 0, &syscall.SockaddrLinklayer{Ifindex: l.index, Halen: 6}); err != nil {
			l.t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	got := false
	for {
		if err := l.tap.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			l.t.Fatal(err)
		}
		n, err := l.tap.Read(buf)
		if err != nil {
			l.t.Fatalf("the frame that is always let through did not arrive: %v", err)
		}
		if bytes.Equal(buf[:n], mark) {
			return got
		}
		got = got || bytes.Equal(buf[:n], frame)
	}
}

// heard collects events.
type heard struct {
	mu   sync.Mutex
	all  []*Event
	more chan struct{}
}

func (h *heard) sink(_ Device, e *Event) {
	h.mu.Lock()
	h.all = append(h.all, e)
	h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// find waits for an event.
func (h *heard) find(t *testing.T, what string, is func(*Event) bool) *Event {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		h.mu.Lock()
		for _, e := range h.all {
			if is(e) {
				h.mu.Unlock()
				return e
			}
		}
		n := len(h.all)
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-limit:
			t.Fatalf("no event tells of %s among %d", what, n)
		}
	}
}

var vm = domain.UUID{1, 2, 3}

func newGuard(t *testing.T, dir string, h *heard, legacy bool, resolvers ...netip.Addr) *Guard {
	t.Helper()
	if h == nil {
		h = newHeard()
	}
	g, err := New(Config{Dir: dir, Sink: h.sink, Log: slog.New(slog.DiscardHandler), Resolvers: resolvers, legacy: legacy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func newHeard() *heard { return &heard{more: make(chan struct{}, 1)} }

func table(t *testing.T, policies ...Policy) *Table {
	t.Helper()
	c, err := Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// external allows two networks besides what is internal, one of them on a port only.
func external() Policy {
	return Policy{Name: "egress_allowlist", Enforce: true, Listed: true, External: true, Allow: []Entry{
		{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Prefix: netip.MustParsePrefix("2001:db8:10::/48")},
		{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Port: 443, Protocol: protocolTCP},
	}}
}

func (l *lan) guard(g *Guard, tab *Table) {
	l.t.Helper()
	if err := g.Attach(l.t.Context(), Device{Domain: vm, Name: l.name, MAC: guestMAC}, tab); err != nil {
		l.t.Fatal(err)
	}
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
