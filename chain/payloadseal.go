package chain

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// Encrypted rows. A P row of form 5 is: 1 form, 8 run, 4 generation of the key,
// and encrypted under the run's subkey: 1 form (1 or 2), 32 salt or seed, payload.
// Whose key it is follows from the author. Form 3, of stores of before, has no
// generation: its key is the shared one of log and hour.
const (
	sealedRowHead  = 1 + len(payloadKeys{}.run) + 4
	sealedRowExtra = sealedRowHead + 16 // 16: the tag
	sharedRowHead  = 1 + len(payloadKeys{}.run)
)

// sealRow encrypts in place what row holds behind its head but for the last 16
// bytes.
//
// The nonce is log and index. It never comes twice under one key: the subkey is
// this run's alone, and in a run an index of a log is sealed once, since a
// commit that fails ends the run.
func (k *payloadKeys) sealRow(p *payloadKey, row []byte, index uint64) {
	copy(row[1:], k.run[:])
	k.sealRowWith(p.row, p, row, index)
}

// resealRow is sealRow for a row that replaces another one: under the subkey of
// a run of its own, or the nonce would come twice.
func (k *payloadKeys) resealRow(p *payloadKey, row []byte, index uint64) error {
	_, _ = rand.Read(row[1:9]) // never fails
	aead, err := p.subkey(purposeRow + string(row[1:9]))
	if err == nil {
		k.sealRowWith(aead, p, row, index)
	}
	return err
}

func (k *payloadKeys) sealRowWith(aead cipher.AEAD, p *payloadKey, row []byte, index uint64) {
	row[0] = payloadKeyed
	binary.BigEndian.PutUint32(row[9:], p.generation)
	plain := row[sealedRowHead : len(row)-16]
	aead.Seal(plain[:0], rowNonce(p.log, index), plain, k.store[:])
}

func rowNonce(id LogID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), index)
}

// rowKey says which key a P row is encrypted under; ok is false where it is not.
func rowKey(row []byte, id LogID, origin record.Origin) (name keyName, head int, ok bool) {
	switch {
	case len(row) > 0 && row[0] == payloadSealed:
		return keyName{log: id, kind: keyShared}, sharedRowHead, true
	case len(row) >= sealedRowHead && row[0] == payloadKeyed:
		return keyName{id, kindOf(origin), binary.BigEndian.Uint32(row[9:])}, sealedRowHead, true
	}
	return keyName{}, 0, false
}

// openRow decrypts a row to what it would be without encryption.
func (k *payloadKeys) openRow(row []byte, id LogID, leaf *record.Leaf) ([]byte, error) {
	name, head, ok := rowKey(row, id, leaf.Origin)
	if !ok || len(row) < head+16 {
		return nil, fmt.Errorf("encrypted payload row has %d bytes, want at least %d", len(row), sharedRowHead+16)
	}
	p, err := k.find(name, hourOf(leaf.Wall))
	if err != nil {
		return nil, err
	}
	aead := p.row
	if run := row[1:9]; !bytes.Equal(run, k.run[:]) {
		if aead, err = p.subkey(purposeRow + string(run)); err != nil {
			return nil, err
		}
	}
	plain, err := aead.Open(nil, rowNonce(id, leaf.Index), row[head:], k.store[:])
	if err != nil {
		return nil, fmt.Errorf("payload row: %w (%v)", errOtherKey, err)
	}
	return plain, nil
}

// bundleAD binds a segment to its place.
func (k *payloadKeys) bundleAD(id LogID, place uint64) []byte {
	return append(rowNonce(id, place), k.store[:]...)
}

// sealSegment encrypts the bytes of a segment at a place. Its nonce is random: a
// bundle may be packed again, and few are of one hour. flush must come before the
// bundle is written: the key may be a new one.
func (k *payloadKeys) sealSegment(s *segment, id LogID, place uint64) error {
	p, err := k.use(id, s.kind, s.hour)
	if err != nil {
		return err
	}
	_, _ = rand.Read(s.nonce[:]) // never fails
	s.form, s.generation = segmentKeyed, p.generation
	s.blob = p.seal.Seal(nil, s.nonce[:], s.blob, k.bundleAD(id, place))
	return nil
}

// key returns the name of the key that a segment is encrypted under; ok is false
// where it is not.
func (s *segment) key(id LogID) (name keyName, ok bool) {
	switch s.form {
	case segmentSealed:
		return keyName{log: id, kind: keyShared}, true
	case segmentKeyed:
		return keyName{id, s.kind, s.generation}, true
	}
	return keyName{}, false
}

func (k *payloadKeys) openSegment(s *segment, id LogID, place uint64) ([]byte, error) {
	name, _ := s.key(id)
	p, err := k.find(name, s.hour)
	if err != nil {
		return nil, err
	}
	plain, err := p.seal.Open(nil, s.nonce[:], s.blob, k.bundleAD(id, place))
	if err != nil {
		return nil, fmt.Errorf("payloads: %w (%v)", errOtherKey, err)
	}
	return plain, nil
}
