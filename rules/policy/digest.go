package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// Domain separators of the digests. Part of the format.
const (
	policyPrefix = "provost/policy/v1\x00"
	statePrefix  = "provost/policy-state/v1\x00"
)

func writeString(h hash.Hash, s string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	h.Write(n[:])
	h.Write([]byte(s))
}

func sum(h hash.Hash) Digest {
	var d Digest
	h.Sum(d[:0])
	return d
}

// DigestFiles returns the digest of a bundle made of these files, by name.
// See the package comment.
func DigestFiles(files map[string][]byte) Digest { return record.BundleDigest(files) }

// stateDigest covers parts of a policy's memory.
func stateDigest(name string, parts ...string) Digest {
	h := sha256.New()
	h.Write([]byte(statePrefix))
	writeString(h, name)
	for _, s := range parts {
		writeString(h, s)
	}
	return sum(h)
}

// policyDigest covers the policy's text and that of all it uses.
func (l *loader) policyDigest(v *env, text string, uses map[string]bool) Digest {
	h := sha256.New()
	h.Write([]byte(policyPrefix))
	writeString(h, text)
	for _, name := range keys(uses) {
		writeString(h, name)
		kind, rest := name[:4], name[5:]
		switch {
		case kind == "list":
			li := v.lists[rest]
			writeString(h, li.typ)
			for _, s := range slices.Sorted(slices.Values(li.values)) {
				writeString(h, s)
			}
		case name[:5] == "local":
			writeString(h, l.text(v.locals[name[6:]].expr.Range()))
		default:
			writeString(h, l.text(v.macros[name[6:]].block))
		}
	}
	return sum(h)
}
