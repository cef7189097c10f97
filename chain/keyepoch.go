package chain

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// vmKey is a key of VM logs and the entry of the host log that certifies it.
type vmKey struct {
	key   ed25519.PublicKey
	index uint64
}

// loadVMKeys reads which keys are certified, in their order.
func (s *Store) loadVMKeys() error {
	var all []vmKey
	prefix := []byte{tableMeta, metaCertificate}
	err := scan(s.db, prefix, func(key, value []byte) error {
		if len(key) != len(prefix)+ed25519.PublicKeySize || len(value) != 12 || binary.BigEndian.Uint32(value) != 0 {
			return corrupt("certificate row %x holds %x", key, value)
		}
		all = append(all, vmKey{key: slices.Clone(ed25519.PublicKey(key[len(prefix):])), index: binary.BigEndian.Uint64(value[4:])})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b vmKey) int { return cmp.Compare(a.index, b.index) })
	s.vmKeys = all
	return nil
}

// settleKeys ends a rotation that a crash has cut short: a prepared key that
// the host log certifies takes its place, any other is dropped. The key that
// signs must then be the newest one: an older one was retired.
func (s *Store) settleKeys() error {
	if len(s.vmKeys) == 0 {
		return corrupt("no entry certifies a key of the VM logs")
	}
	newest := s.vmKeys[len(s.vmKeys)-1].key
	if next, ok := s.cfg.Keys.Next(); ok && !s.readOnly {
		if newest.Equal(next) {
			if err := s.cfg.Keys.ReplaceVM(); err != nil {
				return err
			}
			s.cfg.Log.Warn("a change of the VM-log key that was cut short is completed", slog.String("key", fmt.Sprintf("%x", next)))
		} else if err := s.cfg.Keys.DropNext(); err != nil {
			return err
		}
	}
	if pub := s.cfg.Keys.VMPublic(); !s.readOnly && !s.restoring && !newest.Equal(pub) {
		return fmt.Errorf("the VM-log key %x in the key directory is not the one that the host log certified last, %x: an older copy of the directory was restored; bring back the newest one: %w", pub, newest, record.ErrFatal)
	}
	return nil
}

// openNote verifies the note of a log's checkpoint with whichever of the
// certified keys signed it, and returns that key.
func (s *Store) openNote(l *Log, msg []byte, certified []vmKey) (proof.Checkpoint, ed25519.PublicKey, error) {
	if l.name.IsHost() {
		c, err := proof.OpenCheckpoint(msg, l.verifier)
		return c, s.cfg.Keys.HostPublic(), err
	}
	var first error
	for _, k := range slices.Backward(certified) {
		c, err := l.openWith(msg, k.key)
		if err == nil {
			return c, k.key, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("no key of the VM logs is certified: %w", record.ErrReject)
	}
	return proof.Checkpoint{}, nil, first
}

func (l *Log) openWith(msg []byte, key ed25519.PublicKey) (proof.Checkpoint, error) {
	v, err := proof.NewVerifier(l.origin, key)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	return proof.OpenCheckpoint(msg, v)
}

// VMKeySince returns when the key that signs the VM logs was certified.
func (s *Store) VMKeySince() (time.Time, error) {
	s.checkpointMu.Lock()
	index := s.vmKeys[len(s.vmKeys)-1].index
	s.checkpointMu.Unlock()
	leaf, err := s.host.readHeader(index)
	if err != nil {
		return time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	return time.Unix(0, leaf.Wall), nil
}

// KeyEpoch is a key of the VM logs and its certificate.
type KeyEpoch struct {
	Number uint64
	Key    ed25519.PublicKey
	Index  uint64 // of the certificate in the host log
}

// RotateVMKey replaces the key that signs the VM logs and destroys the old one:
// who takes over the host later cannot sign as the host of before. cause
// says in the certificate who wanted it. It needs Run to be running. No
// checkpoint is signed meanwhile. The order:
//
//  1. Everything that the old key signs is signed and quoted in the host log.
//  2. The new key is written, and signed by the old one.
//  3. The host log certifies it. From here on the old key is retired.
//  4. The new file takes the place of the old one, which is destroyed.
//  5. The host log is signed, anchored and published over all of it.
//
// A crash before 3 leaves the old key in force, and Open drops the new one; a
// crash after 3 is completed by Open. A failure in 4 is fatal for that reason.
func (s *Store) RotateVMKey(ctx context.Context, cause string) (KeyEpoch, error) {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	logs := s.Logs()
	if err := s.checkpointVMs(logs); err != nil {
		return KeyEpoch{}, fmt.Errorf("rotate key: %w", err)
	}
	if err := s.quote(logs, s.submitAndWait(ctx)); err != nil {
		return KeyEpoch{}, fmt.Errorf("rotate key: %w", err)
	}
	epoch, err := s.certifyNext(ctx, cause)
	if err != nil {
		return KeyEpoch{}, fmt.Errorf("rotate key: %w", err)
	}
	if err := s.cfg.Keys.ReplaceVM(); err != nil {
		return KeyEpoch{}, s.fail(fmt.Errorf("rotate key: the new one is certified and could not take its place; the next start tries again: %w", err))
	}
	s.cfg.Log.Info("the VM-log key is replaced", slog.Uint64("number", epoch.Number), slog.String("cause", cause))
	if err := s.checkpointHost(); err != nil {
		return KeyEpoch{}, fmt.Errorf("rotate key: %w", err)
	}
	s.askWitnesses()
	return epoch, nil
}

// certifyNext prepares a key and seals its certificate, for a holder of
// checkpointMu.
func (s *Store) certifyNext(ctx context.Context, cause string) (KeyEpoch, error) {
	number, prefix := uint64(len(s.vmKeys)), proof.VMPrefix(s.cfg.HostID)
	previous := s.cfg.Keys.VMPublic()
	next, signature, err := s.cfg.Keys.PrepareVM(number, prefix)
	if err != nil {
		return KeyEpoch{}, err
	}
	e, err := s.Draft(record.OriginHost, record.ClassKeyCertificate, &record.KeyCertificate{
		Use: keys.UseVMLog, PublicKey: next, OriginPrefix: prefix, NotBefore: s.cfg.Now().UnixNano(),
		Number: number, PreviousKey: previous, PreviousSignature: signature, Cause: cause,
	})
	if err != nil {
		return KeyEpoch{}, err
	}
	epoch := KeyEpoch{Number: number, Key: next}
	r := newRequest(Batch{Log: s.host, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		epoch.Index = sealed[0].First
		return b.Set(keyMeta(metaCertificate, next), certificateRow(s.host.id, epoch.Index), nil)
	}
	// Whether it is certified must be known: with ctx ending while the entry is
	// on its way, the old key might sign behind its end.
	if err := s.submitAndWait(context.WithoutCancel(ctx))(r); err != nil {
		return KeyEpoch{}, err
	}
	s.vmKeys = append(s.vmKeys, vmKey{key: next, index: epoch.Index})
	return epoch, nil
}
