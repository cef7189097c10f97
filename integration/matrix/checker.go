package matrix

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/provostd/provost/chain/record"
)

// Run is an act that was done.
type Run struct {
	Row   Row
	Nonce string // an argument of the act's program that nothing else has
	Facts Facts
}

// Checker holds the sealed records of one act to expectations. Every failed
// one is noted; a check goes on after it.
type Checker struct {
	Facts
	// Events are the row's records in their order.
	Events []*Sealed
	// Books are all records.
	Books *Books
	// Storm is how often acts in great numbers were done.
	Storm int

	actor identity
	gaps  []string
	errs  []error
}

// Check holds one run to its row and returns what is wrong. gaps are the
// declared ones that took the place of events.
func (b *Books) Check(run *Run, storm int) (gaps []string, err error) {
	if b.hooks == nil {
		return nil, errors.New("no hooks record is sealed")
	}
	c := &Checker{Facts: run.Facts, Books: b, Storm: storm}
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(missing)
			if !ok {
				panic(r)
			}
			err = m.error
		}
	}()
	if c.actor, c.Events, err = b.caused(run); err != nil {
		return nil, err
	}
	check := run.Row.Check
	if x := run.Row.Tracepoint; c.Tracepoint() {
		for _, g := range x.gaps {
			text, err := b.declared(g.class, g.text)
			if err != nil {
				c.errs = append(c.errs, err)
			}
			c.gaps = append(c.gaps, text)
		}
		if x.check != nil || len(x.gaps) > 0 {
			check = x.check
		}
	}
	c.common()
	if check != nil {
		check(c)
	}
	if len(c.errs) == 0 {
		return c.gaps, nil
	}
	return c.gaps, fmt.Errorf("%w\nwhat was sealed of the act:\n%s", errors.Join(c.errs...), c.list(c.Events))
}

// declared returns how the hooks record owns up to a gap.
func (b *Books) declared(class record.Class, text string) (string, error) {
	for _, h := range b.hooks.Hooks {
		if record.Class(h.Class) != class {
			continue
		}
		if h.Name == "" {
			return class.String() + " is not covered", nil
		}
		if text != "" && strings.Contains(h.Error, text) {
			return class.String() + ": " + h.Error, nil
		}
		return "", fmt.Errorf("the hooks record says of %s: covered by %s, limits %q; want it to own up to %q", class, h.Name, h.Error, text)
	}
	return class.String() + " is not named", fmt.Errorf("the hooks record does not name %s", class)
}

// Tracepoint says that the agent ran in mode tracepoint.
func (c *Checker) Tracepoint() bool { return c.Books.hooks.Mode == "tracepoint" }

// Covers says whether a class is covered, for checks of which a part is another
// class. In mode tracepoint a class may be a declared gap; in mode lsm it may not.
func (c *Checker) Covers(class record.Class) bool {
	for _, h := range c.Books.hooks.Hooks {
		if record.Class(h.Class) == class && h.Name != "" {
			return true
		}
	}
	text, err := c.Books.declared(class, "")
	if err == nil && !c.Tracepoint() {
		err = fmt.Errorf("the hooks record says that %s, in mode %s", text, c.Books.hooks.Mode)
	}
	if err != nil {
		c.errs = append(c.errs, err)
	}
	c.gaps = append(c.gaps, text)
	return false
}

// KernelAtLeast compares the guest's kernel.
func (c *Checker) KernelAtLeast(major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(c.Books.hooks.Kernel, "%d.%d", &a, &b); err != nil {
		c.Errorf("the hooks record names kernel %q", c.Books.hooks.Kernel)
	}
	return a > major || a == major && b >= minor
}

// Declared expects that the hooks record owns up to not seeing something.
func (c *Checker) Declared(class record.Class, text string) {
	if _, err := c.Books.declared(class, text); err != nil {
		c.errs = append(c.errs, err)
	}
}

// Errorf notes a failure.
func (c *Checker) Errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// One expects exactly one event of the class with these fields, and returns it.
// Without one it returns an empty event, so that a check can go on.
func (c *Checker) One(class record.Class, fields ...any) *record.Event {
	if found := c.N(1, class, fields...); len(found) > 0 {
		return found[0].Event()
	}
	return &record.Event{}
}

// N expects exactly n of them.
func (c *Checker) N(n int, class record.Class, fields ...any) []*Sealed {
	found := c.All(class, fields...)
	if len(found) != n {
		c.Errorf("%d events %s, want %d:%s%s", len(found), describe(class, fields), n, c.nearest(found, class, fields), c.others(found))
	}
	return found
}

// Some expects at least one of them, and returns all.
func (c *Checker) Some(class record.Class, fields ...any) []*Sealed {
	found := c.All(class, fields...)
	if len(found) == 0 {
		c.Errorf("no event %s:%s", describe(class, fields), c.nearest(found, class, fields))
	}
	return found
}

// None expects that there is none of them.
func (c *Checker) None(class record.Class, fields ...any) { c.N(0, class, fields...) }

// Lost is how many observations of a class are declared lost, by the agent or
// by the host.
func (c *Checker) Lost(class record.Class) uint64 { return lost(c.Books.Records, class) }

// LostSince is Lost, but for what was declared before the act began.
func (c *Checker) LostSince(class record.Class) uint64 {
	all := c.Books.Records
	if len(c.Events) > 0 {
		all = all[max(0, slices.Index(all, c.Events[0])):]
	}
	return lost(all, class)
}

func lost(records []*Sealed, class record.Class) (n uint64) {
	for _, s := range records {
		l, ok := s.Msg.(*record.Lost)
		if !ok {
			continue
		}
		for _, x := range l.Counts {
			if record.Class(x.Class) == class {
				n += x.Count
			}
		}
	}
	return n
}

// acts counts what the events of the class with these fields stand for: one
// that stands for several counts as these.
func (c *Checker) acts(class record.Class, fields []any) (n int64) {
	for _, s := range c.All(class, fields...) {
		n += int64(max(1, s.Event().Count))
	}
	return n
}

// Complete expects n acts of the class with these fields, all of them told:
// declared losses are no excuse.
func (c *Checker) Complete(class record.Class, n int64, fields ...any) {
	if got := c.acts(class, fields); got != n {
		c.Errorf("%d of %d acts %s arrived, %d of that class are declared lost; want every one", got, n, describe(class, fields), c.Lost(class))
	}
}

// keptUp is the largest storm that an emulated guest's agent keeps up with.
const keptUp = 2000

// Told is Complete for a storm of a size that must lose nothing, and Reconcile
// for a larger one.
func (c *Checker) Told(class record.Class, n int64, fields ...any) {
	if c.Storm <= keptUp {
		c.Complete(class, n, fields...)
		return
	}
	c.Reconcile(class, n, fields...)
}

// Reconcile expects n acts of the class with these fields, less those that are
// declared lost. What is declared may be of other processes too. It is for acts
// whose records have to be dropped; see Complete.
func (c *Checker) Reconcile(class record.Class, n int64, fields ...any) {
	got := c.acts(class, fields)
	if lost := int64(c.Lost(class)); got > n || got+lost < n {
		c.Errorf("%d of %d events %s arrived, %d of that class are declared lost", got, n, describe(class, fields), lost)
	}
}

// Order expects that events come one after the other, as their times say.
func (c *Checker) Order(events ...*record.Event) {
	last := -1
	for _, e := range events {
		i := slices.IndexFunc(c.Events, func(s *Sealed) bool { return s.Event() == e })
		if i >= 0 && i < last {
			c.Errorf("%s comes before %s", c.list(c.Events[i:i+1]), c.list(c.Events[last:last+1]))
		}
		last = max(last, i)
	}
}

// All are the events of the class with these fields.
func (c *Checker) All(class record.Class, fields ...any) (found []*Sealed) {
	for _, s := range c.Events {
		if s.Header.Class == class && len(c.differs(s, flat(fields))) == 0 {
			found = append(found, s)
		}
	}
	return found
}

// flat takes Field and []Field alike.
func flat(fields []any) (out []Field) {
	for _, f := range fields {
		switch f := f.(type) {
		case Field:
			out = append(out, f)
		case []Field:
			out = append(out, f...)
		default:
			panic(fmt.Sprintf("matrix: %T is no expectation of a field", f))
		}
	}
	return out
}

// differs says which fields are not as expected.
func (c *Checker) differs(s *Sealed, fields []Field) (out []string) {
	for _, f := range fields {
		v, err := value(&s.Header, s.Msg, f.path)
		if err != nil {
			panic(missing{fmt.Errorf("the row's field %s: %w", f.path, err)})
		}
		if !f.ok(v) {
			out = append(out, fmt.Sprintf("%s is %s, want %s", f.path, show(v), f.want))
		}
	}
	return out
}

func describe(class record.Class, fields []any) string {
	var parts []string
	for _, f := range flat(fields) {
		parts = append(parts, f.path+" "+f.want)
	}
	if len(parts) == 0 {
		return class.String()
	}
	return class.String() + " with " + strings.Join(parts, ", ")
}

// nearest tells of the event of the class that differs least, when none fits.
func (c *Checker) nearest(found []*Sealed, class record.Class, fields []any) string {
	if len(found) > 0 {
		return ""
	}
	var best []string
	n := 0
	for _, s := range c.Events {
		if s.Header.Class != class {
			continue
		}
		n++
		if d := c.differs(s, flat(fields)); best == nil || len(d) < len(best) {
			best = d
		}
	}
	if n == 0 {
		return " there is none of that class"
	}
	return fmt.Sprintf(" of %d of that class the nearest differs: %s", n, strings.Join(best, "; "))
}

func (c *Checker) others(found []*Sealed) string {
	if len(found) == 0 {
		return ""
	}
	return "\n" + c.list(found)
}

// shown bounds what a failure lists.
const shown = 12

func (c *Checker) list(events []*Sealed) string {
	var b strings.Builder
	for i, s := range events {
		if i == shown {
			fmt.Fprintf(&b, "  … and %d more\n", len(events)-i)
			break
		}
		m := s.Msg
		if e := s.Event(); e != nil {
			x := proto.CloneOf(e)
			x.Ancestors = nil
			m = x
		}
		fmt.Fprintf(&b, "  %s #%d lane %x/%d: %s\n", s.Header.Class, s.Header.Sequence, s.Header.Lane, s.Header.LaneSequence,
			prototext.MarshalOptions{}.Format(m.(proto.Message)))
	}
	return b.String()
}
