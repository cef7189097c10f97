package keys

import (
	"crypto/ed25519"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/proof"
)

// signer signs notes under one origin. Its private key cannot be read back.
type signer struct {
	name string
	hash uint32
	sign func(msg []byte) ([]byte, error)
}

var _ note.Signer = (*signer)(nil)

func newSigner(origin string, pub ed25519.PublicKey, sign func([]byte) ([]byte, error)) (*signer, error) {
	v, err := proof.NewVerifier(origin, pub)
	if err != nil {
		return nil, err
	}
	return &signer{name: origin, hash: v.KeyHash(), sign: sign}, nil
}

// Name returns the origin.
func (s *signer) Name() string { return s.name }

// KeyHash returns the note key ID of origin and key.
func (s *signer) KeyHash() uint32 { return s.hash }

// Sign signs the text of a note.
func (s *signer) Sign(msg []byte) ([]byte, error) { return s.sign(msg) }

// VerifierKey returns the verifier key text (c2sp.org/signed-note, type 0x01)
// of a public key under the given origin.
func VerifierKey(origin string, pub ed25519.PublicKey) (string, error) {
	return proof.VerifierKey(origin, pub)
}
