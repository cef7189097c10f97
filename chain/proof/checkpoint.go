package proof

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

// maxNote bounds a signed note in bytes: a checkpoint and a few dozen
// cosignatures.
const maxNote = 64 << 10

// Checkpoint is a verified or unverified tree head: the log, how many leaves
// it has, and the RFC 6962 root over them.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   record.Hash
}

// Text returns the checkpoint's body as c2sp.org/tlog-checkpoint has it,
// without extension lines.
func (c Checkpoint) Text() string {
	return torchwood.Checkpoint{Origin: c.Origin, Tree: tlog.Tree{N: int64(c.Size), Hash: tlog.Hash(c.Root)}}.String()
}

// Sign returns the signed note of c.
func (c Checkpoint) Sign(signers ...note.Signer) ([]byte, error) {
	msg, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of %s at size %d: %w", c.Origin, c.Size, err)
	}
	return msg, nil
}

// OpenCheckpoint verifies a signed note with v and returns its checkpoint. The
// checkpoint's origin must be v's name. Further signatures, such as those of
// witnesses, are tolerated and not looked at. An error wraps record.ErrReject.
func OpenCheckpoint(msg []byte, v note.Verifier) (Checkpoint, error) {
	if len(msg) > maxNote {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %d bytes, limit %d: %w", len(msg), maxNote, record.ErrReject)
	}
	c, _, err := torchwood.VerifyCheckpoint(msg, torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v)))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint with key %s+%08x: %w: %w", v.Name(), v.KeyHash(), record.ErrReject, err)
	}
	return fromTorchwood(c)
}

// ParseCheckpoint reads a signed note WITHOUT verifying it: for messages and
// for finding the key to verify it with. An error wraps record.ErrReject.
func ParseCheckpoint(msg []byte) (Checkpoint, error) {
	if len(msg) > maxNote {
		return Checkpoint{}, fmt.Errorf("parse checkpoint: %d bytes, limit %d: %w", len(msg), maxNote, record.ErrReject)
	}
	_, err := note.Open(msg, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return Checkpoint{}, fmt.Errorf("parse checkpoint: %w: %w", record.ErrReject, err)
	}
	c, err := torchwood.ParseCheckpoint(unverified.Note.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("parse checkpoint: %w: %w", record.ErrReject, err)
	}
	return fromTorchwood(c)
}

// fromTorchwood refuses extension lines: cosignatures need not cover them.
func fromTorchwood(c torchwood.Checkpoint) (Checkpoint, error) {
	if c.Extension != "" {
		return Checkpoint{}, fmt.Errorf("parse checkpoint of %s: it has extension lines, this format has none: %w", c.Origin, record.ErrReject)
	}
	return Checkpoint{Origin: c.Origin, Size: uint64(c.N), Root: record.Hash(c.Hash)}, nil
}

// VerifierKey returns the verifier key text (c2sp.org/signed-note, type 0x01)
// of an Ed25519 public key under the given origin.
func VerifierKey(origin string, pub ed25519.PublicKey) (string, error) {
	if len(pub) != ed25519.PublicKeySize {
		return "", fmt.Errorf("make verifier key of %q: public key has %d bytes, want %d: %w", origin, len(pub), ed25519.PublicKeySize, record.ErrReject)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return "", fmt.Errorf("make verifier key of %q: %w: %w", origin, record.ErrReject, err)
	}
	return vkey, nil
}

// Verifier verifies signed notes of one key, whose name is the log's origin.
type Verifier = note.Verifier

// ParseVerifierKey reads the text of a verifier key. An error wraps
// record.ErrReject.
func ParseVerifierKey(vkey string) (Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return nil, fmt.Errorf("read verifier key: want one line ORIGIN+HASH+BASE64, such as that of host.vkey: %w: %w", record.ErrReject, err)
	}
	return v, nil
}

// NewVerifier returns the verifier of notes that pub signed under origin.
func NewVerifier(origin string, pub ed25519.PublicKey) (note.Verifier, error) {
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("make verifier of %q: %w: %w", origin, record.ErrReject, err)
	}
	return v, nil
}
