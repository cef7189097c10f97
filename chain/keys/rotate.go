package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Names that stand beside the VM-log key while it is replaced.
const (
	nextSuffix = ".next" // made, perhaps not certified yet
	oldSuffix  = ".old"  // replaced, about to be destroyed
)

// The VM-log key is replaced in these durable steps:
//
//  1. PrepareVM writes the new key beside the old one (".next"), and what the
//     old one says of it to HandoverFile.
//  2. The ledger certifies it in the host log.
//  3. ReplaceVM gives the old file a second name (".old"), renames the new one
//     over the first, overwrites the old file and removes it.
//
// A crash between them leaves files that Open and the ledger take up: ".old"
// beside a replaced key is destroyed by Open; ".next" is step 3 begun anew where
// the ledger finds it certified, and dropped where it does not. At no time is
// there no key under the name VMFile.

// PrepareVM makes the key that is to replace the VM-log key, and has the latter
// sign it: the signature is over proof.KeyStatement with number and prefix. A
// key prepared before and never used is destroyed.
func (k *Keys) PrepareVM(number uint64, prefix string) (next ed25519.PublicKey, signature []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.dropNext(); err != nil {
		return nil, nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if err := writeKey(k.path(VMFile+nextSuffix), UseVMLog, key); err != nil {
		return nil, nil, err
	}
	if err := syncDir(k.dir); err != nil {
		return nil, nil, err
	}
	next = key.Public().(ed25519.PublicKey)
	previous := k.vm.Public().(ed25519.PublicKey)
	signature = ed25519.Sign(k.vm, proof.KeyStatement(prefix, number, previous, next))
	if err := k.keepHandover(Handover{Number: number, Previous: previous, Next: next, Signature: signature}); err != nil {
		return nil, nil, err
	}
	k.next = key
	return next, signature, nil
}

// Next returns the public key that was prepared and has not replaced the
// VM-log key yet.
func (k *Keys) Next() (next ed25519.PublicKey, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.next == nil {
		return nil, false
	}
	return k.next.Public().(ed25519.PublicKey), true
}

// ReplaceVM makes the prepared key the VM-log key and destroys the old one, on
// disk and in memory. It must be certified by then: whoever stops in between
// finds the old key gone. Signers made before do not sign any more.
func (k *Keys) ReplaceVM() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil {
		return fmt.Errorf("replace key: none was prepared: %w", record.ErrReject)
	}
	path := k.path(VMFile)
	if err := k.settleOld(); err != nil {
		return err
	}
	if err := os.Link(path, path+oldSuffix); err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	if err := os.Rename(path+nextSuffix, path); err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	// The new name must last before the old key goes: else a crash could bring
	// back a name for a file of zeros.
	if err := syncDir(k.dir); err != nil {
		return err
	}
	clear(k.vm)
	k.vm, k.next = k.next, nil
	return k.settleOld()
}

// DropNext destroys a prepared key that nobody certified.
func (k *Keys) DropNext() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dropNext()
}

func (k *Keys) dropNext() error {
	clear(k.next)
	k.next = nil
	return destroy(k.path(VMFile + nextSuffix))
}

func (k *Keys) path(name string) string { return filepath.Join(k.dir, name) }

// settleOld takes away what stands under the name of the old key: a second
// name of the key itself, which was not replaced then, or a file to destroy.
func (k *Keys) settleOld() error {
	path := k.path(VMFile)
	old, err := os.Lstat(path + oldSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a replaced key: %w", err)
	}
	now, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look for a replaced key: %w", err)
	}
	if !os.SameFile(old, now) {
		return destroy(path + oldSuffix)
	}
	if err := os.Remove(path + oldSuffix); err != nil {
		return fmt.Errorf("look for a replaced key: %w", err)
	}
	return syncDir(k.dir)
}

// loadRest takes up what an earlier run left beside the VM-log key.
func (k *Keys) loadRest() error {
	if err := k.settleOld(); err != nil {
		return err
	}
	path := k.path(VMFile)
	if _, err := os.Lstat(path + nextSuffix); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	next, err := readKey(path+nextSuffix, UseVMLog)
	if errors.Is(err, record.ErrReject) {
		// Cut short while it was written, so nobody has certified it.
		return destroy(path + nextSuffix)
	}
	k.next = next
	return err
}

// destroy overwrites a key file, removes it and makes both last. That no copy
// is left in the disk's own spare blocks, in a journal that keeps data, in a file system
// that never writes in place or in a snapshot, no program can promise.
func destroy(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy key: %w", err)
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("destroy key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fmt.Errorf("destroy key %s: it is no key file: %w", path, record.ErrReject)
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return fmt.Errorf("destroy key %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("destroy key %s: %w", path, err)
	}
	err, f = f.Close(), nil
	if err != nil {
		return fmt.Errorf("destroy key %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("destroy key: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
