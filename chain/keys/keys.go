package keys

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

// Names of the files in a key directory.
const (
	HostFile     = "host-log.key"
	VMFile       = "vm-log.key"
	VerifierFile = "host.vkey"
	HandoverFile = "vm-log.handovers"
)

// What a key signs, as its file and its certificate in the host log say it.
const (
	UseHostLog = "host-log"
	UseVMLog   = "vm-log"
)

// Keys are the two signing keys of a host. It is safe for concurrent use.
type Keys struct {
	dir  string
	host ed25519.PrivateKey

	mu   sync.RWMutex // guards the rest, which is replaced
	vm   ed25519.PrivateKey
	next ed25519.PrivateKey // prepared; nil: none
}

// Create makes the directory dir with new keys. It refuses a directory that
// already holds one of them: creating keys is deliberate, and the old ones may
// be all that makes earlier evidence verifiable.
func Create(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create key directory: %w", err)
	}
	for _, name := range []string{HostFile, VMFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("create keys: %s exists already; keys are never replaced in place: %w", filepath.Join(dir, name), record.ErrReject)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("create keys: %w", err)
		}
	}
	k := &Keys{dir: dir}
	for _, f := range []struct {
		name, use string
		key       *ed25519.PrivateKey
	}{{HostFile, UseHostLog, &k.host}, {VMFile, UseVMLog, &k.vm}} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("create keys: %w", err)
		}
		// A crash here leaves one key of two, which Open reports as such and
		// Create refuses: nothing was signed yet, so both can be removed.
		if err := writeKey(filepath.Join(dir, f.name), f.use, key); err != nil {
			return nil, err
		}
		*f.key = key
	}
	// The directory's own name must last as well.
	for _, d := range []string{dir, filepath.Dir(filepath.Clean(dir))} {
		if err := syncDir(d); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Open loads the keys in dir. It refuses key files which group or others may
// read, and says how to mend that.
func Open(dir string) (*Keys, error) {
	k := &Keys{dir: dir}
	var err error
	if k.host, err = readKey(filepath.Join(dir, HostFile), UseHostLog); err != nil {
		return nil, err
	}
	if k.vm, err = readKey(filepath.Join(dir, VMFile), UseVMLog); err != nil {
		return nil, err
	}
	if k.host.Equal(k.vm) {
		return nil, fmt.Errorf("open keys in %s: host log and VM logs have the same key, they must differ: %w", dir, record.ErrReject)
	}
	if err := k.loadRest(); err != nil {
		return nil, err
	}
	return k, nil
}

// HostPublic returns the public key of the host log.
func (k *Keys) HostPublic() ed25519.PublicKey { return k.host.Public().(ed25519.PublicKey) }

// VMPublic returns the public key that signs all VM logs now.
func (k *Keys) VMPublic() ed25519.PublicKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.vm.Public().(ed25519.PublicKey)
}

// HostSigner returns the signer of the host log with the given origin.
func (k *Keys) HostSigner(origin string) (note.Signer, error) {
	return newSigner(origin, k.HostPublic(), func(msg []byte) ([]byte, error) { return ed25519.Sign(k.host, msg), nil })
}

// VMSigner returns the signer of the VM log with the given origin, by the key
// of now: it refuses to sign when that is replaced.
func (k *Keys) VMSigner(origin string) (note.Signer, error) {
	pub := k.VMPublic()
	return newSigner(origin, pub, func(msg []byte) ([]byte, error) {
		k.mu.RLock()
		defer k.mu.RUnlock()
		if !pub.Equal(k.vm.Public()) {
			return nil, fmt.Errorf("sign with VM-log key %x: it was replaced and destroyed: %w", pub, record.ErrReject)
		}
		return ed25519.Sign(k.vm, msg), nil
	})
}

// commandContext separates commands to guest agents from whatever else the
// key signs; a signed note cannot begin like this. Part of the protocol, see
// package wire.
const commandContext = "provost/command/v1\x00"

// CommandPublic returns the key that SignCommand signs with.
func (k *Keys) CommandPublic() ed25519.PublicKey { return k.HostPublic() }

// SignCommand signs a command to a guest agent with the key of the host log,
// so that who trusts the host can check which commands it gave. It is not the
// key of the VM logs, which is replaced: an agent believes one key for as long
// as it runs.
func (k *Keys) SignCommand(command []byte) [ed25519.SignatureSize]byte {
	return [ed25519.SignatureSize]byte(ed25519.Sign(k.host, append([]byte(commandContext), command...)))
}

// Secret derives a secret of this host for a use that signs nothing. It lasts as
// long as the key of the host log and tells nothing of it.
func (k *Keys) Secret(use string) (secret [32]byte) {
	b, err := hkdf.Key(sha256.New, k.host.Seed(), nil, "provost/secret/v1\x00"+use, len(secret))
	if err != nil {
		panic("keys: " + err.Error()) // the length is one that can be derived
	}
	return [32]byte(b)
}

// PublishVerifier writes host.vkey, the file to hand to auditors, for the host
// log with the given origin. It returns its path.
func (k *Keys) PublishVerifier(origin string) (string, error) {
	vkey, err := VerifierKey(origin, k.HostPublic())
	if err != nil {
		return "", err
	}
	path := filepath.Join(k.dir, VerifierFile)
	return path, publish(path, []byte(vkey+"\n"))
}
