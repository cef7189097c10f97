package egress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// answered is what an answer of DNS says of the name that was asked for.
type answered struct {
	name      string // in lower case, without the dot at its end
	addresses []netip.Addr
	ttl       uint32 // seconds: the shortest on the way to the addresses
}

// Bounds of what is read of an answer.
const (
	maxRecords = 64
	maxName    = 255
	maxLabels  = 128
)

// parseAnswer reads an answer: the addresses of the name in its question, by the
// aliases that lead there. What the answer holds besides is not looked at.
func parseAnswer(b []byte) (*answered, error) {
	fail := func(what string) (*answered, error) {
		return nil, fmt.Errorf("read answer of DNS: %s: %w", what, record.ErrReject)
	}
	if len(b) < 12 {
		return fail("it is too short")
	}
	flags, questions, records := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	if flags&0x8000 == 0 || flags&0x7800 != 0 || questions != 1 {
		return fail("it answers no single question")
	}
	name, at, ok := readName(b, 12)
	if !ok || at+4 > len(b) {
		return fail("its question is cut short")
	}
	kind, class := binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
	out := &answered{name: name}
	const typeA, typeAAAA, internet = 1, 28, 1
	if flags&15 != 0 || class != internet || kind != typeA && kind != typeAAAA {
		return out, nil
	}
	all, ok := readRecords(b, at+4, min(int(records), maxRecords))
	if !ok {
		return fail("its records are cut short")
	}
	out.follow(all, kind)
	return out, nil
}

type resource struct {
	owner, alias string
	kind         uint16
	ttl          uint32
	address      netip.Addr
}

func readRecords(b []byte, at, n int) ([]resource, bool) {
	const typeA, typeCNAME, typeAAAA, internet = 1, 5, 28, 1
	var all []resource
	for range n {
		owner, next, ok := readName(b, at)
		if !ok || next+10 > len(b) {
			return nil, false
		}
		r := resource{owner: owner, kind: binary.BigEndian.Uint16(b[next:]), ttl: binary.BigEndian.Uint32(b[next+4:])}
		class, size := binary.BigEndian.Uint16(b[next+2:]), int(binary.BigEndian.Uint16(b[next+8:]))
		data := next + 10
		if at = data + size; at > len(b) {
			return nil, false
		}
		if class != internet {
			continue
		}
		switch {
		case r.kind == typeA && size == 4, r.kind == typeAAAA && size == 16:
			r.address, _ = netip.AddrFromSlice(b[data:at])
		case r.kind == typeCNAME:
			if r.alias, _, ok = readName(b, data); !ok {
				return nil, false
			}
		default:
			continue
		}
		all = append(all, r)
	}
	return all, true
}

// follow takes the addresses that the aliases of the name lead to.
func (a *answered) follow(all []resource, kind uint16) {
	const typeCNAME = 5
	a.ttl = 1<<32 - 1
	name := a.name
	for range maxRecords { // aliases may lead in circles
		next := ""
		for _, r := range all {
			if r.owner == name && r.kind == typeCNAME {
				next, a.ttl = r.alias, min(a.ttl, r.ttl)
				break
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	for _, r := range all {
		if r.owner == name && r.kind == kind {
			a.addresses, a.ttl = append(a.addresses, r.address.Unmap()), min(a.ttl, r.ttl)
		}
	}
}

// readName reads a name, and returns where what follows it stands. Pointers lead
// backwards only, so that they end.
func readName(b []byte, at int) (name string, next int, ok bool) {
	var s strings.Builder
	next, limit := -1, at
	for range maxLabels {
		if at >= len(b) {
			return "", 0, false
		}
		n := int(b[at])
		switch {
		case n == 0:
			if next < 0 {
				next = at + 1
			}
			return strings.ToLower(s.String()), next, true
		case n&0xc0 == 0xc0:
			if at+1 >= len(b) {
				return "", 0, false
			}
			to := (n&0x3f)<<8 | int(b[at+1])
			if to >= limit {
				return "", 0, false
			}
			if next < 0 {
				next = at + 2
			}
			at, limit = to, to
		case n&0xc0 != 0 || at+1+n > len(b) || s.Len()+n+1 > maxName || bytes.IndexByte(b[at+1:at+1+n], '.') >= 0: // a dot in a label would read like two
			return "", 0, false
		default:
			if s.Len() > 0 {
				s.WriteByte('.')
			}
			s.Write(b[at+1 : at+1+n])
			at += 1 + n
		}
	}
	return "", 0, false
}
