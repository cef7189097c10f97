package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retire has the next use of the erasable key of a log and hour draw a new one,
// and returns the newest generation of before, 0 where there is none. It is of
// this run: who retires writes down what, until destroy.
func (k *payloadKeys) retire(id LogID, hour int64) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.load(hour)
	if err != nil {
		return 0, err
	}
	at := logHour{id, hour}
	k.retired[at] = max(k.retired[at], h.newest[id])
	return k.retired[at], nil
}

// readable tells whether the keys of an hour can be read.
func (k *payloadKeys) readable(hour int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, err := k.load(hour)
	return err
}

// retireUpTo is retire as it was written down by an earlier run.
func (k *payloadKeys) retireUpTo(id LogID, hour int64, generation uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := logHour{id, hour}
	k.retired[at] = max(k.retired[at], generation)
}

// stale reports whether what is encrypted under a key must be encrypted anew
// before the retired keys of the hour are destroyed.
func (k *payloadKeys) stale(name keyName, hour int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	retired, ok := k.retired[logHour{name.log, hour}]
	return ok && (name.kind == keyShared || name.kind == keyErasable && name.generation <= retired)
}

// destroy overwrites the erasable keys of a log and hour up to a generation, and
// the shared key, and syncs. Nothing that must stay is encrypted under them any
// more. It may be done again: a crash amid a slot leaves one with a wrong sum and
// the name of the key, and that is overwritten as well.
//
// How far an overwritten block is gone is for the file system and the disk to
// say: the operator's guide tells which are fit.
func (k *payloadKeys) destroy(id LogID, hour int64, generation uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.flushLocked(); err != nil { // a retired key may not be in its file yet
		return err
	}
	err := k.overwrite(k.path(hour), payloadKeyMagic, payloadKeySlot, func(slot []byte) []byte {
		name, _, _ := parseSlot(hour, slot)
		if name.log != id || name.kind != keyErasable || name.generation > generation {
			return nil
		}
		return appendSlot(nil, hour, name, [32]byte{})
	})
	if err == nil {
		err = k.overwriteShared(id, hour)
	}
	if err != nil {
		return fmt.Errorf("destroy payload keys: %w", err)
	}
	if h := k.hours[hour]; h != nil {
		for name := range maps.Keys(h.keys) {
			switch {
			case name.log == id && name.kind == keyErasable && name.generation <= generation:
				h.keys[name] = nil
			case name.log == id && name.kind == keyShared:
				delete(h.keys, name)
			}
		}
	}
	if at := (logHour{id, hour}); k.retired[at] <= generation {
		delete(k.retired, at)
	}
	return nil
}

// destroyLog overwrites all keys of a log, of every kind and hour, and syncs. It may be
// done again, like destroy.
func (k *payloadKeys) destroyLog(id LogID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.flushLocked(); err != nil {
		return err
	}
	names, err := k.fs.List(k.dir)
	if err != nil {
		return fmt.Errorf("destroy payload keys: %w", err)
	}
	for _, name := range names {
		var hour int64
		if _, err = fmt.Sscanf(name, "keys-%d", &hour); err == nil {
			err = k.overwrite(k.path(hour), payloadKeyMagic, payloadKeySlot, func(slot []byte) []byte {
				name, _, _ := parseSlot(hour, slot)
				if name.log != id {
					return nil
				}
				return appendSlot(nil, hour, name, [32]byte{})
			})
		} else if _, err = fmt.Sscanf(name, "hour-%d", &hour); err == nil {
			err = k.overwriteShared(id, hour)
		} else {
			continue // no file of keys
		}
		if err != nil {
			return fmt.Errorf("destroy payload keys: %w", err)
		}
	}
	for _, h := range k.hours {
		for name := range maps.Keys(h.keys) {
			if name.log == id {
				h.keys[name] = nil
			}
		}
	}
	maps.DeleteFunc(k.retired, func(at logHour, _ uint32) bool { return at.log == id })
	return nil
}

// overwriteShared overwrites the shared key of a log and hour, of stores of before.
func (k *payloadKeys) overwriteShared(id LogID, hour int64) error {
	return k.overwrite(k.sharedPath(hour), sharedKeyMagic, sharedKeySlot, func(slot []byte) []byte {
		if LogID(binary.BigEndian.Uint32(slot)) != id {
			return nil
		}
		return append(bytes.Clone(slot[:4]), make([]byte, sharedKeySlot-4)...)
	})
}

// overwrite puts what change returns in the place of slots, where it is not nil.
func (k *payloadKeys) overwrite(path, magic string, size int, change func(slot []byte) []byte) (err error) {
	slots, err := k.read(path, magic, size)
	if err != nil || len(slots) == 0 {
		return err
	}
	var f vfs.File
	for at := 0; at+size <= len(slots); at += size {
		slot := slots[at : at+size]
		by := change(slot)
		if by == nil || bytes.Equal(by, slot) {
			continue
		}
		if f == nil {
			if f, err = k.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
		}
		if _, err := f.WriteAt(by, int64(size+at)); err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	return f.Sync()
}
