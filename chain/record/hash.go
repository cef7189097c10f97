package record

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Hash is a SHA-256 digest: a leaf hash, a record hash or a commitment.
type Hash [sha256.Size]byte

// String returns h in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is 32 zero bytes.
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseHash reads 64 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return Hash{}, fmt.Errorf("parse hash %q: want 64 hexadecimal digits: %w", s, ErrReject)
	}
	copy(h[:], b)
	return h, nil
}

// Domain separators of the two hashes an author makes. Part of the format.
var (
	commitmentPrefix = []byte("provost/commitment/v1\x00")
	recordPrefix     = []byte("provost/record/v1\x00")
)

// Salt makes low-entropy payloads unguessable from their commitment.
type Salt [32]byte

// Seed is what an author draws for a frame and derives its salts from.
type Seed [32]byte

// Salt derives the salt of the record with the given sequence: HMAC-SHA256 of
// it under the seed. An author makes one for each record, so it is spelled out
// here: crypto/hmac would take most of its time for being set up.
func (s *Seed) Salt(sequence uint64) Salt {
	var inner [sha256.BlockSize + 8]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	for i := range sha256.BlockSize {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, b := range s {
		inner[i] ^= b
		outer[i] ^= b
	}
	binary.BigEndian.PutUint64(inner[sha256.BlockSize:], sequence)
	digest := sha256.Sum256(inner[:])
	copy(outer[sha256.BlockSize:], digest[:])
	return sha256.Sum256(outer[:])
}

// shortPayload is what Commit hashes in one go, in bytes.
const shortPayload = 1024

// Commit binds a payload under a salt.
func Commit(salt *Salt, payload []byte) Hash {
	if len(payload) <= shortPayload {
		var b [32 + sha256.Size + shortPayload]byte
		m := append(b[:0], commitmentPrefix...)
		m = append(m, salt[:]...)
		m = append(m, payload...)
		return sha256.Sum256(m)
	}
	d := sha256.New()
	d.Write(commitmentPrefix)
	d.Write(salt[:])
	d.Write(payload)
	var h Hash
	d.Sum(h[:0])
	return h
}

// RecordHash is what an author signs of a record: it binds header and
// commitment and survives the erasure of the payload.
func RecordHash(h Header, commitment Hash) Hash {
	var b [64 + HeaderSize + sha256.Size]byte
	m := append(b[:0], recordPrefix...)
	m = h.AppendBinary(m)
	m = append(m, commitment[:]...)
	return sha256.Sum256(m)
}
