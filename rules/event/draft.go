package event

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Draft is an entry in the making, of the fields that policies name: for tests
// of policies. It is the reverse of Load, and Entry holds it to that: what was
// set is what Load finds, or it is an error.
type Draft struct {
	leaf    record.Leaf
	payload record.Message
	said    []said
}

type said struct {
	field Field
	value any
}

// NewDraft begins an entry of a class that policies may judge.
func NewDraft(c record.Class) *Draft {
	d := &Draft{payload: record.NewPayload(c), leaf: record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: c}}}
	switch {
	case c.FromGuest():
		d.leaf.Origin = record.OriginGuest
	case SetOf(c).Intersects(setStatements):
		d.leaf.Origin = record.OriginOperator
	case SetOf(c).Intersects(setPolicy.Union(setUse)):
		d.leaf.Origin = record.OriginPolicy
	}
	if p, ok := d.payload.(*record.Event); ok && !c.FromGuest() {
		p.Vm = &record.VM{LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: -1}
	}
	return d
}

// setter writes the value of one field into a draft. The value has the Go type
// of the field's kind.
type setter func(d *Draft, v any) error

// setters has a way for each field but those that follow from others.
var setters = func() map[Field]setter {
	m := make(map[Field]setter, endFields)
	for _, part := range []map[Field]setter{commonSetters(), processSetters(), userSetters(), fileSetters(), networkSetters(), partSetters(), hostSetters()} {
		for f, s := range part {
			m[f] = s
		}
	}
	return m
}()

// follows are the fields that nobody sets: what they are made of is said.
var follows = map[Field]string{
	EventType: "the type of the event", EventCategory: "the type of the event", EventAction: "the type of the event",
	EventTime: `the test's "start" and the event's "at"`, EventIndex: "the place of the event in the test",
	ProcessEntityID: "vm.uuid, process.pid and process.start", ParentEntityID: "vm.uuid, process.parent.pid and process.parent.start",
	ObjectEntityID: "vm.uuid, process.object.pid and process.object.start",
	FileName:       "file.path", FileDirectory: "file.path", FileExtension: "file.path",
	LibvirtChanges: "libvirt.changed",
	VMTags:         "the vm of the test", VMMetadata: "the vm of the test",
}

// needs says what a field does not come without.
var needs = map[Field]string{
	SourcePort: "source.ip or source.cid", DestinationPort: "destination.ip or destination.cid",
	NetworkTransport: "an address, or network.type", FileAttributeSize: "file.attribute",
}

// Set says one field. An error wraps record.ErrReject and says what to write
// instead.
func (d *Draft) Set(f Field, value any) error {
	info, class := f.Info(), d.leaf.Header.Class
	if why, ok := follows[f]; ok {
		return fmt.Errorf("%s follows from %s: say that instead: %w", f, why, record.ErrReject)
	}
	if !info.Classes.Has(class) {
		return fmt.Errorf("no %s event carries %s: %w", class, f, record.ErrReject)
	}
	if err := info.accepts(value); err != nil {
		return fmt.Errorf("%s %w: %w", f, err, record.ErrReject)
	}
	if slices.ContainsFunc(d.said, func(s said) bool { return s.field == f }) {
		return fmt.Errorf("%s is said twice: %w", f, record.ErrReject)
	}
	if err := setters[f](d, value); err != nil {
		return fmt.Errorf("%s %w: %w", f, err, record.ErrReject)
	}
	d.said = append(d.said, said{f, value})
	return nil
}

// accepts reports a value of the wrong kind, or one that no event has.
func (i *Info) accepts(v any) error {
	ok := false
	switch i.Kind {
	case KindString, KindMap:
		_, ok = v.(string)
	case KindAddress:
		var s string
		if s, ok = v.(string); ok {
			if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
				return fmt.Errorf("is an address such as 192.0.2.7 or 2001:db8::7, and %q is none", s)
			}
		}
	case KindNumber:
		_, ok = v.(uint64)
	case KindBool:
		_, ok = v.(bool)
	case KindStrings:
		_, ok = v.([]string)
	case KindProcesses:
		_, ok = v.([]Process)
	}
	if !ok {
		return fmt.Errorf("is a %s", i.Kind)
	}
	if s, text := v.(string); text && s == "" {
		return fmt.Errorf("is never empty: leave it out where it is missing")
	}
	if s, text := v.(string); text && i.Enum != nil && !slices.Contains(i.Enum, s) {
		return fmt.Errorf("is one of %s", strings.Join(i.Enum, ", "))
	}
	return nil
}

// Entry returns what was made. The leaf has class, origin and sequence; index
// and times are the caller's. An error wraps record.ErrReject and names a field
// that the entry does not carry as it was said.
func (d *Draft) Entry() (record.Leaf, record.Message, error) {
	d.complete()
	e := new(Event)
	if err := e.Load(&d.leaf, d.payload, nil); err != nil {
		return record.Leaf{}, nil, err
	}
	for _, s := range d.said {
		if s.field == VMUUID || s.field == VMName || s.field == VMState {
			continue // learnt from the entry by those who follow the log
		}
		if e.is(s.field, s.value) {
			continue
		}
		hint := ""
		if n := needs[s.field]; n != "" {
			hint = ", which it has only with " + n
		}
		return record.Leaf{}, nil, fmt.Errorf("a %s event cannot carry %s as it is said%s, or something else that is said contradicts it: %w",
			d.leaf.Header.Class, s.field, hint, record.ErrReject)
	}
	return d.leaf, d.payload, nil
}

// is reports whether a field has this value. Lists of names of bits have the
// order of the bits.
func (e *Event) is(f Field, value any) bool {
	switch v := value.(type) {
	case string:
		have, _ := e.Str(f)
		if f.Info().Kind == KindAddress {
			want, _ := netip.ParseAddr(v)
			return have == want.Unmap().String()
		}
		return have == Normalize(v)
	case uint64:
		have, ok := e.Num(f)
		return ok && have == v
	case bool:
		return e.Bool(f) == v
	case []string:
		want := make([]string, len(v))
		for i, s := range v {
			want[i] = Normalize(s)
		}
		have := slices.Clone(e.Strings(f))
		if _, masked := maskNames(f); masked {
			slices.Sort(have)
			slices.Sort(want)
		}
		return slices.Equal(have, want)
	case []Process:
		return slices.EqualFunc(e.Ancestors(), v, func(a, b Process) bool {
			return a.PID == b.PID && a.Start == b.Start && a.Name == Normalize(b.Name) && a.Executable == Normalize(b.Executable)
		})
	}
	return false
}

func (d *Draft) has(f Field) bool {
	return slices.ContainsFunc(d.said, func(s said) bool { return s.field == f })
}

func (d *Draft) event() *record.Event { return d.payload.(*record.Event) }

// ways of writing a value

func setText(at func(*Draft) *[]byte) setter {
	return func(d *Draft, v any) error { *at(d) = []byte(v.(string)); return nil }
}

func setWord(at func(*Draft) *string) setter {
	return func(d *Draft, v any) error { *at(d) = v.(string); return nil }
}

func setWide(at func(*Draft) *uint64) setter {
	return func(d *Draft, v any) error { *at(d) = v.(uint64); return nil }
}

func setNarrow(at func(*Draft) *uint32) setter {
	return func(d *Draft, v any) error {
		n := v.(uint64)
		if n > 1<<32-1 {
			return fmt.Errorf("is at most %d", uint64(1<<32-1))
		}
		*at(d) = uint32(n)
		return nil
	}
}

// setSigned is for numbers that are signed in the payload, where they count
// nanoseconds or the like of what the field counts.
func setSigned(at func(*Draft) *int64, unit uint64) setter {
	return func(d *Draft, v any) error {
		n := v.(uint64)
		if n > (1<<63-1)/unit {
			return fmt.Errorf("is at most %d", (1<<63-1)/unit)
		}
		*at(d) = int64(n * unit)
		return nil
	}
}

func setSmall(at func(*Draft) *int32) setter {
	return func(d *Draft, v any) error {
		n := v.(uint64)
		if n > 1<<31-1 {
			return fmt.Errorf("is at most %d", 1<<31-1)
		}
		*at(d) = int32(n)
		return nil
	}
}

func setYes(at func(*Draft) *bool) setter {
	return func(d *Draft, v any) error { *at(d) = v.(bool); return nil }
}

func setBit(at func(*Draft) *uint32, b uint32) setter {
	return func(d *Draft, v any) error {
		*at(d) &^= b
		if v.(bool) {
			*at(d) |= b
		}
		return nil
	}
}

func setSHA256(at func(*Draft) *[]byte) setter {
	return func(d *Draft, v any) error {
		b, err := hex.DecodeString(v.(string))
		if err != nil || len(b) != 32 || hex.EncodeToString(b) != v.(string) {
			return fmt.Errorf("is 64 digits of lower-case hexadecimal")
		}
		*at(d) = b
		return nil
	}
}

func setHex(at func(*Draft) *[]byte) setter {
	return func(d *Draft, v any) error {
		b, err := hex.DecodeString(v.(string))
		if err != nil || len(b) > maxHex {
			return fmt.Errorf("is an even number of hexadecimal digits, at most %d", 2*maxHex)
		}
		*at(d) = b
		return nil
	}
}

func setTexts(at func(*Draft) *[][]byte) setter {
	return func(d *Draft, v any) error {
		for _, s := range v.([]string) {
			*at(d) = append(*at(d), []byte(s))
		}
		return nil
	}
}

// setLine sets a list of arguments from the line that they make.
func setLine(list Field, at func(*Draft) *[][]byte) setter {
	return func(d *Draft, v any) error {
		if d.has(list) {
			return fmt.Errorf("follows from %s, which is said already", list)
		}
		return setTexts(at)(d, strings.Split(v.(string), " "))
	}
}

// setNames sets bits by their names.
func setNames(f Field, at func(*Draft) *uint64) setter {
	return func(d *Draft, v any) error {
		table, _ := maskNames(f)
		for _, s := range v.([]string) {
			i := slices.Index(table, s)
			if i < 0 || s == "" {
				return fmt.Errorf("has no %q; it has: %s", s, strings.Join(slices.DeleteFunc(slices.Clone(table), func(s string) bool { return s == "" }), ", "))
			}
			*at(d) |= 1 << i
		}
		return nil
	}
}
