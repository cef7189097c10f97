package probe

import (
	"time"
)

const (
	// maxNameBytes bounds the addresses whose names are remembered, by what
	// they take.
	maxNameBytes = 1 << 20
	nameBytes    = 192 // of an entry, beside its name
	// Names are believed for as long as an answer says, within these bounds:
	// programs keep connections and addresses for longer than servers like.
	shortestName = time.Minute
	longestName  = time.Hour
)

// nameKey is an address as a process knows it, or, with process zero, as a
// resolver of a network namespace does.
type nameKey struct {
	process identity
	netns   uint32
	address [16]byte
}

type nameEntry struct {
	name  string
	until uint64
}

// addressNames are the names of addresses, by the answers that processes got.
// It is not safe for concurrent use.
type addressNames struct {
	all   map[nameKey]nameEntry
	bytes int
}

func newAddressNames() *addressNames { return &addressNames{all: map[nameKey]nameEntry{}} }

// learn notes what an answer says to a process; where the process asks for
// others, to all in its network namespace.
func (a *addressNames) learn(p identity, netns uint32, m *dnsMessage, now uint64, others bool) {
	if len(m.addresses) == 0 {
		return
	}
	ttl := min(max(time.Duration(m.ttl)*time.Second, shortestName), longestName)
	e := nameEntry{m.question, now + uint64(ttl)}
	for _, b := range m.addresses {
		address := wide(b)
		a.put(nameKey{p, netns, address}, e, now)
		if others {
			a.put(nameKey{identity{}, netns, address}, e, now)
		}
	}
}

func (a *addressNames) put(k nameKey, e nameEntry, now uint64) {
	a.drop(k)
	if a.bytes+nameBytes+len(e.name) > maxNameBytes {
		a.shrink(now)
	}
	a.all[k] = e
	a.bytes += nameBytes + len(e.name)
}

func (a *addressNames) drop(k nameKey) {
	if e, ok := a.all[k]; ok {
		a.bytes -= nameBytes + len(e.name)
		delete(a.all, k)
	}
}

// shrink forgets what is over, and if that is little an eighth of the rest,
// whichever comes first.
func (a *addressNames) shrink(now uint64) {
	for k, e := range a.all {
		if e.until < now {
			a.drop(k)
		}
	}
	for k := range a.all {
		if a.bytes <= maxNameBytes-maxNameBytes/8 {
			return
		}
		a.drop(k)
	}
}

// name is what a process knows an address by; else what the newest answer to a
// resolver of its network namespace said.
func (a *addressNames) name(p identity, netns uint32, address []byte, now uint64) []byte {
	if len(a.all) == 0 || len(address) == 0 {
		return nil
	}
	w := wide(address)
	for _, k := range []nameKey{{p, netns, w}, {identity{}, netns, w}} {
		if e, ok := a.all[k]; ok && e.until >= now {
			return []byte(e.name)
		}
	}
	return nil
}

// wide makes an IPv4 address one of IPv6.
func wide(b []byte) (w [16]byte) {
	if len(b) == 4 {
		w[10], w[11] = 0xff, 0xff
		copy(w[12:], b)
		return w
	}
	copy(w[:], b)
	return w
}
