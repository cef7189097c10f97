package event

import (
	"net/netip"
	"path"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/text/unicode/norm"
)

// VM is what is known of the domain when an entry is judged. All of it was
// learnt from the entries of the domain's own log (I5).
type VM struct {
	UUID, Name, State string
	Tags              []string
	Metadata          map[string]string
}

// Process is one member of process.ancestors.
type Process struct {
	PID, Start       uint64
	Name, Executable string // empty: missing
}

// Event is one entry as policies see it. It belongs to one goroutine at a
// time; evaluation itself uses it as scratch space.
type Event struct {
	have [(endFields + 63) / 64]uint64 // fields that are present
	lazy [(endFields + 63) / 64]uint64 // strings and lists that are made when asked for

	str   [endStrings]string
	num   [endNumbers - endStrings]uint64
	flags uint64 // true/false fields
	addr  [endAddresses - endBools]netip.Addr
	lists [endLists - endAddresses][]string

	masks [endLists - endAddresses]uint64 // bits of lists that Strings makes

	texts     []string // holds the elements of lists
	lines     []byte   // holds command lines; what stands in it is not changed until Reset
	ancestors []Process
	metadata  map[string]string
	uuid      string // for entity ids
	wall      int64

	// Iter is the position of the loop over a list that is being evaluated;
	// such loops do not nest.
	Iter int

	// Bound are values that earlier events had, in the order in which the
	// policy under evaluation numbers them. The engine lends them for one
	// evaluation; missing ones are missing fields.
	Bound []Bound
}

// Bound is a value of an earlier event: of a text or an address Str, of a
// number Num, of a true/false field Num as 0 or 1.
type Bound struct {
	Present bool
	Str     string
	Num     uint64
}

// BoundAt returns the value with number i.
func (e *Event) BoundAt(i int) Bound {
	if i < len(e.Bound) {
		return e.Bound[i]
	}
	return Bound{}
}

func (e *Event) set(f Field)  { e.have[f/64] |= 1 << (f % 64) }
func (e *Event) drop(f Field) { e.have[f/64] &^= 1 << (f % 64); e.lazy[f/64] &^= 1 << (f % 64) }

// Has reports whether f is present. A list is present when it is not empty.
func (e *Event) Has(f Field) bool {
	return (e.have[f/64]|e.lazy[f/64])&(1<<(f%64)) != 0
}

// Str returns a string or address field, and whether it is present.
func (e *Event) Str(f Field) (string, bool) {
	bit := uint64(1) << (f % 64)
	if f < endStrings {
		if e.have[f/64]&bit != 0 {
			return e.str[f], true
		}
		if e.lazy[f/64]&bit == 0 {
			return "", false
		}
		return e.force(f), true
	}
	if e.have[f/64]&bit == 0 {
		return "", false
	}
	return e.addr[f-endBools].String(), true
}

// Num returns a number field, and whether it is present.
func (e *Event) Num(f Field) (uint64, bool) {
	return e.num[f-endStrings], e.have[f/64]&(1<<(f%64)) != 0
}

// Bool returns a true/false field; a missing one is false.
func (e *Event) Bool(f Field) bool { return e.flags&(1<<(f-endNumbers)) != 0 }

// Addr returns an address field, and whether it is present. IPv4 addresses
// mapped into IPv6 are given as IPv4.
func (e *Event) Addr(f Field) (netip.Addr, bool) {
	return e.addr[f-endBools], e.have[f/64]&(1<<(f%64)) != 0
}

// Strings returns a list field; a missing one is empty. The caller must not
// change it.
func (e *Event) Strings(f Field) []string {
	bit := uint64(1) << (f % 64)
	if e.have[f/64]&bit == 0 {
		if e.lazy[f/64]&bit == 0 {
			return nil
		}
		return e.forceList(f)
	}
	return e.lists[f-endAddresses]
}

// Ancestors returns process.ancestors, the parent first. The caller must not
// change it.
func (e *Event) Ancestors() []Process { return e.ancestors }

// Metadata returns vm.metadata.KEY, and whether it is present.
func (e *Event) Metadata(key string) (string, bool) { v, ok := e.metadata[key]; return v, ok }

// maxKept bounds the memory for command lines that an event keeps.
const maxKept = 64 << 10

// Reset empties e, keeping its memory: strings of it that were not cloned may
// change from now on.
func (e *Event) Reset() {
	clear(e.have[:])
	clear(e.lazy[:])
	clear(e.str[:]) // the payload of the last entry must not be kept alive
	clear(e.lists[:])
	clear(e.texts)
	e.texts = e.texts[:0]
	e.lines = e.lines[:0]
	if cap(e.lines) > maxKept {
		e.lines = nil
	}
	e.flags = 0
	e.ancestors = e.ancestors[:0]
	e.metadata, e.uuid, e.wall, e.Bound = nil, "", 0, nil
}

// SetString sets a string field; an empty string makes it missing. Values are
// normalised.
func (e *Event) SetString(f Field, s string) {
	if s == "" {
		e.drop(f)
		return
	}
	e.str[f] = Normalize(s)
	e.set(f)
}

// SetNumber sets a number field.
func (e *Event) SetNumber(f Field, n uint64) { e.num[f-endStrings] = n; e.set(f) }

// SetBool sets a true/false field.
func (e *Event) SetBool(f Field, v bool) {
	e.flags &^= 1 << (f - endNumbers)
	if v {
		e.flags |= 1 << (f - endNumbers)
	}
	e.set(f)
}

// SetAddr sets an address field; an invalid address makes it missing.
func (e *Event) SetAddr(f Field, a netip.Addr) {
	if !a.IsValid() {
		e.drop(f)
		return
	}
	e.addr[f-endBools] = a.Unmap().WithZone("")
	e.set(f)
}

// SetStrings sets a list field; an empty list makes it missing. The event
// keeps list and normalises it in place.
func (e *Event) SetStrings(f Field, list []string) {
	if len(list) == 0 {
		e.drop(f)
		return
	}
	for i, s := range list {
		list[i] = Normalize(s)
	}
	e.lists[f-endAddresses] = list
	e.set(f)
}

// SetAncestors sets process.ancestors, cut to MaxAncestors. The event copies
// the list.
func (e *Event) SetAncestors(list []Process) {
	e.ancestors = append(e.ancestors[:0], list[:min(len(list), MaxAncestors)]...)
	for i := range e.ancestors {
		p := &e.ancestors[i]
		p.Name, p.Executable = Normalize(p.Name), Normalize(p.Executable)
	}
	e.ancestorsSet()
}

// SetMetadata sets vm.metadata. The event keeps the map.
func (e *Event) SetMetadata(m map[string]string) { e.metadata = m }

// Clear makes f missing, as if the author had left it out.
func (e *Event) Clear(f Field) {
	e.drop(f)
	switch {
	case f >= endNumbers && f < endBools:
		e.flags &^= 1 << (f - endNumbers)
	case f == ProcessAncestors:
		e.ancestors = e.ancestors[:0]
	case f == VMMetadata:
		e.metadata = nil
	}
}

func (e *Event) ancestorsSet() {
	if len(e.ancestors) == 0 {
		e.drop(ProcessAncestors)
	} else {
		e.set(ProcessAncestors)
	}
}

// deferred marks a string that force can make.
func (e *Event) deferred(f Field) { e.lazy[f/64] |= 1 << (f % 64) }

// force makes a string that most policies never ask for.
func (e *Event) force(f Field) string {
	var s string
	switch f {
	case ProcessCommandLine:
		s = e.line(e.Strings(ProcessArgs))
	case ParentCommandLine:
		s = e.line(e.Strings(ParentArgs))
	case ProcessEntityID:
		s = EntityID(e.uuid, e.num[ProcessPID-endStrings], e.num[ProcessStart-endStrings])
	case ParentEntityID:
		s = EntityID(e.uuid, e.num[ParentPID-endStrings], e.num[ParentStart-endStrings])
	case ObjectEntityID:
		s = EntityID(e.uuid, e.num[ObjectPID-endStrings], e.num[ObjectStart-endStrings])
	case FileName:
		s = path.Base(e.str[FilePath])
	case FileDirectory:
		s = path.Dir(e.str[FilePath])
	case FileExtension:
		s = Extension(e.str[FilePath])
	case EventTime:
		s = time.Unix(0, e.wall).UTC().Format(time.RFC3339Nano)
	}
	e.lazy[f/64] &^= 1 << (f % 64)
	e.str[f] = s
	e.set(f)
	return s
}

// line joins arguments in memory of the event's own.
func (e *Event) line(args []string) string {
	from := len(e.lines)
	for i, a := range args {
		if i > 0 {
			e.lines = append(e.lines, ' ')
		}
		e.lines = append(e.lines, a...)
	}
	return Normalize(alias(e.lines[from:]))
}

// Extension returns what follows the last dot of the last component of name.
// A leading dot starts a hidden name, not an extension.
func Extension(name string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		return base[i+1:]
	}
	return ""
}

// EntityID returns the identity of a process in the guest with this UUID.
func EntityID(uuid string, pid, start uint64) string {
	b := make([]byte, 0, len(uuid)+42)
	b = append(b, uuid...)
	b = append(b, ':')
	b = appendUint(b, pid)
	b = append(b, ':')
	b = appendUint(b, start)
	return string(b)
}

func appendUint(b []byte, n uint64) []byte {
	var d [20]byte
	i := len(d)
	for {
		i--
		d[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, d[i:]...)
		}
	}
}

// Normalize returns s in Unicode normal form C, as cty does with strings.
// Bytes that are not UTF-8 stay as they are.
func Normalize(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return norm.NFC.String(s)
		}
	}
	return s
}

// alias returns b as a string that shares its memory. Sound only because
// payloads are not changed while an Event holds them (package comment), and
// lines is only appended to.
func alias(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
