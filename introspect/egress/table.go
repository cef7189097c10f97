package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	bpfegress "github.com/provostd/provost/bpf/egress"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// Bounds of what one tap may be given. The kernel's tables have these sizes.
const (
	MaxPolicies = 32
	MaxPrefixes = 65536
	MaxPorts    = 16384
)

// Policy is what one policy says about what a domain sends.
type Policy struct {
	Name    string
	Enforce bool // or only tell
	// Allow is what may be reached; Listed says that there is such a list, and so
	// that nothing else may.
	Allow  []Entry
	Listed bool
	// Names are more of it, by their names in DNS.
	Names []NameEntry
	// External has the list be about external destinations only.
	External bool
	// Deny may not be reached, whatever Allow says.
	Deny []Entry
}

// Entry is a destination.
type Entry struct {
	Prefix   netip.Prefix
	Port     uint16 // 0: every one
	Protocol uint8  // of Port; 0: TCP and UDP
	// Expires is when the entry ends, in nanoseconds of the boot clock; 0: never.
	Expires uint64
}

// text orders entries.
func (e *Entry) text() string {
	return fmt.Sprintf("%s %05d %d %d", e.Prefix, e.Port, e.Protocol, e.Expires)
}

// Table is what the policies of a domain come to.
type Table struct {
	policies       []string // by their bits
	enforce, audit uint32
	prefixes       []netip.Prefix // by their numbers
	rules          []bpfegress.EgressRule
	ports          map[bpfegress.EgressPortKey]bpfegress.EgressPortRule
}

type portOf struct {
	protocol uint8
	port     uint16
}

// said is what policies say of one prefix, by their bits, together with what they
// say of the wider ones.
type said struct {
	allow, deny, internal uint32
	ports                 map[portOf][3]uint32 // allow, deny, allowed until expires
	expiring              uint32               // allowed until expires
	expires               uint64
}

// Compile turns policies into a table. Beyond the bounds of a tap it is rejected.
func Compile(policies []Policy) (*Table, error) {
	if len(policies) > MaxPolicies {
		return nil, fmt.Errorf("compile egress rules: %d policies are about one domain, the limit is %d: %w", len(policies), MaxPolicies, record.ErrReject)
	}
	t := &Table{ports: map[bpfegress.EgressPortKey]bpfegress.EgressPortRule{}}
	own := map[netip.Prefix]*said{}
	at := func(p netip.Prefix) *said {
		p = p.Masked()
		if own[p] == nil {
			own[p] = &said{}
		}
		return own[p]
	}
	at(netip.MustParsePrefix("0.0.0.0/0"))
	at(netip.MustParsePrefix("::/0"))
	var listed uint32
	for i, p := range policies {
		bit := uint32(1) << i
		t.policies = append(t.policies, p.Name)
		if p.Enforce {
			t.enforce |= bit
		} else {
			t.audit |= bit
		}
		if p.Listed {
			listed |= bit
			if p.External {
				for _, in := range policy.Internal() {
					at(in).internal |= bit
				}
			}
		}
		for _, e := range p.Allow {
			at(e.Prefix).add(e, bit, 0)
		}
		for _, e := range p.Deny {
			at(e.Prefix).add(e, bit, 1)
		}
	}
	if len(own) > MaxPrefixes {
		return nil, fmt.Errorf("compile egress rules: policies name %d prefixes for one domain, the limit is %d: %w", len(own), MaxPrefixes, record.ErrReject)
	}
	t.inherit(own, listed)
	if len(t.ports) > MaxPorts {
		return nil, fmt.Errorf("compile egress rules: policies name %d ports of prefixes for one domain, the limit is %d: %w", len(t.ports), MaxPorts, record.ErrReject)
	}
	return t, nil
}

func (s *said) add(e Entry, bit uint32, which int) {
	if e.Port == 0 {
		switch {
		case which == 1:
			s.deny |= bit
		case e.Expires != 0:
			s.expiring |= bit
			s.expires = max(s.expires, e.Expires)
		default:
			s.allow |= bit
		}
		return
	}
	protocols := []uint8{e.Protocol}
	if e.Protocol == 0 {
		protocols = []uint8{protocolTCP, protocolUDP}
	}
	if s.ports == nil {
		s.ports = map[portOf][3]uint32{}
	}
	if e.Expires != 0 && which == 0 {
		which = 2
	}
	for _, proto := range protocols {
		m := s.ports[portOf{proto, e.Port}]
		m[which] |= bit
		s.ports[portOf{proto, e.Port}] = m
	}
	s.expires = max(s.expires, e.Expires)
}

// inherit walks the prefixes so that the wider come before the narrower, and makes
// a rule of each: the kernel looks at the longest one only, which therefore says
// everything that those around it say.
func (t *Table) inherit(own map[netip.Prefix]*said, listed uint32) {
	for p := range own {
		t.prefixes = append(t.prefixes, p)
	}
	slices.SortFunc(t.prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var around []netip.Prefix // those that contain the next one, widest first
	for i, p := range t.prefixes {
		for len(around) > 0 && !(around[len(around)-1].Addr().Is4() == p.Addr().Is4() && around[len(around)-1].Contains(p.Addr())) {
			around = around[:len(around)-1]
		}
		s := own[p]
		if len(around) > 0 {
			s.join(own[around[len(around)-1]])
		}
		around = append(around, p)
		t.rule(uint32(i), s, listed)
	}
}

// join adds what is said of a prefix around.
func (s *said) join(o *said) {
	s.allow |= o.allow
	s.deny |= o.deny
	s.internal |= o.internal
	for k, m := range o.ports {
		if s.ports == nil {
			s.ports = map[portOf][3]uint32{}
		}
		mine := s.ports[k]
		s.ports[k] = [3]uint32{mine[0] | m[0], mine[1] | m[1], mine[2]}
	}
}

func (t *Table) rule(number uint32, s *said, listed uint32) {
	denied := func(allow uint32) uint32 { return listed &^ (allow | s.internal) }
	r := bpfegress.EgressRule{Number: number, Hard: s.deny, HardAfter: s.deny, Expires: s.expires}
	r.Deny = denied(s.allow|s.expiring) | s.deny
	r.DenyAfter = denied(s.allow) | s.deny
	for k, m := range s.ports {
		r.Ports = 1
		hard := s.deny | m[1]
		t.ports[bpfegress.EgressPortKey{Number: number, Port: k.port, Protocol: k.protocol}] =
			bpfegress.EgressPortRule{Deny: denied(s.allow|s.expiring|m[0]|m[2]) | hard, Hard: hard, DenyAfter: denied(s.allow|m[0]) | hard, HardAfter: hard}
	}
	t.rules = append(t.rules, r)
}

// Rule names the prefix of a rule by its number.
func (t *Table) Rule(number uint32) (netip.Prefix, bool) {
	if number >= uint32(len(t.prefixes)) {
		return netip.Prefix{}, false
	}
	return t.prefixes[number], true
}

// Policies names the policies of bits.
func (t *Table) Policies(bits uint32) []string {
	var names []string
	for i, n := range t.policies {
		if bits&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// Empty reports whether no policy is about the domain.
func (t *Table) Empty() bool { return len(t.policies) == 0 }

// key is a prefix as the kernel's tables have it: IPv4 within ::ffff:0:0/96.
func key(p netip.Prefix) bpfegress.EgressPrefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return bpfegress.EgressPrefix{Bits: uint32(bits), Address: p.Addr().As16()}
}

// Numbers of protocols that have ports in policies.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
	protocolSCTP   = 132
)
