package chain

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// A file of payload keys holds those of one hour. Part of the format:
//
//	offset size field
//	     0    8 magic and version, "PVPK1" and three zero bytes
//	     8   16 store id
//	    24   20 zero
//	    44  44n slots: 4 log, 32 key, 8 begin of the SHA-256 of hour and slot
//
// A slot whose last field is wrong is empty: its key was destroyed, or a crash
// cut its writing short.
const (
	payloadKeyMagic = "PVPK1\x00\x00\x00"
	payloadKeySlot  = 4 + 32 + 8
	maxKeyFile      = 64 << 20
)

// cachedHours bounds how many hours' keys are in memory.
const cachedHours = 64

// errNoKey says that the key of a payload is not there. What it opens cannot
// be read, and nor can what is derived from it.
var errNoKey = errors.New("its key is not in the directory of payload keys; if it was lost, bring the directory back")

// payloadKeys are the keys that payloads are encrypted under, one for each log
// and hour of host time. They stand outside the store, so that a destroyed key
// takes every copy of the payload with it. Safe for concurrent use.
type payloadKeys struct {
	fs    vfs.FS
	dir   string
	store [16]byte
	run   [8]byte // of this run: subkeys of rows are its own

	mu    sync.Mutex
	hours map[int64]map[LogID]*payloadKey
	fresh map[int64][]LogID // not in their file yet
}

// payloadKey is the key of one log and hour.
type payloadKey struct {
	key  [32]byte
	seal cipher.AEAD // of bundles
	row  cipher.AEAD // of rows, in this run
}

// hourOf returns the hour of a wall time, counted from 1970.
func hourOf(wall int64) int64 {
	h := wall / int64(time.Hour)
	if wall%int64(time.Hour) < 0 {
		h--
	}
	return h
}

func newPayloadKeys(c Config, store [16]byte) *payloadKeys {
	k := &payloadKeys{fs: c.FS, dir: c.PayloadKeys, store: store, hours: map[int64]map[LogID]*payloadKey{}, fresh: map[int64][]LogID{}}
	_, _ = rand.Read(k.run[:]) // never fails
	return k
}

func (k *payloadKeys) path(hour int64) string {
	return k.fs.PathJoin(k.dir, fmt.Sprintf("hour-%d", hour))
}

// subkey makes the cipher for one purpose.
func (p *payloadKey) subkey(purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, p.key[:], purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

const (
	purposeBundle = "provost/payload/bundle/v1"
	purposeRow    = "provost/payload/row/v1\x00" // and the run
)

func (k *payloadKeys) derive(key [32]byte) (*payloadKey, error) {
	p := &payloadKey{key: key}
	var err error
	if p.seal, err = p.subkey(purposeBundle); err != nil {
		return nil, err
	}
	p.row, err = p.subkey(purposeRow + string(k.run[:]))
	return p, err
}

// find returns the key of a log and hour, or an error that wraps errNoKey.
func (k *payloadKeys) find(id LogID, hour int64) (*payloadKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := k.load(hour)
	if err != nil {
		return nil, err
	}
	if p := keys[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("log number %d, hour from %s: %w", id, time.Unix(hour*3600, 0).UTC().Format(time.RFC3339), errNoKey)
}

// use is find for the committer: it draws the key where there is none. flush
// must come before anything that is encrypted under it is acknowledged.
func (k *payloadKeys) use(id LogID, hour int64) (*payloadKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := k.load(hour)
	if err != nil || keys[id] != nil {
		return keys[id], err
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	p, err := k.derive(raw)
	if err != nil {
		return nil, err
	}
	keys[id] = p
	k.fresh[hour] = append(k.fresh[hour], id)
	return p, nil
}

// load returns the keys of an hour. The caller holds mu.
func (k *payloadKeys) load(hour int64) (map[LogID]*payloadKey, error) {
	if keys := k.hours[hour]; keys != nil {
		return keys, nil
	}
	data, err := k.read(hour)
	if err != nil {
		return nil, err
	}
	keys := map[LogID]*payloadKey{}
	for ; len(data) >= payloadKeySlot; data = data[payloadKeySlot:] {
		slot := data[:payloadKeySlot]
		if !bytes.Equal(slot[36:], slotSum(hour, slot[:36])) {
			continue
		}
		id := LogID(binary.BigEndian.Uint32(slot))
		if keys[id], err = k.derive([32]byte(slot[4:36])); err != nil {
			return nil, err
		}
	}
	for h := range k.hours { // any: what is needed is read again
		if len(k.hours) < cachedHours {
			break
		}
		if k.fresh[h] == nil {
			delete(k.hours, h)
		}
	}
	k.hours[hour] = keys
	return keys, nil
}

func slotSum(hour int64, slot []byte) []byte {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(hour)), slot...))
	return sum[:8]
}

func (k *payloadKeys) head() []byte {
	b := append([]byte(payloadKeyMagic), k.store[:]...)
	return append(b, make([]byte, payloadKeySlot-len(b))...)
}

// read returns the slots of an hour's file, nothing where there is none.
func (k *payloadKeys) read(hour int64) (slots []byte, err error) {
	f, err := k.fs.Open(k.path(hour))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read payload keys: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read payload keys %s: %w", k.path(hour), err)
	}
	if len(data) < payloadKeySlot {
		return nil, nil // a crash came right after it was made
	}
	if len(data) > maxKeyFile || !bytes.Equal(data[:payloadKeySlot], k.head()) {
		return nil, fmt.Errorf("read payload keys %s: it is no file of payload keys of this store: %w", k.path(hour), record.ErrFatal)
	}
	return data[payloadKeySlot:], nil
}

// flush makes all new keys durable.
//
// Slots are only ever written behind the end, and in place when they are
// destroyed: no older copy of a key is left in blocks that the file has given
// up. A crash before the sync leaves slots that are empty or unused keys.
func (k *payloadKeys) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, hour := range slices.Sorted(maps.Keys(k.fresh)) {
		if err := k.append(hour, k.fresh[hour]); err != nil {
			return fmt.Errorf("write payload keys: %w", err)
		}
		delete(k.fresh, hour)
	}
	return nil
}

func (k *payloadKeys) append(hour int64, ids []LogID) (err error) {
	old, err := k.read(hour)
	if err != nil {
		return err
	}
	there, err := exists(k.fs, k.path(hour))
	if err != nil {
		return err
	}
	f, err := k.fs.OpenReadWrite(k.path(hour), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// The head is written each time: a crash may have left half of it.
	data := k.head()
	at := int64(0)
	if n := len(old) / payloadKeySlot; n > 0 || len(old) > 0 {
		at = int64((1 + n) * payloadKeySlot)
		data = nil
	}
	for _, id := range ids {
		slot := binary.BigEndian.AppendUint32(nil, uint32(id))
		slot = append(slot, k.hours[hour][id].key[:]...)
		data = append(append(data, slot...), slotSum(hour, slot)...)
	}
	_, err = f.WriteAt(data, at)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil || there {
		return err
	}
	// Its name must not be lost either.
	d, err := k.fs.OpenDir(k.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Encrypted rows. A P row of form 3 is: 1 form, 8 run, and encrypted under the
// run's subkey: 1 form (1 or 2), 32 salt or seed, payload.
const sealedRowExtra = 1 + len(payloadKeys{}.run) + 16 // 16: the tag

// sealRow encrypts in place what row holds from its tenth byte on but for the
// last 16 bytes.
//
// The nonce is log and index. It never comes twice under one key: the subkey is
// this run's alone, and in a run an index of a log is sealed once, since a
// commit that fails ends the run.
func (k *payloadKeys) sealRow(p *payloadKey, row []byte, id LogID, index uint64) {
	row[0] = payloadSealed
	copy(row[1:], k.run[:])
	plain := row[9 : len(row)-16]
	p.row.Seal(plain[:0], rowNonce(id, index), plain, k.store[:])
}

// resealRow is sealRow for a row that replaces another one: under the subkey of
// a run of its own, or the nonce would come twice.
func (k *payloadKeys) resealRow(p *payloadKey, row []byte, id LogID, index uint64) error {
	row[0] = payloadSealed
	_, _ = rand.Read(row[1:9]) // never fails
	aead, err := p.subkey(purposeRow + string(row[1:9]))
	if err != nil {
		return err
	}
	plain := row[9 : len(row)-16]
	aead.Seal(plain[:0], rowNonce(id, index), plain, k.store[:])
	return nil
}

func rowNonce(id LogID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), index)
}

// openRow decrypts a row to what it would be without encryption.
func (k *payloadKeys) openRow(row []byte, id LogID, leaf *record.Leaf) ([]byte, error) {
	if len(row) < sealedRowExtra {
		return nil, fmt.Errorf("encrypted payload row has %d bytes, want at least %d", len(row), sealedRowExtra)
	}
	p, err := k.find(id, hourOf(leaf.Wall))
	if err != nil {
		return nil, err
	}
	aead := p.row
	if run := row[1:9]; !bytes.Equal(run, k.run[:]) {
		if aead, err = p.subkey(purposeRow + string(run)); err != nil {
			return nil, err
		}
	}
	plain, err := aead.Open(nil, rowNonce(id, leaf.Index), row[9:], k.store[:])
	if err != nil {
		return nil, fmt.Errorf("payload row does not decrypt: it was changed, or its key is another: %w", err)
	}
	return plain, nil
}

// bundleAD binds a segment to its place.
func (k *payloadKeys) bundleAD(id LogID, first uint64) []byte {
	return append(rowNonce(id, first), k.store[:]...)
}

// sealSegment encrypts the bytes of a segment that begins with the entry first.
// Its nonce is random: a bundle may be packed again, and few are of one hour.
func (k *payloadKeys) sealSegment(s *segment, id LogID, first uint64) error {
	p, err := k.find(id, s.hour)
	if err != nil {
		return err
	}
	_, _ = rand.Read(s.nonce[:]) // never fails
	s.form = segmentSealed
	s.blob = p.seal.Seal(nil, s.nonce[:], s.blob, k.bundleAD(id, first))
	return nil
}

func (k *payloadKeys) openSegment(s *segment, id LogID, first uint64) ([]byte, error) {
	p, err := k.find(id, s.hour)
	if err != nil {
		return nil, err
	}
	plain, err := p.seal.Open(nil, s.nonce[:], s.blob, k.bundleAD(id, first))
	if err != nil {
		return nil, fmt.Errorf("payloads do not decrypt: they were changed, or their key is another: %w", err)
	}
	return plain, nil
}
