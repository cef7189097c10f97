package probe

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// wireName is a name as DNS carries it.
func wireName(name string) []byte {
	var b []byte
	for l := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0)
}

func wireHead(flags, questions, answers uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, 7)
	for _, n := range []uint16{flags, questions, answers, 0, 0} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return b
}

func wireRecord(owner []byte, kind uint16, ttl uint32, data []byte) []byte {
	b := append(bytes.Clone(owner), 0, 0, 0, 1)
	binary.BigEndian.PutUint16(b[len(owner):], kind)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func question(name string, kind uint16) []byte {
	return append(wireName(name), 0, byte(kind), 0, 1)
}

func TestParseDNS(t *testing.T) {
	q := append(wireHead(0x0100, 1, 0), question("Www.A.example", 28)...)
	m, err := parseDNS(q)
	if err != nil || m.response || m.question != "www.a.example" || m.qtype != typeAAAA || m.id != 7 {
		t.Errorf("query: %+v %v", m, err)
	}
	toQuestion := []byte{0xc0, 12}
	a := append(wireHead(0x8183, 1, 5), question("www.a.example", 1)...)
	a = append(a, wireRecord(wireName("evil.example"), typeA, 1, []byte{6, 6, 6, 6})...) // leads nowhere
	a = append(a, wireRecord(toQuestion, typeCNAME, 300, wireName("b.example"))...)
	a = append(a, wireRecord(wireName("b.example"), typeA, 60, []byte{192, 0, 2, 1})...)
	a = append(a, wireRecord(wireName("B.EXAMPLE"), typeAAAA, 90, bytes.Repeat([]byte{5}, 16))...)
	a = append(a, wireRecord(wireName("b.example"), typeA, 60, []byte{1, 2, 3})...) // too short an address
	m, err = parseDNS(a)
	if err != nil || !m.response || m.code != 3 || len(m.names) != 1 || m.names[0] != "b.example" || m.ttl != 60 ||
		len(m.addresses) != 2 || !bytes.Equal(m.addresses[0], []byte{192, 0, 2, 1}) || len(m.addresses[1]) != 16 {
		t.Errorf("answer: %+v %v", m, err)
	}
	// What is cut off takes nothing of the rest away.
	if m, err := parseDNS(a[:len(a)-3]); err != nil || len(m.addresses) != 2 {
		t.Errorf("cut answer: %+v %v", m, err)
	}
	label := append(wireHead(0, 1, 0), 4, 'a', '.', 0, '\\', 0, 0, 1, 0, 1)
	if m, err := parseDNS(label); err != nil || m.question != `a\046\000\092` {
		t.Errorf("label of odd bytes: %+v %v", m, err)
	}
	if m, err := parseDNS(append(wireHead(0, 1, 0), 0, 0, 2, 0, 1)); err != nil || m.question != "." {
		t.Errorf("root: %+v %v", m, err)
	}
	for what, b := range map[string][]byte{
		"nothing":           nil,
		"two questions":     append(wireHead(0, 2, 0), question("a", 1)...),
		"no question":       wireHead(0, 0, 0),
		"pointer to itself": append(wireHead(0, 1, 0), 0xc0, 12, 0, 1, 0, 1),
		"pointer ahead":     append(wireHead(0, 1, 0), 0xc0, 14, 0, 0, 1, 0, 1),
		"pointers in turn":  append(wireHead(0, 1, 0), 1, 'a', 0xc0, 12, 0, 1, 0, 1),
		"long label":        append(wireHead(0, 1, 0), append([]byte{64}, make([]byte, 80)...)...),
		"long name":         append(wireHead(0, 1, 0), bytes.Repeat([]byte{1, 'a'}, 200)...),
		"no type":           append(wireHead(0, 1, 0), wireName("a")...),
	} {
		if m, err := parseDNS(b); err == nil {
			t.Errorf("%s is accepted: %+v", what, m)
		}
	}
}

func TestAddressNames(t *testing.T) {
	a := addressNames{}
	p, q := identity{1, 10}, identity{2, 20}
	learn := func(who identity, name string, ttl uint32, now uint64) {
		a.learn(who, 9, &dnsMessage{question: name, ttl: ttl, addresses: [][]byte{{192, 0, 2, 1}}}, now)
	}
	want := func(who identity, netns uint32, now uint64, name string) {
		t.Helper()
		if got := string(a.name(who, netns, []byte{192, 0, 2, 1}, now)); got != name {
			t.Errorf("process %d in %d at %d: %q, want %q", who.pid, netns, now, got, name)
		}
	}
	want(p, 9, 0, "")
	learn(p, "a.example", 1, 0)
	want(p, 9, 1, "a.example")
	want(q, 9, 1, "a.example") // p may be its resolver
	want(q, 8, 1, "")          // not in another network
	learn(q, "b.example", 1<<31, 2)
	want(p, 9, 3, "a.example") // its own answer counts more
	want(q, 9, 3, "b.example")
	want(p, 9, uint64(shortestName)+1, "b.example")
	want(q, 9, uint64(longestName)+3, "")
	for i := range uint32(3 * maxNames) {
		a.learn(p, i, &dnsMessage{question: "x", ttl: 60, addresses: [][]byte{{10, byte(i >> 16), byte(i >> 8), byte(i)}}}, 0)
	}
	if len(a) > maxNames {
		t.Errorf("%d names are kept, want at most %d", len(a), maxNames)
	}
}

// Whatever a datagram holds, reading it ends, and an answer's names and
// addresses are bounded.
func FuzzParseDNS(f *testing.F) {
	f.Add(append(wireHead(0x0100, 1, 0), question("www.a.example", 28)...))
	a := append(wireHead(0x8180, 1, 2), question("www.a.example", 1)...)
	a = append(a, wireRecord([]byte{0xc0, 12}, typeCNAME, 300, []byte{1, 'b', 0xc0, 16})...)
	f.Add(append(a, wireRecord([]byte{0xc0, 43}, typeA, 60, []byte{192, 0, 2, 1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseDNS(b)
		if err != nil {
			if m.question != "" || m.addresses != nil {
				t.Errorf("an error, and %+v", m)
			}
			return
		}
		if m.question == "" || len(m.question) > 4*maxText || len(m.names)+len(m.addresses) > maxRecords {
			t.Errorf("question of %d bytes, %d names, %d addresses", len(m.question), len(m.names), len(m.addresses))
		}
		for _, name := range append(m.names, m.question) {
			if strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' || r >= 'A' && r <= 'Z' }) {
				t.Errorf("name %q", name)
			}
		}
		for _, x := range m.addresses {
			if len(x) != 4 && len(x) != 16 {
				t.Errorf("address %x", x)
			}
		}
	})
}
