package matrix

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provostd/provost/chain/record"
)

// Field is an expectation of one field of an event, by its path in the payload
// ("process.args[1]", "file.inode") or in the header ("header.time"). The
// number of elements of a list is "#process.args".
type Field struct {
	path string
	want string
	ok   func(v any) bool
}

// Is expects a value. Text fits strings and byte strings, any integer fits any
// number; an absent field is its zero value.
func Is(path string, want any) Field {
	return Field{path, fmt.Sprintf("= %s", show(normal(want))), func(v any) bool { return reflect.DeepEqual(v, normal(want)) }}
}

// Not expects any other value.
func Not(path string, other any) Field {
	return Field{path, fmt.Sprintf("≠ %s", show(normal(other))), func(v any) bool { return !reflect.DeepEqual(v, normal(other)) }}
}

// NonZero expects that there is something.
func NonZero(path string) Field {
	return Field{path, "not zero", func(v any) bool { return v != nil && !reflect.ValueOf(v).IsZero() }}
}

// Has expects bits.
func Has(path string, bits uint64) Field {
	return Field{path, fmt.Sprintf("with the bits %#x", bits), func(v any) bool { n, ok := v.(uint64); return ok && n&bits == bits }}
}

// Lacks expects that all of the bits are clear.
func Lacks(path string, bits uint64) Field {
	return Field{path, fmt.Sprintf("without the bits %#x", bits), func(v any) bool { n, ok := v.(uint64); return ok && n&bits == 0 }}
}

// Starts and Contains expect parts of a text.
func Starts(path, prefix string) Field {
	return Field{path, "begins with " + strconv.Quote(prefix), func(v any) bool { s, ok := v.(string); return ok && strings.HasPrefix(s, prefix) }}
}

func Contains(path, part string) Field {
	return Field{path, "contains " + strconv.Quote(part), func(v any) bool { s, ok := v.(string); return ok && strings.Contains(s, part) }}
}

// AtLeast expects a number.
func AtLeast(path string, min uint64) Field {
	return Field{path, fmt.Sprintf("≥ %d", min), func(v any) bool { n, ok := v.(uint64); return ok && n >= min }}
}

// That expects what f says. v is a string (bytes too), a uint64, an int64 below
// zero, or a bool.
func That(path, what string, f func(v any) bool) Field { return Field{path, what, f} }

// File is the object of a file event: path, device and inode.
func File(path string, i Inode) []Field { return fileAt("file", path, i) }

// Target is the new name of a rename or a link.
func Target(path string, i Inode) []Field { return fileAt("target", path, i) }

func fileAt(at, path string, i Inode) []Field {
	return []Field{Is(at+".path", path), Is(at+".device", i.Dev), Is(at+".inode", i.Ino)}
}

// normal makes values comparable: text is string, numbers are uint64, or int64
// below zero.
func normal(v any) any {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	switch x := reflect.ValueOf(v); x.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if x.Int() < 0 {
			return x.Int()
		}
		return uint64(x.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return x.Uint()
	case reflect.String:
		return x.String()
	}
	return v
}

func show(v any) string {
	if s, ok := v.(string); ok {
		if len(s) > 300 {
			return strconv.Quote(s[:200]) + fmt.Sprintf("… (%d bytes)", len(s))
		}
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}

// value reads a field. A path that the payload does not have is a mistake of the row.
func value(h *record.Header, m record.Message, path string) (any, error) {
	if name, ok := strings.CutPrefix(path, "header."); ok {
		f := reflect.ValueOf(h).Elem().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, name) })
		if !f.IsValid() {
			return nil, fmt.Errorf("the header has no field %s", name)
		}
		return normal(f.Interface()), nil
	}
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T has no fields", m)
	}
	return walk(p.ProtoReflect(), path)
}

func walk(m protoreflect.Message, path string) (any, error) {
	count := strings.HasPrefix(path, "#")
	parts := strings.Split(strings.TrimPrefix(path, "#"), ".")
	for i, part := range parts {
		name, index, indexed := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			return nil, fmt.Errorf("%s has no field %s", m.Descriptor().Name(), name)
		}
		v := m.Get(fd)
		if fd.IsList() {
			l := v.List()
			if count {
				return uint64(l.Len()), nil
			}
			n, err := strconv.Atoi(index)
			if !indexed || err != nil {
				return nil, fmt.Errorf("%s is a list: say which element", part)
			}
			if n >= l.Len() {
				return nil, nil
			}
			v = l.Get(n)
		}
		if fd.Message() == nil {
			if i != len(parts)-1 {
				return nil, fmt.Errorf("%s is no message", part)
			}
			return normal(scalar(v)), nil
		}
		if i == len(parts)-1 {
			return nil, fmt.Errorf("%s is a message: name a field of it", part)
		}
		m = v.Message()
	}
	return nil, fmt.Errorf("%q is no path", path)
}

func scalar(v protoreflect.Value) any {
	if n, ok := v.Interface().(protoreflect.EnumNumber); ok {
		return int32(n)
	}
	return v.Interface()
}
