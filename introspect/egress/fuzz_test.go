package egress

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	bpfegress "github.com/provostd/provost/bpf/egress"
)

// harmless reads a frame in the plainest way and reports whether it is one of those
// that cannot leave the link, which go out whatever the lists say.
func harmless(f []byte) bool {
	at, kind := 14, binary.BigEndian.Uint16(f[12:])
	for kind == 0x8100 || kind == 0x88a8 || kind == 0x9100 {
		if len(f) < at+4 {
			return false
		}
		kind = binary.BigEndian.Uint16(f[at+2:])
		at += 4
	}
	p := f[at:]
	switch {
	case kind == 0x0806:
		return len(p) >= 28
	case kind == 0x0800 && len(p) >= 24:
		h := int(p[0]&15) * 4
		to := netip.AddrFrom4([4]byte(p[16:20]))
		return p[9] == protocolUDP && to == netip.MustParseAddr("255.255.255.255") && len(p) >= h+4 && binary.BigEndian.Uint16(p[h+2:]) == 67 ||
			p[9] == 2 && p[8] == 1 && netip.MustParsePrefix("224.0.0.0/24").Contains(to)
	case kind == 0x86dd && len(p) >= 40:
		to := netip.AddrFrom16([16]byte(p[24:40]))
		return to.IsLinkLocalUnicast() || to.IsLinkLocalMulticast()
	}
	return false
}

// FuzzFrame: while nothing is allowed, no frame goes out but those that cannot
// leave the link. The kernel's verifier has proven the rest: the program ends, and
// reads nothing but the frame.
func FuzzFrame(f *testing.F) {
	spec, err := loadSpec()
	if err != nil {
		f.Fatal(err)
	}
	// Two taps: what comes to a guest may be answered.
	var o, other objects
	for _, o := range []*objects{&o, &other} {
		if *o, err = create(spec, nil); err != nil {
			f.Fatal(err)
		}
		f.Cleanup(o.close)
	}
	t := &tap{objects: o, inner: spec.Maps[bpfegress.EgressMapPrefixes].InnerMap, innerP: spec.Maps[bpfegress.EgressMapPorts].InnerMap}
	nothing, err := Compile([]Policy{{Name: "nothing", Enforce: true, Listed: true}})
	if err != nil {
		f.Fatal(err)
	}
	if err := t.apply(nothing, 1); err != nil {
		f.Fatal(err)
	}
	for _, c := range frames() {
		f.Add(c.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 1514 {
			return // the kernel makes no such frames for a test
		}
		for name, p := range map[string]*ebpf.Program{
			bpfegress.EgressProgFromGuest: o.programs[bpfegress.EgressProgFromGuest],
			bpfegress.EgressProgToGuest:   other.programs[bpfegress.EgressProgToGuest],
		} {
			verdict, err := p.Run(&ebpf.RunOptions{Data: frame})
			if errors.Is(err, syscall.EINVAL) {
				return // neither of these
			}
			if err != nil {
				t.Fatal(err)
			}
			if name == bpfegress.EgressProgFromGuest && verdict != 2 && !harmless(frame) {
				t.Errorf("%x goes out with verdict %d", frame, int32(verdict))
			}
		}
	})
}
