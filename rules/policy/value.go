package policy

import (
	"encoding/binary"

	"github.com/provostd/provost/rules/event"
)

// Value is one field whose value is part of a key.
type Value struct {
	field event.Field
	key   string // of vm.metadata
}

// Name returns the field's name as policies write it.
func (v *Value) Name() string {
	if v.key != "" {
		return v.field.String() + "." + v.key
	}
	return v.field.String()
}

// AppendKey appends an encoding of the value which no other value shares: a
// missing value is a value of its own.
func (v *Value) AppendKey(b []byte, e *event.Event) []byte {
	if v.key != "" {
		s, ok := e.Metadata(v.key)
		return appendText(b, s, ok)
	}
	switch v.field.Info().Kind {
	case event.KindNumber:
		n, ok := e.Num(v.field)
		if !ok {
			return append(b, 0)
		}
		return binary.BigEndian.AppendUint64(append(b, 1), n)
	case event.KindBool:
		if e.Bool(v.field) {
			return append(b, 1)
		}
		return append(b, 0)
	case event.KindAddress:
		a, ok := e.Addr(v.field)
		if !ok {
			return append(b, 0)
		}
		bytes := a.As16()
		return append(append(b, byte(a.BitLen())), bytes[:]...)
	}
	s, ok := e.Str(v.field)
	return appendText(b, s, ok)
}

// Has reports whether e has the value.
func (v *Value) Has(e *event.Event) bool {
	if v.key != "" {
		_, ok := e.Metadata(v.key)
		return ok
	}
	return e.Has(v.field)
}

// Bound returns the value, which shares memory with e.
func (v *Value) Bound(e *event.Event) event.Bound {
	if v.key != "" {
		s, ok := e.Metadata(v.key)
		return event.Bound{Present: ok, Str: event.Normalize(s)}
	}
	switch v.field.Info().Kind {
	case event.KindNumber:
		n, ok := e.Num(v.field)
		return event.Bound{Present: ok, Num: n}
	case event.KindBool:
		if e.Bool(v.field) {
			return event.Bound{Present: true, Num: 1}
		}
		return event.Bound{Present: true}
	}
	s, ok := e.Str(v.field)
	return event.Bound{Present: ok, Str: s}
}

func appendText(b []byte, s string, ok bool) []byte {
	if !ok {
		return append(b, 0)
	}
	b = binary.BigEndian.AppendUint32(append(b, 1), uint32(len(s)))
	return append(b, s...)
}
