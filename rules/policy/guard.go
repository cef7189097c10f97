package policy

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/provostd/provost/rules/event"
)

// A Guard says when a condition needs to be evaluated at all: unless one of
// its atoms holds of an event, the condition is false of it. It is never an
// error then either, so that an index which trusts guards hides none. A guard
// without atoms is of a condition that is always false.
type Guard []Atom

// Atom is one question about one field of an event, which an index answers for
// many conditions at once.
type Atom struct {
	Source Source
	Op     Op
	Text   string       // of OpEqual, OpPrefix, OpSuffix, OpContains, OpUnder
	Number uint64       // of OpNumber
	Prefix netip.Prefix // of OpIn
}

// Source is the value that an atom asks about. Of a list, any element will do.
type Source struct {
	Field event.Field
	Part  Part // of process.ancestors
	Fold  Fold
}

// Part is an attribute of one of process.ancestors.
type Part uint8

// The attributes that are text.
const (
	PartNone Part = iota
	PartName
	PartExecutable
)

// Fold says in which letters a text is compared.
type Fold uint8

// The ways to compare.
const (
	FoldNone  Fold = iota
	FoldLower      // as lower() writes it
	FoldASCII      // A to Z as a to z, nothing else changed
)

// Op is the kind of an atom.
type Op uint8

// The kinds of atoms.
const (
	OpEqual Op = iota + 1
	OpPrefix
	OpSuffix
	OpContains
	OpUnder  // the canonical path starts with Text
	OpNumber // equals Number
	OpIn     // the address is in Prefix
	OpTrue
)

// Bounds of what is kept of one condition: a longer list of values is as quick
// to test as to index.
const (
	maxAtoms  = 4096
	maxGuards = 8
)

// Lower is the function lower() of the language, which FoldLower stands for.
func Lower(s string) string { return lower(s) }

// Canonical makes paths comparable as under() does.
func Canonical(path string) string { return canonical(path) }

// String says what the guard asks for, in words of the language.
func (g Guard) String() string {
	if len(g) == 0 {
		return "never true"
	}
	var b strings.Builder
	for i, a := range g {
		if i == 4 && len(g) > 5 {
			fmt.Fprintf(&b, " or %d more", len(g)-i)
			break
		}
		if i > 0 {
			b.WriteString(" or ")
		}
		b.WriteString(a.String())
	}
	return b.String()
}

var opCalls = [...]string{OpPrefix: "startswith", OpSuffix: "endswith", OpContains: "strcontains", OpUnder: "under"}

// String says what the atom asks, in words of the language.
func (a Atom) String() string {
	s := a.Source.String()
	switch a.Op {
	case OpEqual:
		return s + " == " + strconv.Quote(a.Text)
	case OpNumber:
		return s + " == " + strconv.FormatUint(a.Number, 10)
	case OpIn:
		return "in_cidr(" + s + ", " + strconv.Quote(a.Prefix.String()) + ")"
	case OpTrue:
		return s
	}
	return opCalls[a.Op] + "(" + s + ", " + strconv.Quote(a.Text) + ")"
}

// String returns the value's name in words of the language.
func (s Source) String() string {
	name := s.Field.String()
	switch s.Part {
	case PartName:
		name += "[*].name"
	case PartExecutable:
		name += "[*].executable"
	}
	if s.Fold != FoldNone {
		return "lower(" + name + ")"
	}
	return name
}

// Chance is a rough guess how likely the atom holds of an event: it only ranks
// guards.
func (a Atom) Chance() float64 {
	var p float64
	switch a.Op {
	case OpEqual:
		p = 0.001
	case OpNumber:
		p = 0.05
	case OpTrue:
		p = 0.3
	case OpIn:
		p = math.Exp2(-float64(a.Prefix.Bits()) / 2)
	case OpUnder:
		p = 0.2 * math.Pow(0.2, float64(strings.Count(a.Text, "/")))
	default:
		p = 0.5 * math.Pow(0.6, float64(len(a.Text)))
	}
	if info := a.Source.Field.Info(); info != nil && (len(info.Enum) > 0 || a.Source.Field.Root() == "event" || a.Source.Field.Root() == "vm") {
		return max(p, 0.4) // few values, or the same for all events of a domain
	}
	return max(p, 0.0001)
}

func (g Guard) chance() float64 {
	var p float64
	for _, a := range g {
		p += a.Chance()
	}
	return p
}

// allOf returns the guards of what is not false only where none of its parts
// is: each part's will do.
func allOf(parts ...[]Guard) []Guard {
	var all []Guard
	for _, p := range parts {
		all = append(all, p...)
	}
	slices.SortStableFunc(all, func(a, b Guard) int { return cmp.Compare(a.chance(), b.chance()) })
	return all[:min(len(all), maxGuards)]
}

// anyOf returns the guards of what is false where all of its parts are: one
// guard of each part together, if each has one.
func anyOf(parts ...[]Guard) []Guard {
	var one Guard
	for _, p := range parts {
		if len(p) == 0 {
			return nil
		}
		best := slices.MinFunc(p, func(a, b Guard) int { return cmp.Compare(a.chance(), b.chance()) })
		if one = append(one, best...); len(one) > maxAtoms {
			return nil
		}
	}
	slices.SortFunc(one, Atom.compare)
	return []Guard{slices.Compact(one)}
}

func (a Atom) compare(b Atom) int {
	return cmp.Or(cmp.Compare(a.Source.Field, b.Source.Field), cmp.Compare(a.Source.Part, b.Source.Part), cmp.Compare(a.Source.Fold, b.Source.Fold),
		cmp.Compare(a.Op, b.Op), cmp.Compare(a.Text, b.Text), cmp.Compare(a.Number, b.Number), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
}

// origin says which field a text or number comes from. Such a value is never
// an error, only missing.
type origin struct {
	Source
	known  bool
	within bool // the text is only a part of that of the field
}

func from(f event.Field) origin { return origin{Source: Source{Field: f}, known: true} }

// lowered is the origin of lower() of a text.
func (o origin) lowered() origin {
	if o.Fold != FoldNone || o.within {
		return origin{}
	}
	o.Fold = FoldLower
	return o
}

// cut is the origin of a part of a text: its base name, for one.
func (o origin) cut() origin { o.within = true; return o }

// texts returns the guard of a predicate that holds only of a text which has
// one of the given words in the given place.
func (o origin) texts(op Op, words ...string) []Guard {
	if !o.known || len(words) > maxAtoms {
		return nil
	}
	if o.Field.Info().Kind == event.KindAddress {
		return o.addresses(op, words)
	}
	if o.within {
		if op == OpUnder {
			return nil
		}
		op = OpContains
	}
	if op == OpUnder && o.Fold != FoldNone {
		return nil
	}
	g := make(Guard, 0, len(words))
	for _, w := range words {
		if op == OpUnder {
			w = canonical(w)
		}
		if w == "" || op == OpUnder && w == "/" || o.within && w == "." {
			return nil // says next to nothing, or is the base name of nothing
		}
		g = append(g, Atom{Source: o.Source, Op: op, Text: w})
	}
	return []Guard{g}
}

// addresses is texts for a field that is text only to policies.
func (o origin) addresses(op Op, words []string) []Guard {
	if op != OpEqual || o.within || o.Fold != FoldNone {
		return nil
	}
	var g Guard
	for _, w := range words {
		a, err := netip.ParseAddr(w)
		if err != nil || a.String() != w {
			continue // no address is written so
		}
		g = append(g, Atom{Source: o.Source, Op: OpIn, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return []Guard{g}
}

// numbers returns the guard of a predicate that holds only of these.
func (o origin) numbers(list ...uint64) []Guard {
	if !o.known || len(list) > maxAtoms {
		return nil
	}
	g := make(Guard, 0, len(list))
	for _, n := range list {
		g = append(g, Atom{Source: o.Source, Op: OpNumber, Number: n})
	}
	return []Guard{g}
}

// prefixes returns the guard of a predicate that holds only of addresses in
// one of these.
func (o origin) prefixes(texts []string) []Guard {
	if !o.known || len(texts) > maxAtoms {
		return nil
	}
	g := make(Guard, 0, len(texts))
	for _, s := range texts {
		p, err := parsePrefix(s)
		if err != nil {
			return nil
		}
		g = append(g, Atom{Source: o.Source, Op: OpIn, Prefix: p})
	}
	return []Guard{g}
}

// maxPorts bounds the ports of ranges that become atoms one by one.
const maxPorts = 64

// ports returns the guard of a predicate that holds only of these ports.
func (o origin) ports(set []portRange) []Guard {
	var all []uint64
	for _, r := range set {
		if r.to-r.from >= maxPorts || len(all) >= maxPorts {
			return nil
		}
		for p := r.from; p <= r.to; p++ {
			all = append(all, p)
		}
	}
	return o.numbers(all...)
}
