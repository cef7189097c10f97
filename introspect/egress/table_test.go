package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	bpfegress "github.com/provostd/provost/bpf/egress"
	"github.com/provostd/provost/rules/policy"
)

// decide says by the definition, without tables, whether a policy denies a packet,
// and whether by name.
func decide(p *Policy, a netip.Addr, protocol uint8, port uint16, now uint64) (deny, hard bool) {
	hits := func(all []Entry) bool {
		for _, e := range all {
			if e.Prefix.Contains(a) && (e.Expires == 0 || e.Expires > now) && (e.Port == 0 || e.Port == port && (e.Protocol == protocol || e.Protocol == 0 && (protocol == protocolTCP || protocol == protocolUDP))) {
				return true
			}
		}
		return false
	}
	if hits(p.Deny) {
		return true, true
	}
	if !p.Listed || hits(p.Allow) {
		return false, false
	}
	if p.External {
		for _, in := range policy.Internal() {
			if in.Contains(a) {
				return false, false
			}
		}
	}
	return true, false
}

// lookup does what the kernel's program does.
func (t *Table) lookup(a netip.Addr, protocol uint8, port uint16, now uint64) (deny, hard uint32) {
	best := -1
	for i, p := range t.prefixes {
		if p.Contains(a) && (best < 0 || p.Bits() > t.prefixes[best].Bits()) {
			best = i
		}
	}
	r := t.rules[best]
	expired := r.Expires != 0 && r.Expires <= now
	if r.Ports != 0 {
		if pr, ok := t.ports[bpfegress.EgressPortKey{Number: r.Number, Port: port, Protocol: protocol}]; ok {
			if expired {
				return pr.DenyAfter, pr.HardAfter
			}
			return pr.Deny, pr.Hard
		}
	}
	if expired {
		return r.DenyAfter, r.HardAfter
	}
	return r.Deny, r.Hard
}

// TestTable compares tables of policies made by chance with the definition.
func TestTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	address := func() netip.Addr {
		if rnd.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(rnd.IntN(2)), 14: byte(rnd.IntN(2)), 15: byte(rnd.IntN(4))})
		}
		return netip.AddrFrom4([4]byte{[]byte{10, 192, 224, 8}[rnd.IntN(4)], byte(rnd.IntN(2)), 2, byte(rnd.IntN(8))})
	}
	entries := func() (all []Entry) {
		for range rnd.IntN(6) {
			a := address()
			e := Entry{Prefix: netip.PrefixFrom(a, []int{0, 8, 16, 24, 30, 32, a.BitLen()}[rnd.IntN(7)]).Masked()}
			if rnd.IntN(3) == 0 {
				e.Port, e.Protocol = uint16(1+rnd.IntN(2)), []uint8{0, protocolTCP}[rnd.IntN(2)]
			}
			all = append(all, e)
		}
		return all
	}
	// What names have: single addresses, until then.
	answers := func(all []Entry) []Entry {
		for range rnd.IntN(3) {
			a := address()
			all = append(all, Entry{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: uint16(rnd.IntN(3)), Expires: 100})
		}
		return all
	}
	for range 400 {
		var policies []Policy
		for i := range 1 + rnd.IntN(3) {
			p := Policy{Name: fmt.Sprint("p", i), Enforce: rnd.IntN(2) == 0, Allow: answers(entries()), Deny: entries(), External: rnd.IntN(2) == 0}
			p.Listed = len(p.Allow) > 0 || rnd.IntN(2) == 0
			policies = append(policies, p)
		}
		tab, err := Compile(policies)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			a, protocol, port := address(), []uint8{protocolTCP, protocolUDP, 47}[rnd.IntN(3)], uint16(rnd.IntN(3))
			if protocol == 47 {
				port = 0
			}
			now := []uint64{1, 100}[rnd.IntN(2)]
			deny, hard := tab.lookup(a, protocol, port, now)
			for i := range policies {
				wd, wh := decide(&policies[i], a, protocol, port, now)
				if gd, gh := deny&(1<<i) != 0, hard&(1<<i) != 0; gd != wd || gh != wh {
					t.Fatalf("%s protocol %d port %d: policy %+v denies %v by name %v, the table says %v %v", a, protocol, port, policies[i], wd, wh, gd, gh)
				}
			}
		}
	}
}

// TestExpiry: an address that an answer gave is allowed for its time.
func TestExpiry(t *testing.T) {
	p := external()
	p.Allow = append(p.Allow, Entry{Prefix: netip.PrefixFrom(denied4, 32), Expires: 100}, Entry{Prefix: netip.PrefixFrom(denied6, 128), Port: 443, Expires: 100})
	tab := table(t, p)
	for _, c := range []struct {
		a    netip.Addr
		port uint16
		now  uint64
		deny bool
	}{{denied4, 80, 99, false}, {denied4, 80, 100, true}, {denied6, 443, 99, false}, {denied6, 80, 99, true}, {denied6, 443, 100, true}} {
		if deny, _ := tab.lookup(c.a, protocolTCP, c.port, c.now); (deny != 0) != c.deny {
			t.Errorf("%s port %d at %d: denied %v, want %v", c.a, c.port, c.now, deny != 0, c.deny)
		}
	}
}

// TestBounds: what a tap cannot hold is refused before anything changes.
func TestBounds(t *testing.T) {
	if _, err := Compile(make([]Policy, MaxPolicies+1)); err == nil {
		t.Error("too many policies are taken")
	}
	p := Policy{Listed: true}
	for i := range MaxPrefixes {
		p.Allow = append(p.Allow, Entry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32)})
	}
	if _, err := Compile([]Policy{p}); err == nil {
		t.Error("too many prefixes are taken")
	}
}
