package proof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

// Bounds of what a witness may answer.
const (
	maxCosignatures      = 16       // lines
	maxCosignatureAnswer = 16 << 10 // bytes
)

// WitnessKey verifies the cosignatures of one witness (c2sp.org/tlog-cosignature,
// type 0x04).
type WitnessKey struct {
	// Name is what people call the witness: in a policy file or in a
	// configuration. It proves nothing.
	Name string
	v    *torchwood.CosignatureVerifier
}

// NewWitnessKey parses a verifier key, such as "witness.example/w1+0f1e2d3c+BA...".
// An error wraps record.ErrReject.
func NewWitnessKey(name, vkey string) (WitnessKey, error) {
	v, err := torchwood.NewCosignatureVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return WitnessKey{}, fmt.Errorf("read key of witness %q: %w; want a verifier key NAME+HASH+BASE64 of type 0x04 (Ed25519 cosignature): %w", name, err, record.ErrReject)
	}
	return WitnessKey{Name: name, v: v}, nil
}

// String returns the verifier key's text.
func (k WitnessKey) String() string { return k.v.String() }

// ID returns the key's name and hash as signature lines hold them: what tells a
// witness from every other.
func (k WitnessKey) ID() string { return keyID(k.v.Name(), k.v.KeyHash()) }

func keyID(name string, hash uint32) string { return fmt.Sprintf("%s+%08x", name, hash) }

// Cosignature is a witness's verified word that it has seen a checkpoint, that
// it was consistent with all it had seen of the log, and when.
type Cosignature struct {
	Witness string // as in its WitnessKey
	ID      string
	Time    int64 // Unix seconds, on the witness's clock
	line    note.Signature
}

// Verify finds and verifies the cosignature of k among the lines of a witness's
// answer, for the checkpoint in msg. Lines of other keys are passed over. An
// error wraps record.ErrReject.
func (k WitnessKey) Verify(msg, answer []byte) (Cosignature, error) {
	lines, err := parseSignatures(answer)
	if err != nil {
		return Cosignature{}, err
	}
	for _, l := range lines {
		if l.Name != k.v.Name() || l.Hash != k.v.KeyHash() {
			continue
		}
		return k.verify(msg, l)
	}
	return Cosignature{}, fmt.Errorf("the answer holds no cosignature of key %s: %w", k.ID(), record.ErrReject)
}

func (k WitnessKey) verify(msg []byte, l note.Signature) (Cosignature, error) {
	text, err := noteText(msg)
	if err != nil {
		return Cosignature{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(l.Base64)
	if err != nil || len(raw) < 4 || !k.v.Verify([]byte(text), raw[4:]) {
		return Cosignature{}, fmt.Errorf("the cosignature of key %s does not verify: %w", k.ID(), record.ErrReject)
	}
	t, err := torchwood.CosignatureTimestamp(l)
	if err != nil {
		return Cosignature{}, fmt.Errorf("the cosignature of key %s has no time: %w: %w", k.ID(), record.ErrReject, err)
	}
	return Cosignature{Witness: k.Name, ID: k.ID(), Time: t, line: l}, nil
}

// parseSignatures reads the lines of an answer, each of the form
//
//	— <key name> <base64 of 4 bytes key hash and the signature>
//
// It is strict: what is no signature line makes the whole answer none.
func parseSignatures(answer []byte) ([]note.Signature, error) {
	bad := func(why string, args ...any) ([]note.Signature, error) {
		return nil, fmt.Errorf("read cosignatures: %s: %w", fmt.Sprintf(why, args...), record.ErrReject)
	}
	if len(answer) > maxCosignatureAnswer {
		return bad("%d bytes, limit %d", len(answer), maxCosignatureAnswer)
	}
	if len(answer) == 0 || answer[len(answer)-1] != '\n' {
		return bad("the last line does not end")
	}
	lines := strings.Split(string(answer[:len(answer)-1]), "\n")
	if len(lines) > maxCosignatures {
		return bad("%d lines, limit %d", len(lines), maxCosignatures)
	}
	sigs := make([]note.Signature, 0, len(lines))
	for i, line := range lines {
		rest, ok := strings.CutPrefix(line, "— ")
		name, b64, ok2 := strings.Cut(rest, " ")
		raw, err := base64.StdEncoding.Strict().DecodeString(b64)
		if !ok || !ok2 || name == "" || err != nil || len(raw) < 5 {
			return bad("line %d is no signature line", i+1)
		}
		hash := uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3])
		sigs = append(sigs, note.Signature{Name: name, Hash: hash, Base64: b64})
	}
	return sigs, nil
}

// noteText returns the signed text of a note, without verifying it.
func noteText(msg []byte) (string, error) {
	n, err := openUnverified(msg)
	if err != nil {
		return "", err
	}
	return n.Text, nil
}

func openUnverified(msg []byte) (*note.Note, error) {
	if len(msg) > maxNote {
		return nil, fmt.Errorf("open note: %d bytes, limit %d: %w", len(msg), maxNote, record.ErrReject)
	}
	_, err := note.Open(msg, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return nil, fmt.Errorf("open note: %w: %w", record.ErrReject, err)
	}
	return unverified.Note, nil
}

// AddCosignatures returns the note in msg with the given cosignatures behind
// its signatures. One that is there already, by key, is replaced: the newer
// one has the newer time.
func AddCosignatures(msg []byte, add ...Cosignature) ([]byte, error) {
	n, err := openUnverified(msg)
	if err != nil {
		return nil, fmt.Errorf("add cosignatures: %w", err)
	}
	var b bytes.Buffer
	b.WriteString(n.Text)
	b.WriteByte('\n')
	for _, s := range n.UnverifiedSigs {
		if !slices.ContainsFunc(add, func(c Cosignature) bool { return c.ID == keyID(s.Name, s.Hash) }) {
			fmt.Fprintf(&b, "— %s %s\n", s.Name, s.Base64)
		}
	}
	for _, c := range add {
		fmt.Fprintf(&b, "— %s %s\n", c.line.Name, c.line.Base64)
	}
	if b.Len() > maxNote {
		return nil, fmt.Errorf("add cosignatures: the note would have %d bytes, limit %d: %w", b.Len(), maxNote, record.ErrReject)
	}
	return b.Bytes(), nil
}

// Cosignatures returns the cosignatures of the given witnesses on the
// checkpoint in msg. One that is there and does not verify is an error, which
// wraps record.ErrReject: somebody tampered with it.
func Cosignatures(msg []byte, keys []WitnessKey) ([]Cosignature, error) {
	n, err := openUnverified(msg)
	if err != nil {
		return nil, err
	}
	var found []Cosignature
	for _, k := range keys {
		for _, s := range n.UnverifiedSigs {
			if s.Name != k.v.Name() || s.Hash != k.v.KeyHash() {
				continue
			}
			c, err := k.verify(msg, s)
			if err != nil {
				return nil, fmt.Errorf("witness %s: %w", k.Name, err)
			}
			found = append(found, c)
			break
		}
	}
	return found, nil
}

// DisputeError says that a witness has seen, or says that it has seen, another
// history of a log than this one. Without a checkpoint that the log's own key
// signed it is the witness's word only.
type DisputeError struct {
	Witness string
	Origin  string
	Ours    uint64 // size of the checkpoint that it was asked to cosign
	Theirs  uint64 // size that it says it has seen; 0: not said
	Reason  string
}

// Error says what the witness disputes.
func (e *DisputeError) Error() string {
	if e.Theirs > e.Ours {
		return fmt.Sprintf("witness %s says that it has seen %s at size %d, this checkpoint has size %d: %s", e.Witness, e.Origin, e.Theirs, e.Ours, e.Reason)
	}
	return fmt.Sprintf("witness %s disputes %s at size %d: %s", e.Witness, e.Origin, e.Ours, e.Reason)
}

// Is makes a DisputeError a rejection.
func (e *DisputeError) Is(target error) bool { return target == record.ErrReject }
