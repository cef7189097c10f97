package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	dnsHeader  = 12
	maxJumps   = 16  // compression pointers of one name
	maxRecords = 64  // of an answer that are looked at
	maxText    = 255 // of a name without escapes, in its wire form
	// maxAliases bounds the text of all aliases that an answer is told with:
	// compressed records of long names would else make a payload too large.
	maxAliases = 4096
)

// Types of resource records.
const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
)

// dnsMessage is what is read of a datagram of DNS. Names are text in lower
// case, since DNS knows no case; a byte that is no letter, digit or sign of a
// host's name is written \DDD, so that no label can look like two.
type dnsMessage struct {
	id        uint16
	response  bool
	code      uint8
	question  string
	qtype     uint16
	names     []string // aliases of the question, in the order of the answer
	addresses [][]byte
	ttl       uint32 // shortest of those on the way to the addresses, seconds
	cut       bool   // there may be more than was read
}

var errDNS = errors.New("not a message of DNS")

// parseDNS reads a message that a guest's process or anyone on its network made
// up. Of the answer section only those records count that lead from the
// question to addresses: a server can add any others.
func parseDNS(b []byte) (dnsMessage, error) {
	if len(b) < dnsHeader {
		return dnsMessage{}, fmt.Errorf("%w: %d bytes", errDNS, len(b))
	}
	flags := binary.BigEndian.Uint16(b[2:])
	m := dnsMessage{id: binary.BigEndian.Uint16(b), response: flags>>15 == 1, code: uint8(flags & 15)}
	if n := binary.BigEndian.Uint16(b[4:]); n != 1 {
		return dnsMessage{}, fmt.Errorf("%w: %d questions", errDNS, n)
	}
	at := dnsHeader
	var err error
	if m.question, at, err = dnsName(b, at); err != nil {
		return dnsMessage{}, err
	}
	if len(b)-at < 4 {
		return dnsMessage{}, fmt.Errorf("%w: no type of the question", errDNS)
	}
	m.qtype = binary.BigEndian.Uint16(b[at:])
	at += 4
	if m.response {
		m.answers(b, at, int(binary.BigEndian.Uint16(b[6:])))
	}
	return m, nil
}

// answers reads n records, or those before the first that is damaged or cut.
func (m *dnsMessage) answers(b []byte, at, n int) {
	m.ttl = 1<<32 - 1
	owners := map[string]bool{m.question: true}
	text := 0
	m.cut = true
	for range min(n, maxRecords) {
		owner, next, err := dnsName(b, at)
		if err != nil || len(b)-next < 10 {
			return
		}
		kind, ttl := binary.BigEndian.Uint16(b[next:]), binary.BigEndian.Uint32(b[next+4:])
		data := next + 10
		at = data + int(binary.BigEndian.Uint16(b[next+8:]))
		if at > len(b) {
			return
		}
		if !owners[owner] {
			continue
		}
		switch {
		case kind == typeCNAME:
			alias, _, err := dnsName(b[:at], data)
			if err != nil {
				return
			}
			if owners[alias] {
				continue
			}
			if text += len(alias); text > maxAliases {
				return
			}
			owners[alias] = true
			m.names = append(m.names, alias)
		case kind == typeA && at-data == 4, kind == typeAAAA && at-data == 16:
			m.addresses = append(m.addresses, b[data:at:at])
		default:
			continue
		}
		m.ttl = min(m.ttl, ttl)
	}
	m.cut = n > maxRecords
}

// dnsName reads a name and returns where what follows it begins. Pointers lead
// back only, so each name ends.
func dnsName(b []byte, at int) (name string, next int, err error) {
	var text []byte
	next = -1
	length, jumps, limit := 0, 0, at+1
	for {
		if at >= len(b) {
			return "", 0, fmt.Errorf("%w: a name runs out of it", errDNS)
		}
		n := int(b[at])
		switch {
		case n == 0:
			if next < 0 {
				next = at + 1
			}
			if len(text) == 0 {
				return ".", next, nil
			}
			return string(text[:len(text)-1]), next, nil
		case n >= 0xc0:
			if at+1 >= len(b) {
				return "", 0, fmt.Errorf("%w: a pointer runs out of it", errDNS)
			}
			if next < 0 {
				next = at + 2
			}
			to := n&0x3f<<8 | int(b[at+1])
			if jumps++; jumps > maxJumps || to >= limit-1 {
				return "", 0, fmt.Errorf("%w: pointers lead nowhere", errDNS)
			}
			at, limit = to, to+1
		case n > 63:
			return "", 0, fmt.Errorf("%w: a label of unknown kind", errDNS)
		default:
			if length += n + 1; length > maxText || at+1+n > len(b) {
				return "", 0, fmt.Errorf("%w: a name is too long", errDNS)
			}
			text = append(appendLabel(text, b[at+1:at+1+n]), '.')
			at += 1 + n
		}
	}
}

func appendLabel(text, label []byte) []byte {
	for _, c := range label {
		switch {
		case c >= 'A' && c <= 'Z':
			text = append(text, c+'a'-'A')
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '*', c == '/':
			text = append(text, c)
		default:
			text = fmt.Appendf(text, "\\%03d", c)
		}
	}
	return text
}
