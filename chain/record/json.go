package record

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// textFields are the byte strings that are text unless their author's kernel
// allowed otherwise; all others are digests, keys and the like.
var textFields = map[protoreflect.Name]bool{
	"path": true, "filesystem_path": true, "executable": true, "filename": true, "name": true, "args": true,
	"working_directory": true, "cgroup": true, "script": true, "domain_xml": true, "live_xml": true, "cpu_xml": true, "note": true, "previous_checkpoint": true,
	"attribute": true, "link_target": true, "account": true, "terminal": true, "hostname": true, "address": true, "text": true,
	"question": true, "names": true, "source": true, "type": true, "source_path": true,
}

// textIn are the fields that are text in one message only: elsewhere the name
// is that of a digest or a number.
var textIn = map[protoreflect.FullName]bool{
	"provost.record.v1.Kernel.value": true, "provost.record.v1.Auth.command": true,
	"provost.record.v1.Approval.statement": true, "provost.record.v1.Revocation.statement": true,
}

// JSON returns a payload as a tree of maps for encoding/json. Paths and other
// text are strings, or "base64:" and their bytes where they are not UTF-8;
// addresses are in their usual form, digests and keys in hexadecimal. Session
// numbers are hexadecimal strings: many readers of JSON cannot hold 64 bits.
func JSON(m Message) (map[string]any, error) {
	p, ok := m.(interface{ ProtoReflect() protoreflect.Message })
	if !ok {
		return nil, fmt.Errorf("render payload: %T is no payload: %w", m, ErrReject)
	}
	return jsonMessage(p.ProtoReflect()), nil
}

func jsonMessage(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		switch {
		case f.IsMap():
			all := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				all[k.String()] = jsonValue(f.MapValue(), e)
				return true
			})
			out[name] = all
		case f.IsList():
			all := make([]any, v.List().Len())
			for i := range all {
				all[i] = jsonValue(f, v.List().Get(i))
			}
			out[name] = all
		default:
			out[name] = jsonValue(f, v)
		}
		return true
	})
	return out
}

func jsonValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return jsonMessage(v.Message())
	case protoreflect.BytesKind:
		return jsonBytes(f, v.Bytes())
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name())
		}
		return int32(v.Enum())
	}
	if f.Name() == "session" {
		return fmt.Sprintf("%016x", v.Uint())
	}
	return v.Interface()
}

func jsonBytes(f protoreflect.FieldDescriptor, b []byte) string {
	name := f.Name()
	if strings.HasSuffix(string(name), "_ip") || name == "addresses" {
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	}
	if !textFields[name] && !textIn[f.FullName()] {
		return hex.EncodeToString(b)
	}
	if utf8.Valid(b) {
		return string(b)
	}
	return "base64:" + base64.StdEncoding.EncodeToString(b)
}
