package record

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// LeafSize is the length of an encoded Leaf in bytes.
const LeafSize = 136

var leafMagic = [4]byte{'P', 'V', 'L', '1'}

// Origin says on whose authority a record stands, and so which of its fields
// a guest could have forged.
type Origin uint8

// The origins. Part of the format.
const (
	OriginGuest    Origin = 1 // signed by the guest agent
	OriginHost     Origin = 2 // observed by the host
	OriginPolicy   Origin = 3 // decided by a policy
	OriginOperator Origin = 4 // asked for by a person
)

var originNames = [...]string{OriginGuest: "guest", OriginHost: "host", OriginPolicy: "policy", OriginOperator: "operator"}

// String returns the origin's name as policies write it.
func (o Origin) String() string {
	if o.Valid() {
		return originNames[o]
	}
	return fmt.Sprintf("origin(%d)", uint8(o))
}

// Valid reports whether o is one of the four origins.
func (o Origin) Valid() bool { return o >= OriginGuest && o <= OriginOperator }

// Leaf is one sealed record. See the package comment for its layout.
type Leaf struct {
	Origin     Origin
	Index      uint64
	Mono       int64 // host monotone time, nanoseconds
	Wall       int64 // host wall time, Unix nanoseconds
	Prev       Hash  // leaf hash of the leaf before
	Header     Header
	Commitment Hash
}

// AppendBinary appends the 136-byte encoding of l to b.
func (l *Leaf) AppendBinary(b []byte) []byte {
	b = append(b, leafMagic[:]...)
	b = append(b, byte(l.Origin), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Mono))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Wall))
	b = append(b, l.Prev[:]...)
	b = l.Header.AppendBinary(b)
	return append(b, l.Commitment[:]...)
}

// RecordHash returns the hash of the record in l, as its author signed it.
func (l *Leaf) RecordHash() Hash { return RecordHash(l.Header, l.Commitment) }

// ParseLeaf decodes exactly LeafSize bytes. An error wraps ErrReject and comes
// with a zero Leaf.
func ParseLeaf(b []byte) (Leaf, error) {
	if len(b) != LeafSize {
		return Leaf{}, fmt.Errorf("parse leaf: %d bytes, want %d: %w", len(b), LeafSize, ErrReject)
	}
	if [4]byte(b) != leafMagic {
		return Leaf{}, fmt.Errorf("parse leaf: magic %q, want %q: %w", b[:4], leafMagic[:], ErrReject)
	}
	l := Leaf{
		Origin: Origin(b[4]),
		Index:  binary.BigEndian.Uint64(b[8:]),
		Mono:   int64(binary.BigEndian.Uint64(b[16:])),
		Wall:   int64(binary.BigEndian.Uint64(b[24:])),
		Prev:   Hash(b[32:64]),
	}
	if !l.Origin.Valid() || b[5]|b[6]|b[7] != 0 {
		return Leaf{}, fmt.Errorf("parse leaf: origin and reserved bytes are %x: %w", b[4:8], ErrReject)
	}
	var err error
	if l.Header, err = ParseHeader(b[64:104]); err != nil {
		return Leaf{}, fmt.Errorf("parse leaf: %w", err)
	}
	l.Commitment = Hash(b[104:136])
	return l, nil
}

// LeafHash is the RFC 6962 hash of encoded leaf bytes.
func LeafHash(leaf []byte) Hash {
	var b [1 + LeafSize]byte // b[0] = 0x00: the leaf prefix
	if len(leaf) == LeafSize {
		copy(b[1:], leaf)
		return sha256.Sum256(b[:])
	}
	return sha256.Sum256(append([]byte{0}, leaf...))
}
