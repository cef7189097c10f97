package probe

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
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

// An answer's aliases are told once each, and what is not told is not learned.
func TestParseDNSBounded(t *testing.T) {
	build := func(n int, record func(i int) []byte) dnsMessage {
		t.Helper()
		b := append(wireHead(0x8180, 1, uint16(n)), question("a.example", 1)...)
		for i := range n {
			b = append(b, record(i)...)
		}
		m, err := parseDNS(b)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	toQuestion := []byte{0xc0, 12}
	// Names of 255 odd bytes, which are four times as long as text.
	long := func(i int) []byte {
		name := []byte{3, byte(i), byte(i >> 8), 'x'}
		for range 3 {
			name = append(append(name, 63), make([]byte, 63)...)
		}
		return append(name, 0)
	}
	m := build(64, func(i int) []byte {
		if i == 63 {
			return wireRecord(toQuestion, typeA, 60, []byte{6, 6, 6, 6})
		}
		return wireRecord(toQuestion, typeCNAME, 60, long(i))
	})
	text := 0
	for _, n := range m.names {
		text += len(n)
	}
	if text == 0 || text > maxAliases || !m.cut || len(m.addresses) != 0 {
		t.Errorf("%d aliases of %d bytes, cut %v, %d addresses", len(m.names), text, m.cut, len(m.addresses))
	}
	m = build(20, func(int) []byte { return wireRecord(toQuestion, typeCNAME, 60, wireName("b.example")) })
	if len(m.names) != 1 || m.cut {
		t.Errorf("one alias told %d times, cut %v", len(m.names), m.cut)
	}
	m = build(maxRecords+1, func(i int) []byte { return wireRecord(toQuestion, typeA, 60, []byte{10, 0, 0, byte(i)}) })
	if len(m.addresses) != maxRecords || !m.cut {
		t.Errorf("%d addresses, cut %v", len(m.addresses), m.cut)
	}
}

// An answer counts only if it was asked for: by that socket, of that server, by
// that number and name; and for others only if a resolver got it.
func TestAnswersMatch(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	pid, user := uint32(5), uint32(1000)
	sample := func(answer uint16, change func(*bpf.ProbeEventDns), data []byte) *record.Event {
		t.Helper()
		h := testHead(bpf.ProbeEventTypeEV_DNS, pid)
		h.Euid, h.Time = user, 1000
		x := bpf.ProbeEventDns{H: h, Cookie: 7, Server: [16]uint8{9, 9, 9, 9}, Family: 2, DataLen: uint16(len(data)), Port: 4000, Answer: answer, Netns: 3}
		if change != nil {
			change(&x)
		}
		e, err := d.decode(&x.H, raw(x, string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	ask := func(name string) { sample(0, nil, append(wireHead(0x0100, 1, 0), question(name, 1)...)) }
	reply := func(name string, address byte) []byte {
		b := append(wireHead(0x8180, 1, 1), question(name, 1)...)
		return append(b, wireRecord([]byte{0xc0, 12}, typeA, 600, []byte{192, 0, 2, address})...)
	}
	name := func(who uint32, address byte) string {
		return string(d.names.name(identity{who, uint64(who) * 10}, 3, []byte{192, 0, 2, address}, 2000))
	}
	ask("www.example")
	wrong := reply("www.example", 1)
	wrong[1]++ // the number of the question
	for what, e := range map[string]*record.Event{
		"number": sample(1, nil, wrong),
		"name":   sample(1, nil, reply("evil.example", 1)),
		"server": sample(1, func(x *bpf.ProbeEventDns) { x.Server[3]++ }, reply("www.example", 1)),
		"socket": sample(1, func(x *bpf.ProbeEventDns) { x.Cookie++ }, reply("www.example", 1)),
		"port":   sample(1, func(x *bpf.ProbeEventDns) { x.Port++ }, reply("www.example", 1)),
		"time":   sample(1, func(x *bpf.ProbeEventDns) { x.H.Time += uint64(askedFor) + 1 }, reply("www.example", 1)),
	} {
		if e.Reason != "not asked" || e.Dns.Addresses != nil || e.Dns.Names != nil || name(5, 1) != "" {
			t.Errorf("an answer with another %s is believed: %v, name %q", what, e, name(5, 1))
		}
	}
	if e := sample(1, nil, reply("www.example", 1)); e.Reason != "" || len(e.Dns.Addresses) != 1 || name(5, 1) != "www.example" {
		t.Errorf("an answer is not believed: %v", e)
	}
	if n := name(6, 1); n != "" {
		t.Errorf("another process knows it as %q", n)
	}
	// The resolver of the system asks for all, and nobody else can be it.
	for _, c := range []struct {
		pid, user uint32
		path      string
		want      string
	}{
		{20, 101, "systemd-resolved\x00systemd\x00lib\x00usr\x00", "r.example"},
		{21, 1000, "systemd-resolved\x00systemd\x00lib\x00usr\x00", ""},
		{22, 101, "systemd-resolved\x00tmp\x00", ""},
		{23, 33, "apache2\x00sbin\x00usr\x00", ""},
	} {
		pid, user = c.pid, c.user
		h := testHead(bpf.ProbeEventTypeEV_EXEC, pid)
		if _, err := d.decode(&h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10}, PathLen: uint16(len(c.path))}, c.path)); err != nil {
			t.Fatal(err)
		}
		ask("r.example")
		sample(1, nil, reply("r.example", byte(pid)))
		if own, others := name(pid, byte(pid)), name(6, byte(pid)); own != "r.example" || others != c.want {
			t.Errorf("%q as user %d: itself knows it as %q, others as %q, want %q", c.path, c.user, own, others, c.want)
		}
	}
}

func TestAddressNames(t *testing.T) {
	a := newAddressNames()
	p, q := identity{1, 10}, identity{2, 20}
	learn := func(who identity, name string, ttl uint32, now uint64, others bool) {
		a.learn(who, 9, &dnsMessage{question: name, ttl: ttl, addresses: [][]byte{{192, 0, 2, 1}}}, now, others)
	}
	want := func(who identity, netns uint32, now uint64, name string) {
		t.Helper()
		if got := string(a.name(who, netns, []byte{192, 0, 2, 1}, now)); got != name {
			t.Errorf("process %d in %d at %d: %q, want %q", who.pid, netns, now, got, name)
		}
	}
	want(p, 9, 0, "")
	learn(p, "a.example", 1, 0, false)
	want(p, 9, 1, "a.example")
	want(q, 9, 1, "") // what p was told is p's
	learn(identity{3, 30}, "c.example", 1, 1, true)
	want(q, 9, 1, "c.example") // by a resolver
	want(q, 8, 1, "")          // not in another network
	learn(q, "b.example", 1<<31, 2, true)
	want(p, 9, 3, "a.example") // its own answer counts more
	want(q, 9, 3, "b.example")
	want(p, 9, uint64(shortestName)+1, "b.example")
	want(q, 9, uint64(longestName)+3, "")
	for i := range uint32(3 * maxNameBytes / nameBytes) {
		a.learn(p, i, &dnsMessage{question: "x", ttl: 60, addresses: [][]byte{{10, byte(i >> 16), byte(i >> 8), byte(i)}}}, 0, i%2 == 0)
	}
	n := 0
	for _, e := range a.all {
		n += nameBytes + len(e.name)
	}
	if n > maxNameBytes || n < maxNameBytes/2 || n != a.bytes {
		t.Errorf("names of %d bytes are kept, booked %d, want at most %d", n, a.bytes, maxNameBytes)
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
