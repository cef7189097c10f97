package index

import (
	"bytes"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Query says which entries are wanted: those that every filter given admits.
// The zero value wants all.
type Query struct {
	Logs         []chain.LogID // of any of these
	NoLog        bool          // of none: a domain that has no log
	Since, Until int64         // host wall time, Unix nanoseconds, both included; 0: open
	Classes      []record.Class
	Path         Pattern // of what the entry is about
	Exe          Pattern // of the process that did it
	Sha256       []byte  // of a file or an executable
	Address      netip.Prefix
	Port         uint16  // of an address that Address admits; 0: any
	Process      Process // that did it
	UID          *uint32 // of the process, real or effective
	Account      string  // that a program spoke of (auth.*)
	Name         Pattern // of DNS: asked for, answered, or connected to

	Oldest bool    // oldest first
	From   *uint64 // ordinal to begin with, in the order asked for
	Budget int     // entries to read before the search stops; 0: any number

	parent, object Process // of lineage: its parent, and what it acted upon
}

// OfPayloads reports whether a filter looks into payloads, so that the answer
// tells what stands in them even where they are left out.
func (q *Query) OfPayloads() bool {
	return !q.Path.none() || !q.Exe.none() || !q.Name.none() || len(q.Sha256) > 0 || q.Address.IsValid() || q.Port != 0 ||
		q.Process.Pid != 0 || q.UID != nil || q.Account != ""
}

// Process names a process: by its pid, by pid and start, or with the boot as
// well. The zero value names none.
type Process struct {
	Pid   uint32
	Start uint64   // CLOCK_BOOTTIME of the guest, nanoseconds
	Boot  [16]byte // boot id
}

// Pattern admits strings. The zero value admits all.
type Pattern struct {
	text   string // exact, or what stands before the first sign
	glob   string // "": no pattern
	prefix bool   // everything that begins with text
}

// ParsePattern returns the pattern which admits s, everything below it where s
// ends with a slash, or what it matches where it holds one of *?[ as path.Match
// has them: a star does not pass a slash, a backslash makes a sign plain.
func ParsePattern(s string) (Pattern, error) {
	if strings.HasSuffix(s, "/**") {
		s = s[:len(s)-2]
	}
	sign := strings.IndexAny(s, `*?[\`)
	if sign < 0 {
		return Pattern{text: s, prefix: strings.HasSuffix(s, "/")}, nil
	}
	if _, err := path.Match(s, ""); err != nil {
		return Pattern{}, fmt.Errorf("%q is no pattern: a bracket is open, or a backslash stands at its end: %w", s, record.ErrReject)
	}
	return Pattern{text: s[:sign], glob: s}, nil
}

// Exactly returns the pattern which admits s only.
func Exactly(s []byte) Pattern { return Pattern{text: string(s)} }

func (p *Pattern) none() bool { return p.text == "" && p.glob == "" }

func (p *Pattern) match(b []byte) bool {
	switch {
	case p.glob != "":
		ok, _ := path.Match(p.glob, string(b)) // parsed: it is well formed
		return ok
	case p.prefix:
		return bytes.HasPrefix(b, []byte(p.text))
	}
	return string(b) == p.text
}

// probe is one filter as the index sees it: the terms of a kind that admit an
// entry.
type probe struct {
	kind byte
	// exact lists the terms, where it is not nil; else they are those that
	// begin with prefix and that ok admits.
	exact  [][]byte
	prefix []byte
	ok     func(term []byte) bool // nil: all of the prefix
}

// admits decides on a whole term.
func (p *probe) admits(term []byte) bool {
	if p.exact != nil {
		for _, e := range p.exact {
			if bytes.Equal(e, term) {
				return true
			}
		}
		return false
	}
	return bytes.HasPrefix(term, p.prefix) && (p.ok == nil || p.ok(term))
}

// probes returns the filters, those first that are answered by a single row.
func (q *Query) probes() []probe {
	var exact, wide []probe
	one := func(kind byte, terms ...[]byte) { exact = append(exact, probe{kind: kind, exact: terms}) }
	pattern := func(kind byte, p *Pattern) {
		switch {
		case p.none():
		case p.glob == "" && !p.prefix:
			one(kind, []byte(p.text))
		default:
			wide = append(wide, probe{kind: kind, prefix: []byte(p.text), ok: p.match})
		}
	}
	process := func(kind byte, p *Process) {
		switch {
		case p.Pid == 0:
		case p.Start != 0 || p.Boot != [16]byte{}:
			one(kind, processTerm(p.Pid, p.Start))
		default:
			wide = append(wide, probe{kind: kind, prefix: processTerm(p.Pid, 0)[:4]})
		}
	}
	if len(q.Sha256) > 0 {
		one(kindDigest, q.Sha256)
	}
	if q.Account != "" {
		one(kindAccount, []byte(q.Account))
	}
	process(kindProcess, &q.Process)
	process(kindParent, &q.parent)
	process(kindObject, &q.object)
	pattern(kindPath, &q.Path)
	pattern(kindExe, &q.Exe)
	pattern(kindName, &q.Name)
	if q.Address.IsValid() || q.Port != 0 {
		wide = append(wide, q.addressProbe())
	}
	if q.UID != nil {
		one(kindUser, userTerm(*q.UID))
	}
	if len(q.Classes) > 0 {
		p := probe{kind: kindClass}
		for _, c := range q.Classes {
			p.exact = append(p.exact, classTerm(c))
		}
		exact = append(exact, p)
	}
	if len(q.Logs) > 0 {
		p := probe{kind: kindLog}
		for _, id := range q.Logs {
			p.exact = append(p.exact, logTerm(id))
		}
		exact = append(exact, p)
	}
	return append(exact, wide...)
}

// addressProbe admits addresses of a prefix, and a port.
func (q *Query) addressProbe() probe {
	p := probe{kind: kindAddress}
	port := uint16(q.Port)
	net := q.Address
	if net.IsValid() {
		bits := net.Bits()
		if net.Addr().Is4() {
			bits += 96
		}
		b := net.Addr().As16()
		p.prefix = b[:bits/8]
		if port != 0 && bits == 128 {
			p.exact = [][]byte{addressTerm(net.Addr(), uint32(port))}
		}
	}
	p.ok = func(term []byte) bool {
		if len(term) != 18 || port != 0 && (term[16] != byte(port>>8) || term[17] != byte(port)) {
			return false
		}
		return !net.IsValid() || net.Contains(netip.AddrFrom16([16]byte(term[:16])).Unmap())
	}
	return p
}
