package egress

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

func dnsName(s string) []byte {
	var b []byte
	for _, l := range strings.Split(s, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0)
}

// dnsRecord is a record with the name of the question, or another one.
func dnsRecord(owner string, kind uint16, ttl uint32, data []byte) []byte {
	b := []byte{0xc0, 12}
	if owner != "" {
		b = dnsName(owner)
	}
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func dnsMessage(id, flags uint16, name string, kind uint16, records ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, 0, 1, 0, byte(len(records)), 0, 0, 0, 0)
	b = append(b, dnsName(name)...)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = append(b, 0, 1)
	return append(b, slices.Concat(records...)...)
}

func TestParseAnswer(t *testing.T) {
	one := denied4.AsSlice()
	for name, c := range map[string]struct {
		message   []byte
		addresses string
		ttl       uint32
	}{
		"one":          {dnsMessage(1, 0x8180, "API.example.net", 1, dnsRecord("", 1, 300, one)), "192.0.2.66", 300},
		"by aliases":   {dnsMessage(1, 0x8180, "api.example.net", 1, dnsRecord("", 5, 20, dnsName("b.example")), dnsRecord("b.example", 1, 300, one)), "192.0.2.66", 20},
		"of another":   {dnsMessage(1, 0x8180, "api.example.net", 1, dnsRecord("evil.example", 1, 300, one)), "", 0},
		"in circles":   {dnsMessage(1, 0x8180, "api.example.net", 1, dnsRecord("", 5, 20, dnsName("b.example")), dnsRecord("b.example", 5, 20, dnsName("api.example.net"))), "", 0},
		"another kind": {dnsMessage(1, 0x8180, "api.example.net", 28, dnsRecord("", 1, 300, one)), "", 0},
		"an error":     {dnsMessage(1, 0x8183, "api.example.net", 1, dnsRecord("", 1, 300, one)), "", 0},
		"IPv6":         {dnsMessage(1, 0x8180, "api.example.net", 28, dnsRecord("", 28, 300, denied6.AsSlice())), "2001:db8:66::1", 300},
	} {
		a, err := parseAnswer(c.message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, x := range a.addresses {
			got = append(got, x.String())
		}
		if s := strings.Join(got, " "); s != c.addresses || a.name != "api.example.net" || s != "" && a.ttl != c.ttl {
			t.Errorf("%s: %q of %q for %d s", name, s, a.name, a.ttl)
		}
		for n := range c.message { // cut short anywhere it is refused, or says less
			if a, err := parseAnswer(c.message[:n]); err == nil && len(a.addresses) > 0 {
				t.Errorf("%s: the first %d bytes give %v", name, n, a.addresses)
			}
		}
	}
	dotted := dnsMessage(1, 0x8180, "apixexample.net", 1, dnsRecord("", 1, 300, denied4.AsSlice()))
	dotted[16] = '.'
	for name, b := range map[string][]byte{
		"a question":       dnsMessage(1, 0x0100, "api.example.net", 1),
		"a dot in a label": dotted,
		"pointer to self":  append(dnsMessage(1, 0x8180, "a.b", 1)[:12], 0xc0, 12, 0, 1, 0, 1),
		"pointer forwards": append(dnsMessage(1, 0x8180, "a.b", 1)[:12], 0xc0, 14, 0, 1, 0, 1),
	} {
		if a, err := parseAnswer(b); err == nil {
			t.Errorf("%s is read as %+v", name, a)
		}
	}
}

// FuzzAnswer: whatever an answer holds, an error gives nothing, and no more addresses
// come out than went in.
func FuzzAnswer(f *testing.F) {
	f.Add(dnsMessage(1, 0x8180, "api.example.net", 1, dnsRecord("", 5, 20, dnsName("b.example")), dnsRecord("b.example", 1, 300, denied4.AsSlice())))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err != nil && a != nil || err == nil && (len(a.name) > maxName || len(a.addresses) > maxRecords) {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

// TestNames: a name may be reached at the addresses that a resolver answered the
// guest with, and at no others; what others send in a resolver's place counts for
// nothing.
func TestNames(t *testing.T) {
	l := newLAN(t)
	resolver := netip.MustParseAddr("10.0.0.53")
	p := external()
	p.Names = []NameEntry{{Name: "api.example.net", Port: 443, Protocol: protocolTCP}}
	d, book := direct(t, l, func() (*Guarded, error) {
		return &Guarded{ID: vm, Devices: []Device{{Domain: vm, Name: l.name, MAC: guestMAC}}, Policies: []Policy{p}}, nil
	}, resolver)
	book.wait(t, 0, "filters by egress_allowlist")
	ask := func(id uint16) {
		t.Helper()
		q := append(l4(protocolUDP, 5353, 53, 0)[:8], dnsMessage(id, 0x0100, "api.example.net", 1)...)
		if got := l.send(ethernet(guestMAC, 0x0800, packet4(guest4, resolver, protocolUDP, 1, 0, nil, q))); len(got) != 1 {
			t.Fatal("the question does not leave")
		}
	}
	tell := func(from netip.Addr, id uint16, address netip.Addr) {
		t.Helper()
		a := append(l4(protocolUDP, 53, 5353, 0)[:8], dnsMessage(id, 0x8180, "api.example.net", 1, dnsRecord("", 1, 1, address.AsSlice()))...)
		f := ethernet(otherMAC, 0x0800, packet4(from, guest4, protocolUDP, 1, 0, nil, a))
		copy(f, guestMAC)
		if !l.receive(f, internal4) {
			t.Fatal("the answer does not arrive")
		}
	}
	if len(l.send(tcp4(denied4, 443))) != 0 {
		t.Error("reached before anybody asked")
	}
	other := netip.MustParseAddr("192.0.2.67")
	tell(resolver, 1, other) // nobody asked
	ask(2)
	tell(resolver, 3, other)                         // with another number
	tell(netip.MustParseAddr("10.0.0.54"), 2, other) // from somebody else
	tell(resolver, 2, denied4)
	tell(resolver, 2, other) // once is enough
	limit := time.Now().Add(20 * time.Second)
	for len(l.send(tcp4(denied4, 443))) == 0 { // a program tries again, too
		if time.Now().After(limit) {
			t.Fatal("the address that was answered is not reached")
		}
	}
	if len(l.send(tcp4(denied4, 80))) != 0 {
		t.Error("reached on a port that the entry does not name")
	}
	if len(l.send(tcp4(other, 443))) != 0 {
		t.Error("an address that no resolver answered with is reached")
	}
	d.Kick()
	book.mu.Lock()
	defer book.mu.Unlock()
	if n := len(slices.DeleteFunc(slices.Clone(book.all), func(s string) bool { return !strings.HasPrefix(s, record.ClassVMGuard.String()) })); n != 1 {
		t.Errorf("%d entries about the guard, want one: %q", n, book.all)
	}
}
