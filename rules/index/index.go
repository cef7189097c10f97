package index

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Part is one condition to file: that of a policy, or of one step of it.
type Part struct {
	On        []record.Class
	Condition *policy.Condition // nil: true of every event
}

// Index is immutable and may be used by many goroutines, each with a Scratch of
// its own.
type Index struct {
	parts    int
	postings [][]int32 // parts to name together
	buckets  map[record.Class]*bucket
}

// bucket is the index of one class. Classes that the same parts judge share it.
type bucket struct {
	all     []int32 // every part that judges the class
	always  int32   // posting of those without a guard
	fields  []*column
	choices map[int32]policy.Guard // what each guarded part is filed under
}

// column is what is asked of one field, or of each element of a list.
type column struct {
	field   event.Field
	part    policy.Part
	kind    event.Kind
	texts   [3]*words // by policy.Fold; nil where nothing is asked
	numbers map[uint64]int32
	nets    *bart.Table[net]
	truth   int32 // posting, -1 for none
}

// net is what one prefix of addresses names; wider ones that hold it follow.
type net struct {
	posting int32
	wider   []int32
}

const none = -1

// New files the parts. Their numbers are their places in the slice.
func New(parts []Part) *Index {
	x := &Index{parts: len(parts), buckets: make(map[record.Class]*bucket)}
	byClass := make(map[record.Class][]int32)
	for i, p := range parts {
		for _, c := range p.On {
			if l := byClass[c]; len(l) == 0 || l[len(l)-1] != int32(i) {
				byClass[c] = append(l, int32(i))
			}
		}
	}
	for c, list := range byClass {
		if b := x.same(list); b != nil {
			x.buckets[c] = b
		} else {
			x.buckets[c] = x.file(parts, list)
		}
	}
	return x
}

func (x *Index) same(list []int32) *bucket {
	for _, b := range x.buckets {
		if slices.Equal(b.all, list) {
			return b
		}
	}
	return nil
}

// file makes the bucket of the listed parts.
func (x *Index) file(parts []Part, list []int32) *bucket {
	b := &bucket{all: list, always: none, choices: make(map[int32]policy.Guard)}
	// How many conditions ask for the same says how common it is: a tool that
	// half of all policies name is often run.
	asked := make(map[policy.Atom]int)
	for _, i := range list {
		for _, g := range parts[i].Condition.Guards() {
			for _, a := range g {
				asked[a]++
			}
		}
	}
	named := make(map[policy.Atom][]int32)
	var atoms []policy.Atom // in order, so that the index does not depend on the map's
	var always []int32
	for _, i := range list {
		g, ok := choose(parts[i].Condition.Guards(), asked)
		if !ok {
			always = append(always, i)
			continue
		}
		b.choices[i] = g
		for _, a := range g {
			if named[a] == nil {
				atoms = append(atoms, a)
			}
			named[a] = append(named[a], i)
		}
	}
	if len(always) > 0 {
		b.always = x.post(always)
	}
	b.fill(atoms, func(a policy.Atom) int32 { return x.post(named[a]) })
	return b
}

// choose returns the guard that is expected to hold least often.
func choose(guards []policy.Guard, asked map[policy.Atom]int) (policy.Guard, bool) {
	var best policy.Guard
	least := -1.0
	for _, g := range guards {
		cost := 0.0
		for _, a := range g {
			cost += a.Chance() * float64(asked[a])
		}
		if least < 0 || cost < least {
			best, least = g, cost
		}
	}
	return best, least >= 0
}

func (x *Index) post(list []int32) int32 {
	x.postings = append(x.postings, slices.Compact(list))
	return int32(len(x.postings) - 1)
}

// fill sorts atoms into columns.
func (b *bucket) fill(atoms []policy.Atom, post func(policy.Atom) int32) {
	type place struct {
		field event.Field
		part  policy.Part
	}
	columns := make(map[place]*column)
	nets := make(map[*column]map[netip.Prefix]int32)
	texts := make(map[*words]*drafts)
	for _, a := range atoms {
		at := place{a.Source.Field, a.Source.Part}
		c := columns[at]
		if c == nil {
			c = &column{field: at.field, part: at.part, kind: at.field.Info().Kind, truth: none}
			columns[at] = c
			b.fields = append(b.fields, c)
		}
		p := post(a)
		switch a.Op {
		case policy.OpTrue:
			c.truth = p
		case policy.OpNumber:
			if c.numbers == nil {
				c.numbers = make(map[uint64]int32)
			}
			c.numbers[a.Number] = p
		case policy.OpIn:
			if nets[c] == nil {
				nets[c] = make(map[netip.Prefix]int32)
			}
			nets[c][a.Prefix] = p
		default:
			w := c.texts[a.Source.Fold]
			if w == nil {
				w = &words{}
				c.texts[a.Source.Fold], texts[w] = w, &drafts{}
			}
			texts[w].add(a, p)
		}
	}
	for c, m := range nets {
		c.nets = makeNets(m)
	}
	for w, d := range texts {
		d.finish(w)
	}
	slices.SortFunc(b.fields, func(a, c *column) int {
		if a.field != c.field {
			return int(a.field) - int(c.field)
		}
		return int(a.part) - int(c.part)
	})
}

// makeNets makes a table in which the longest prefix that holds an address
// tells of all that do.
func makeNets(m map[netip.Prefix]int32) *bart.Table[net] {
	t := new(bart.Table[net])
	for p, posting := range m {
		n := net{posting: posting}
		for bits := p.Bits() - 1; bits >= 0; bits-- {
			if wide, err := p.Addr().Prefix(bits); err == nil {
				if posting, ok := m[wide]; ok {
					n.wider = append(n.wider, posting)
				}
			}
		}
		t.Insert(p, n)
	}
	return t
}

// Judges returns the parts that judge events of the class, in order. The caller
// must not change the slice.
func (x *Index) Judges(c record.Class) []int32 {
	if b := x.buckets[c]; b != nil {
		return b.all
	}
	return nil
}

// Guard returns what a part is filed under for a class; false where it is
// evaluated for each event of the class.
func (x *Index) Guard(part int, c record.Class) (policy.Guard, bool) {
	b := x.buckets[c]
	if b == nil {
		return nil, false
	}
	g, ok := b.choices[int32(part)]
	return g, ok
}

// Find has s name, by Next, each part that may be true of the event, which is
// of class c. What s named before is forgotten.
func (x *Index) Find(c record.Class, e *event.Event, s *Scratch) {
	s.begin(x)
	b := x.buckets[c]
	if b == nil {
		return
	}
	if b.always >= 0 {
		s.post(b.always)
	}
	for _, f := range b.fields {
		f.find(e, s)
	}
}

// All has s name every part that judges the class.
func (x *Index) All(c record.Class, s *Scratch) {
	s.begin(x)
	for _, p := range x.Judges(c) {
		s.name(p)
	}
}

func (c *column) find(e *event.Event, s *Scratch) {
	switch c.kind {
	case event.KindString:
		if t, ok := e.Str(c.field); ok {
			c.text(t, s)
		}
	case event.KindNumber:
		if n, ok := e.Num(c.field); ok {
			if p, ok := c.numbers[n]; ok {
				s.post(p)
			}
		}
	case event.KindBool:
		if c.truth >= 0 && e.Bool(c.field) {
			s.post(c.truth)
		}
	case event.KindAddress:
		c.address(e, s)
	case event.KindStrings:
		for _, t := range e.Strings(c.field) {
			c.text(t, s)
		}
	case event.KindProcesses:
		ancestors := e.Ancestors()
		for i := range ancestors {
			t := ancestors[i].Name
			if c.part == policy.PartExecutable {
				t = ancestors[i].Executable
			}
			if t != "" {
				c.text(t, s)
			}
		}
	}
}

func (c *column) address(e *event.Event, s *Scratch) {
	a, ok := e.Addr(c.field)
	if !ok || c.nets == nil {
		return
	}
	n, ok := c.nets.Lookup(a)
	if !ok {
		return
	}
	s.post(n.posting)
	for _, p := range n.wider {
		s.post(p)
	}
}

// text asks for one text, as it is and in lower case. The two ways to write
// it in lower case differ only where it has more than ASCII.
func (c *column) text(t string, s *Scratch) {
	if w := c.texts[policy.FoldNone]; w != nil {
		w.find(t, s)
	}
	lower, ascii := c.texts[policy.FoldLower], c.texts[policy.FoldASCII]
	if lower == nil && ascii == nil {
		return
	}
	low, plain := s.lower(t)
	if ascii != nil {
		ascii.find(low, s)
	}
	if lower == nil {
		return
	}
	if !plain {
		low = policy.Lower(t)
	}
	lower.find(low, s)
}
