package egress

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
)

const policyText = `bundle {
  name     = "egress"
  version  = "1"
  language = 1
}

policy "only_allowed" {
  mode = "enforce"
  prevent "egress" {
    allow = ["198.51.100.0/24", "2001:db8:10::/48"]
    scope = "external"
  }
}
`

// sh runs a command inside the host's namespaces.
func sh(t *testing.T, ctx context.Context, l *lab.Lab, line string) {
	t.Helper()
	if out, err := l.Host.Command(ctx, "sh", "-ec", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// tool builds the program that makes frames.
func tool(t *testing.T, root string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "frames")
	cmd := exec.Command("go", "build", "-o", path, "./integration/cmd/frames")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build frames: %v: %s", err, out)
	}
	return path
}

// newLab makes a host with a bridge, a world behind it, the hook of libvirt and a
// guest whose one interface is on the bridge.
func newLab(t *testing.T, ctx context.Context) (l *lab.Lab, frames string) {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	frames = tool(t, root)
	policies := t.TempDir()
	if err := os.WriteFile(filepath.Join(policies, "p.policy.hcl"), []byte(policyText), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/run/pve-%d", os.Getpid())
	l, err = lab.New(ctx, lab.Config{
		Dir: dir, Policies: policies, Channel: true, Out: t.Logf, Network: true, AgentArgs: []string{"-protect", "off"},
		Files:   map[string]string{"/usr/bin/frames": frames},
		Devices: "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><model type='virtio'/></interface>",
		Extra:   fmt.Sprintf("egress {\n  hook_socket = %q\n  fail = \"closed\"\n}\n", dir+"/hook.sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = l.CopyLog(t.Output()) // what it says helps; that it cannot be read does not
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	sh(t, ctx, l, `mount -t bpf bpf /sys/fs/bpf
ip link add br0 type bridge forward_delay 0 mcast_snooping 0
ip link add inside type veth peer name world
ip link set inside master br0
for d in br0 inside world; do ip link set $d addrgenmode none; ip link set $d up; done
ip addr add 10.0.0.1/24 dev br0
ip addr add 198.51.100.1/32 dev br0
ip addr add 192.0.2.1/32 dev br0
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done`)
	hook := l.Host.Outside("/etc/libvirt/hooks/qemu.d/provost")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/libvirt-hook"))
	if err != nil {
		t.Fatal(err)
	}
	own := strings.Replace(string(text), "/usr/bin/provostd hook", filepath.Join(l.Bin, "provostd")+" -config "+l.ConfigFile()+" hook", 1)
	if err := os.WriteFile(hook, []byte(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Host.StopLibvirtd(false); err != nil { // it looks for hooks at its start
		t.Fatal(err)
	}
	if err := l.Host.StartLibvirtd(ctx); err != nil {
		t.Fatal(err)
	}
	return l, frames
}

func ethernet(source string, kind uint16, payload []byte) []byte {
	b, err := hex.DecodeString("525400000009" + source)
	if err != nil {
		panic(err) // a constant of this file
	}
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

func vlan(kind, tag uint16, frame []byte) []byte {
	b := append([]byte{}, frame[:12]...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, kind), tag)
	return append(b, frame[12:]...)
}

// datagram is UDP with a mark, by which it is known again wherever it arrives.
func datagram(mark uint16) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 9)
	binary.BigEndian.PutUint16(b[4:], 24)
	copy(b[8:], "provost-")
	binary.BigEndian.PutUint16(b[22:], mark)
	return b
}

func ipv4(to string, protocol byte, off uint16, payload []byte) []byte {
	b := make([]byte, 20)
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[6:], off)
	from, dst := netip.MustParseAddr("10.0.0.2").As4(), netip.MustParseAddr(to).As4()
	copy(b[12:], from[:])
	copy(b[16:], dst[:])
	return append(b, payload...)
}

func ipv6(to string, next byte, payload []byte) []byte {
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	from, dst := netip.MustParseAddr("2001:db8:1::2").As16(), netip.MustParseAddr(to).As16()
	copy(b[8:], from[:])
	copy(b[24:], dst[:])
	return append(b, payload...)
}

// TestGuest: an allowed connection works, one that is denied never leaves the tap
// though the guest's root tries otherwise; nothing starts without the guard; and what
// was denied, and what the agent did not tell of, is sealed.
func TestGuest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	l, frames := newLab(t, ctx)
	if err := l.Guest.Start(ctx); err == nil || !strings.Contains(err.Error(), "is it running?") {
		t.Fatalf("a domain starts though no daemon guards it: %v", err)
	}
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	guest := func(script string) string {
		t.Helper()
		out, err := l.Guest.Output(ctx, script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	guest("ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1")
	reach := func(address string) string {
		t.Helper()
		return guest("nc -w 3 " + address + " 81 </dev/null 2>&1 || true")
	}
	if got := reach("198.51.100.1"); !strings.Contains(got, "refused") {
		t.Errorf("the allowed address does not answer: %q", got)
	}
	if got := reach("192.0.2.1"); strings.Contains(got, "refused") {
		t.Errorf("the denied address answers: %q", got)
	}
	seen := try(t, ctx, l, guest, frames)
	for name, want := range seen {
		if got := want[0]; got != want[1] {
			t.Errorf("%s: left the tap %v, want %v", name, got, want[1])
		}
	}
	sealed(t, ctx, l)
}

// try sends frames from the guest and watches what reaches the world: by name,
// whether each did, and whether it should.
func try(t *testing.T, ctx context.Context, l *lab.Lab, guest func(string) string, frames string) map[string][2]bool {
	t.Helper()
	const bad4, bad6, good4, good6 = "192.0.2.1", "2001:db8:66::1", "198.51.100.1", "2001:db8:10::1"
	own, other := "525400000001", "525400000077"
	var all []string
	names := map[string]string{} // by mark, in hexadecimal
	seen := map[string][2]bool{}
	add := func(name string, pass bool, build func(mark uint16) []byte) {
		mark := uint16(0xa000 + len(all))
		all = append(all, hex.EncodeToString(build(mark)))
		names[fmt.Sprintf("%04x", mark)] = name
		seen[name] = [2]bool{false, pass}
	}
	plain := func(to string) func(uint16) []byte {
		return func(m uint16) []byte { return ethernet(own, 0x0800, ipv4(to, 17, 0, datagram(m))) }
	}
	add("raw socket", false, plain(bad4))
	add("raw socket, allowed", true, plain(good4))
	add("IPv6", false, func(m uint16) []byte { return ethernet(own, 0x86dd, ipv6(bad6, 17, datagram(m))) })
	add("IPv6, allowed", true, func(m uint16) []byte { return ethernet(own, 0x86dd, ipv6(good6, 17, datagram(m))) })
	add("IPv6 extensions", false, func(m uint16) []byte {
		return ethernet(own, 0x86dd, ipv6(bad6, 0, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, datagram(m)...)))
	})
	add("VLAN", false, func(m uint16) []byte { return vlan(0x8100, 7, plain(bad4)(m)) })
	add("QinQ", false, func(m uint16) []byte { return vlan(0x88a8, 8, vlan(0x8100, 7, plain(bad4)(m))) })
	add("other MAC", false, func(m uint16) []byte { return ethernet(other, 0x0800, ipv4(bad4, 17, 0, datagram(m))) })
	add("later fragment", false, func(m uint16) []byte { return ethernet(own, 0x0800, ipv4(bad4, 17, 4, datagram(m))) })
	add("first fragment", false, func(m uint16) []byte { return ethernet(own, 0x0800, ipv4(bad4, 17, 0x2000, datagram(m))) })
	add("GRE", false, func(m uint16) []byte {
		return ethernet(own, 0x0800, ipv4(bad4, 47, 0, append([]byte{0, 0, 8, 0}, ipv4(good4, 17, 0, datagram(m))...)))
	})
	add("IP in IP", false, func(m uint16) []byte { return ethernet(own, 0x0800, ipv4(bad4, 4, 0, ipv4(good4, 17, 0, datagram(m)))) })
	add("LLC", false, func(m uint16) []byte { return ethernet(own, 60, ipv4(bad4, 17, 0, datagram(m))) })
	add("last", true, plain(good4))

	w := l.Host.Command(ctx, frames, "watch", "world")
	in, err := w.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || lines.Text() != "watching" {
		t.Fatalf("frames watch says %q", lines.Text())
	}
	guest("frames send eth0 " + strings.Join(all, " "))
	marker := hex.EncodeToString([]byte("provost-"))
	for name := ""; name != "last" && lines.Scan(); {
		_, rest, ok := strings.Cut(lines.Text(), marker)
		if !ok || len(rest) < 16 {
			continue
		}
		if name = names[rest[12:16]]; name != "" {
			seen[name] = [2]bool{true, seen[name][1]}
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Wait(); err != nil {
		t.Errorf("frames watch: %v", err)
	}
	return seen
}

// sealed waits for what must stand in the domain's log.
func sealed(t *testing.T, ctx context.Context, l *lab.Lab) {
	t.Helper()
	to := func(e *lab.Entry, c record.Class, address string) bool {
		m, ok := e.Msg.(*record.Event)
		if !ok || e.Leaf.Header.Class != c || e.Leaf.Origin != record.OriginHost {
			return false
		}
		a, _ := netip.AddrFromSlice(m.GetNetwork().GetDestinationIp())
		return a == netip.MustParseAddr(address)
	}
	for what, match := range map[string]func(*lab.Entry) bool{
		"that the tap is guarded": func(e *lab.Entry) bool {
			m, ok := e.Msg.(*record.Event)
			return ok && e.Leaf.Header.Class == record.ClassVMGuard && strings.Contains(m.Reason, "filters by only_allowed")
		},
		"the denied connection":  func(e *lab.Entry) bool { return to(e, record.ClassNetworkDrop, "192.0.2.1") },
		"the denied one by IPv6": func(e *lab.Entry) bool { return to(e, record.ClassNetworkDrop, "2001:db8:66::1") },
		"the datagram of a raw socket, of which no agent told": func(e *lab.Entry) bool {
			return to(e, record.ClassNetworkUndeclared, "2001:db8:10::1")
		},
	} {
		wctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		if _, err := l.Wait(wctx, what, match); err != nil {
			t.Error(err)
		}
		cancel()
	}
	all, err := l.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to(e, record.ClassNetworkUndeclared, "198.51.100.1") {
			if p := e.Msg.(*record.Event).Network; p.Protocol == "tcp" {
				t.Errorf("the connection that the agent told of counts as undeclared: %v", e.Msg)
			}
		}
	}
}
