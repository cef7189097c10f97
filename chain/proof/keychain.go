package proof

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// keyStatementMagic separates what one VM-log key says of the next from all
// else that it signs; a signed note cannot begin like this. Part of the format.
const keyStatementMagic = "provost/key-certificate/v1\x00"

// KeyStatement returns what a VM-log key signs to hand over to the next one:
//
//	"provost/key-certificate/v1" 0x00
//	8 bytes number of the next key, big-endian
//	32 bytes the key that signs, 32 bytes the next key
//	the prefix of the origins that they sign
func KeyStatement(prefix string, number uint64, previous, next ed25519.PublicKey) []byte {
	b := binary.BigEndian.AppendUint64([]byte(keyStatementMagic), number)
	return append(append(append(b, previous...), next...), prefix...)
}

// CertifiedKey is a VM-log key and the entry of the host log that certifies it.
type CertifiedKey struct {
	Number uint64
	Index  uint64
	Key    ed25519.PublicKey
}

// KeyChain follows the certificates of a host log, from the first on: each key
// is certified by an entry of the host log and signed by the key before it,
// which is destroyed then. The zero value with HostID set is ready.
type KeyChain struct {
	HostID string
	keys   []CertifiedKey
}

// Add takes the next certificate, the entry of the host log at index. An error
// wraps record.ErrReject and leaves the chain as it was.
func (c *KeyChain) Add(index uint64, m *record.KeyCertificate) error {
	bad := func(why string, args ...any) error {
		return fmt.Errorf("certificate of a VM-log key in entry %d: %s: %w", index, fmt.Sprintf(why, args...), record.ErrReject)
	}
	if want := VMPrefix(c.HostID); m.Use != "vm-log" || m.OriginPrefix != want {
		return bad("it certifies a key for use %q under %q, want vm-log under %q", m.Use, m.OriginPrefix, want)
	}
	if len(m.PublicKey) != ed25519.PublicKeySize {
		return bad("the key has %d bytes", len(m.PublicKey))
	}
	if m.Number != uint64(len(c.keys)) {
		return bad("it is for key number %d, want number %d", m.Number, len(c.keys))
	}
	for _, k := range c.keys {
		if k.Key.Equal(ed25519.PublicKey(m.PublicKey)) {
			return bad("the key was certified before, in entry %d", k.Index)
		}
	}
	if len(c.keys) == 0 {
		if len(m.PreviousKey) > 0 || len(m.PreviousSignature) > 0 {
			return bad("the first key names one before it")
		}
	} else {
		last := c.keys[len(c.keys)-1]
		if index <= last.Index {
			return bad("it does not follow that of the key before, entry %d", last.Index)
		}
		if !last.Key.Equal(ed25519.PublicKey(m.PreviousKey)) {
			return bad("it replaces key %x, the key before is %x", m.PreviousKey, last.Key)
		}
		if !ed25519.Verify(last.Key, KeyStatement(m.OriginPrefix, m.Number, last.Key, m.PublicKey), m.PreviousSignature) {
			return bad("the key before has not signed it")
		}
	}
	c.keys = append(c.keys, CertifiedKey{Number: m.Number, Index: index, Key: append(ed25519.PublicKey(nil), m.PublicKey...)})
	return nil
}

// At returns the key that was in force at an entry of the host log: the newest
// that was certified before it.
func (c *KeyChain) At(index uint64) (CertifiedKey, bool) {
	for i := len(c.keys) - 1; i >= 0; i-- {
		if c.keys[i].Index < index {
			return c.keys[i], true
		}
	}
	return CertifiedKey{}, false
}

// Keys returns all keys, the first one first.
func (c *KeyChain) Keys() []CertifiedKey { return c.keys }
