package probe

import (
	"bytes"
	"encoding/hex"
)

// Messages of programs to the kernel's audit, by their numbers in
// linux/audit.h and libaudit.
const (
	auditUserAuth       = 1100
	auditUserAcct       = 1101
	auditUserMgmt       = 1102
	auditCredAcq        = 1103
	auditCredDisp       = 1104
	auditUserStart      = 1105
	auditUserEnd        = 1106
	auditUserChauthtok  = 1108
	auditUserErr        = 1109
	auditCredRefr       = 1110
	auditUserLogin      = 1112
	auditUserLogout     = 1113
	auditAddUser        = 1114
	auditDelUser        = 1115
	auditAddGroup       = 1116
	auditDelGroup       = 1117
	auditChgrpID        = 1119
	auditUserCmd        = 1123
	auditChuserID       = 1125
	auditGrpAuth        = 1126
	auditGrpMgmt        = 1132
	auditGrpChauthtok   = 1133
	auditAcctLock       = 1135
	auditAcctUnlock     = 1136
	maxAuditFields      = 64
	maxAuditValue       = 1024 // bytes that are told of one value
	maxAuditCommandTold = 2048
)

// auditText is what a message says, by key. The first of a key counts.
type auditText map[string][]byte

// parseAudit reads KEY=VALUE fields with blanks between them. A value may stand
// in quotation marks, or be without them and go on to the next field: programs
// write both, and whoever may send messages may write anything. It never
// fails: what is no field is left out.
func parseAudit(b []byte) auditText {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	t := auditText{}
	last := "" // key of the value that a word without a key belongs to
	for len(b) > 0 && len(t) < maxAuditFields {
		b = bytes.TrimLeft(b, " \n\x1d")
		eq := keyLength(b)
		if eq < 0 {
			word, rest := cutBlank(b)
			if last != "" && len(word) > 0 && len(t[last]) < maxAuditValue {
				t[last] = append(append(bytes.Clone(t[last]), ' '), word...)
			}
			b = rest
			continue
		}
		key := string(b[:eq])
		b = b[eq+1:]
		var value []byte
		quoted := len(b) > 0 && b[0] == '"' && bytes.IndexByte(b[1:], '"') >= 0
		if quoted {
			n := bytes.IndexByte(b[1:], '"')
			value, b = b[1:1+n], b[2+n:]
		} else {
			value, b = cutBlank(b)
		}
		if _, twice := t[key]; twice {
			last = ""
			continue
		}
		if !quoted && encoded[key] {
			value = decodeHex(value)
		}
		t[key], last = value, key
		if quoted || encoded[key] {
			last = ""
		}
	}
	return t
}

// encoded are the keys whose values are in hexadecimal unless in quotation marks.
var encoded = map[string]bool{"acct": true, "cmd": true, "cwd": true, "exe": true, "comm": true, "grp": true}

// keyLength is the length of the key that b begins with; below 0: none.
func keyLength(b []byte) int {
	for i, c := range b {
		switch {
		case c == '=' && i > 0:
			return i
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return -1
		}
	}
	return -1
}

func cutBlank(b []byte) (word, rest []byte) {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// decodeHex returns what v stands for, or v where it is no such number.
func decodeHex(v []byte) []byte {
	out := make([]byte, hex.DecodedLen(len(v)))
	if _, err := hex.Decode(out, v); err != nil || len(v) == 0 {
		return v
	}
	return out
}

// value is bounded; one that programs write for nothing is empty.
func (t auditText) value(key string, limit int) []byte {
	v := t[key]
	if len(v) == 1 && v[0] == '?' || string(v) == "(null)" {
		return nil
	}
	return v[:min(len(v), limit)]
}

// success says how the act ended: by word, or by number.
func (t auditText) success() bool {
	switch string(t["res"]) {
	case "success", "yes", "1":
		return true
	}
	return false
}
