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

// A file of payload keys holds those of one hour, keys-<hour>. Part of the format:
//
//	offset size field
//	     0    8 magic and version, "PVPK2" and three zero bytes
//	     8   16 store id
//	    24   28 zero
//	    52  52n slots: 4 log, 1 kind, 3 zero, 4 generation, 32 key, 8 begin of
//	            the SHA-256 of hour and slot
//
// A slot whose key is zero was destroyed. One whose last field is wrong is empty:
// a crash cut its writing short.
//
// Stores of before have files hour-<hour> as well, or only: with the magic
// "PVPK1", and slots of 4 log, 32 key, 8 sum, whose keys served every author.
const (
	payloadKeyMagic = "PVPK2\x00\x00\x00"
	payloadKeySlot  = 4 + 4 + 4 + 32 + 8
	sharedKeyMagic  = "PVPK1\x00\x00\x00"
	sharedKeySlot   = 4 + 32 + 8
	maxKeyFile      = 64 << 20
)

// keyKind says whose payloads a key is for. Part of the format.
type keyKind byte

const (
	keyShared    keyKind = 0 // everybody's, in stores of before
	keyKept      keyKind = 1 // the host's own statements, which are never erased
	keyErasable  keyKind = 2 // what guests say, and policies about it
	keptKeyFirst         = 1 // the one generation of keyKept
)

// kindOf returns under which kind of key the payloads of an author are: what can
// be erased shares no key with what must stay.
func kindOf(o record.Origin) keyKind {
	if o == record.OriginGuest || o == record.OriginPolicy {
		return keyErasable
	}
	return keyKept
}

// cachedHours bounds how many hours' keys are in memory.
const cachedHours = 64

// errNoKey says that the key of a payload is not there. What it opens cannot
// be read, and nor can what is derived from it.
var errNoKey = errors.New("its key is not in the directory of payload keys; if it was lost, bring the directory back")

// errKeyDestroyed is the errNoKey of a key that an erasure has destroyed.
var errKeyDestroyed = fmt.Errorf("an erasure has destroyed its key; this is a row from before: %w", errNoKey)

// errOtherKey is the errNoKey of a payload that the key which is there does not
// open: the payload was changed, or its key was lost and drawn anew.
var errOtherKey = fmt.Errorf("it does not decrypt: it was changed, or %w", errNoKey)

// payloadKeys are the keys that payloads are encrypted under, for each log and
// hour of host time one for what is kept and one for what can be erased. They
// stand outside the store, so that a destroyed key takes every copy of the
// payload with it. Safe for concurrent use.
type payloadKeys struct {
	fs    vfs.FS
	dir   string
	store [16]byte
	run   [8]byte // of this run: subkeys of rows are its own

	mu      sync.Mutex
	hours   map[int64]*hourKeys
	dirty   map[int64]bool     // hours with fresh keys
	retired map[logHour]uint32 // generations up to it open what is there, and seal nothing more
}

// hourKeys are the keys of one hour.
type hourKeys struct {
	keys   map[keyName]*payloadKey // nil: destroyed
	newest map[LogID]uint32        // generation of the erasable key, destroyed ones included
	fresh  []keyName               // not in the file yet
}

type keyName struct {
	log        LogID
	kind       keyKind
	generation uint32
}

type logHour struct {
	log  LogID
	hour int64
}

// payloadKey is one key.
type payloadKey struct {
	keyName
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
	k := &payloadKeys{fs: c.FS, dir: c.PayloadKeys, store: store, hours: map[int64]*hourKeys{}, dirty: map[int64]bool{}, retired: map[logHour]uint32{}}
	_, _ = rand.Read(k.run[:]) // never fails
	return k
}

func (k *payloadKeys) path(hour int64) string {
	return k.fs.PathJoin(k.dir, fmt.Sprintf("keys-%d", hour))
}

func (k *payloadKeys) sharedPath(hour int64) string {
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

func (k *payloadKeys) derive(name keyName, key [32]byte) (*payloadKey, error) {
	p := &payloadKey{keyName: name, key: key}
	var err error
	if p.seal, err = p.subkey(purposeBundle); err != nil {
		return nil, err
	}
	p.row, err = p.subkey(purposeRow + string(k.run[:]))
	return p, err
}

// find returns a key, or an error that wraps errNoKey.
func (k *payloadKeys) find(name keyName, hour int64) (*payloadKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.load(hour)
	if err != nil {
		return nil, err
	}
	p, ok := h.keys[name]
	if p != nil {
		return p, nil
	}
	if err = errNoKey; ok {
		err = errKeyDestroyed
	}
	return nil, fmt.Errorf("log number %d, hour from %s: %w", name.log, time.Unix(hour*3600, 0).UTC().Format(time.RFC3339), err)
}

// use returns the key to encrypt with now, and draws it where there is none.
// flush must come before anything that is encrypted under it is acknowledged.
func (k *payloadKeys) use(id LogID, kind keyKind, hour int64) (*payloadKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.load(hour)
	if err != nil {
		return nil, err
	}
	name := keyName{id, kind, keptKeyFirst}
	if kind == keyErasable {
		retired := k.retired[logHour{id, hour}]
		if name.generation = h.newest[id]; name.generation <= retired || h.keys[name] == nil {
			name.generation = max(name.generation, retired) + 1
		}
	}
	if p := h.keys[name]; p != nil {
		return p, nil
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	p, err := k.derive(name, raw)
	if err != nil {
		return nil, err
	}
	h.add(name, p)
	h.fresh = append(h.fresh, name)
	k.dirty[hour] = true
	return p, nil
}

func (h *hourKeys) add(name keyName, p *payloadKey) {
	h.keys[name] = p
	if name.kind == keyErasable {
		h.newest[name.log] = max(h.newest[name.log], name.generation)
	}
}

// load returns the keys of an hour. The caller holds mu.
func (k *payloadKeys) load(hour int64) (*hourKeys, error) {
	if h := k.hours[hour]; h != nil {
		return h, nil
	}
	h := &hourKeys{keys: map[keyName]*payloadKey{}, newest: map[LogID]uint32{}}
	slots, err := k.read(k.path(hour), payloadKeyMagic, payloadKeySlot)
	if err != nil {
		return nil, err
	}
	for ; len(slots) >= payloadKeySlot; slots = slots[payloadKeySlot:] {
		name, key, ok := parseSlot(hour, slots[:payloadKeySlot])
		if !ok {
			continue
		}
		if h.add(name, nil); key == ([32]byte{}) {
			continue
		}
		if h.keys[name], err = k.derive(name, key); err != nil {
			return nil, err
		}
	}
	if slots, err = k.read(k.sharedPath(hour), sharedKeyMagic, sharedKeySlot); err != nil {
		return nil, err
	}
	for ; len(slots) >= sharedKeySlot; slots = slots[sharedKeySlot:] {
		if slot := slots[:sharedKeySlot]; bytes.Equal(slot[36:], slotSum(hour, slot[:36])) {
			name := keyName{log: LogID(binary.BigEndian.Uint32(slot)), kind: keyShared}
			if h.keys[name], err = k.derive(name, [32]byte(slot[4:36])); err != nil {
				return nil, err
			}
		}
	}
	for o := range k.hours { // any: what is needed is read again
		if len(k.hours) < cachedHours {
			break
		}
		if !k.dirty[o] {
			delete(k.hours, o)
		}
	}
	k.hours[hour] = h
	return h, nil
}

func slotSum(hour int64, slot []byte) []byte {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(hour)), slot...))
	return sum[:8]
}

// appendSlot encodes a slot; a zero key is one that was destroyed.
func appendSlot(b []byte, hour int64, name keyName, key [32]byte) []byte {
	n := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(name.log))
	b = append(b, byte(name.kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, name.generation)
	b = append(b, key[:]...)
	return append(b, slotSum(hour, b[n:])...)
}

// parseSlot is the inverse of appendSlot. ok is false where the sum is wrong;
// the name is that of the slot all the same.
func parseSlot(hour int64, slot []byte) (name keyName, key [32]byte, ok bool) {
	name = keyName{LogID(binary.BigEndian.Uint32(slot)), keyKind(slot[4]), binary.BigEndian.Uint32(slot[8:])}
	return name, [32]byte(slot[12:44]), bytes.Equal(slot[44:], slotSum(hour, slot[:44]))
}

func (k *payloadKeys) head(magic string, size int) []byte {
	b := append([]byte(magic), k.store[:]...)
	return append(b, make([]byte, size-len(b))...)
}

// read returns the slots of a file of keys, nothing where there is none.
func (k *payloadKeys) read(path, magic string, size int) (slots []byte, err error) {
	f, err := k.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read payload keys: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read payload keys %s: %w", path, err)
	}
	if len(data) < size {
		return nil, nil // a crash came right after it was made
	}
	if len(data) > maxKeyFile || !bytes.Equal(data[:size], k.head(magic, size)) {
		return nil, fmt.Errorf("read payload keys %s: it is no file of payload keys of this store: %w", path, record.ErrFatal)
	}
	return data[size:], nil
}

// flush makes all new keys durable.
//
// Slots are only ever written behind the end, and in place when they are
// destroyed: no older copy of a key is left in blocks that the file has given
// up. A crash before the sync leaves slots that are empty or unused keys.
func (k *payloadKeys) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.flushLocked()
}

func (k *payloadKeys) flushLocked() error {
	for _, hour := range slices.Sorted(maps.Keys(k.dirty)) {
		h := k.hours[hour]
		if err := k.append(hour, h); err != nil {
			return fmt.Errorf("write payload keys: %w", err)
		}
		h.fresh = nil
		delete(k.dirty, hour)
	}
	return nil
}

func (k *payloadKeys) append(hour int64, h *hourKeys) (err error) {
	old, err := k.read(k.path(hour), payloadKeyMagic, payloadKeySlot)
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
	data := k.head(payloadKeyMagic, payloadKeySlot)
	at := int64(0)
	if n := len(old) / payloadKeySlot; len(old) > 0 {
		at = int64((1 + n) * payloadKeySlot)
		data = nil
	}
	for _, name := range h.fresh {
		data = appendSlot(data, hour, name, h.keys[name].key)
	}
	if err = private(f); err == nil {
		if err = private(f); err == nil {
			_, err = f.WriteAt(data, at)
		}
	}
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
