package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// Handover is what a VM-log key has said of the one after it, as the
// certificate in the host log has it. It is public.
//
// It stands in HandoverFile as well, one a line, the newest last: number, the
// two keys and the signature in base64. A ledger that is restored from an older
// copy lacks the certificates sealed since, and the keys that could make them
// anew are destroyed.
type Handover struct {
	Number    uint64
	Previous  ed25519.PublicKey
	Next      ed25519.PublicKey
	Signature []byte
}

const (
	maxHandovers    = 1000 // kept; older ones lead to no copy that is worth restoring
	maxHandoverFile = 1 << 20
)

// Handovers returns how the given key was handed over to the VM-log key of now,
// step by step: nothing where it is that key.
func (k *Keys) Handovers(from ed25519.PublicKey) ([]Handover, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all, err := k.readHandovers()
	if err != nil {
		return nil, err
	}
	var steps []Handover
	for key := k.vm.Public().(ed25519.PublicKey); !key.Equal(from); key = steps[0].Previous {
		// The newest: a key that was prepared and dropped has one that leads nowhere.
		i := len(all) - 1
		for i >= 0 && !all[i].Next.Equal(key) {
			i--
		}
		if i < 0 || len(steps) > len(all) {
			return nil, fmt.Errorf("%s does not say how VM-log key %x was handed over to %x: %w", k.path(HandoverFile), from, k.vm.Public(), record.ErrReject)
		}
		steps = slices.Insert(steps, 0, all[i])
	}
	return steps, nil
}

func (k *Keys) readHandovers() (all []Handover, err error) {
	f, err := os.Open(k.path(HandoverFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read handovers of keys: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, maxHandoverFile))
	if err != nil {
		return nil, fmt.Errorf("read handovers of keys: %w", err)
	}
	for line := range bytes.Lines(text) {
		if h, ok := parseHandover(line); ok {
			all = append(all, h)
		}
	}
	return all, nil
}

// parseHandover reads a line. One that is damaged does not count: the others
// are as good without it, and each is signed.
func parseHandover(line []byte) (h Handover, ok bool) {
	var previous, next, signature string
	if n, err := fmt.Sscanf(string(line), "%d %s %s %s\n", &h.Number, &previous, &next, &signature); err != nil || n != 4 {
		return h, false
	}
	for _, f := range []struct {
		text string
		to   *[]byte
		size int
	}{{previous, (*[]byte)(&h.Previous), ed25519.PublicKeySize}, {next, (*[]byte)(&h.Next), ed25519.PublicKeySize}, {signature, &h.Signature, ed25519.SignatureSize}} {
		b, err := base64.StdEncoding.DecodeString(f.text)
		if err != nil || len(b) != f.size {
			return h, false
		}
		*f.to = b
	}
	return h, true
}

// keepHandover adds a handover to the file. A crash leaves the file as it was
// or with it.
func (k *Keys) keepHandover(h Handover) error {
	all, err := k.readHandovers()
	if err != nil {
		return err
	}
	all = append(all, h)
	var b bytes.Buffer
	for _, h := range all[max(0, len(all)-maxHandovers):] {
		enc := base64.StdEncoding
		fmt.Fprintf(&b, "%d %s %s %s\n", h.Number, enc.EncodeToString(h.Previous), enc.EncodeToString(h.Next), enc.EncodeToString(h.Signature))
	}
	temporary := k.path(HandoverFile) + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write handovers of keys: %w", err)
	}
	if err := writeNew(temporary, b.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, k.path(HandoverFile)); err != nil {
		return fmt.Errorf("write handovers of keys: %w", err)
	}
	return syncDir(k.dir)
}
