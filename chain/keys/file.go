package keys

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/provostd/provost/chain/record"
)

const (
	fileMagic = "provost-key/v1"
	algorithm = "ed25519"

	// maxFile bounds what is read of a key file, in bytes.
	maxFile = 1 << 10
)

// writeKey writes a new private key file and makes it durable. It never
// replaces one: a lost signing key is lost evidence.
func writeKey(path, use string, key ed25519.PrivateKey) error {
	text := fmt.Sprintf("%s %s %s\n%s\n", fileMagic, algorithm, use, base64.StdEncoding.EncodeToString(key.Seed()))
	return writeNew(path, []byte(text), 0o600)
}

// writeNew creates path with exactly the given mode and syncs it.
func writeNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The umask may have taken bits away, never added any.
	if err := f.Chmod(mode); err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync key file %s: %w", path, err)
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync key directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync key directory %s: %w", dir, err)
	}
	return nil
}

// readKey loads the private key file at path. It refuses a file that others
// may read, whoever owns the directory.
func readKey(path, use string) (ed25519.PrivateKey, error) {
	// No symbolic links: the mode that is checked must be that of the key.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	if err := checkMode(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	key, err := parseKey(text, use)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return key, nil
}

// checkMode refuses what is not a private regular file.
func checkMode(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("open key file %s: it is %s, want a regular file: %w", path, info.Mode().Type(), record.ErrReject)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("open key file %s: mode %#o lets others read a signing key; if nobody has, run `chmod 600 %s`, else make a new store: %w",
			path, perm, path, record.ErrReject)
	}
	return nil
}

// parseKey decodes the text of a key file for the given use.
func parseKey(text []byte, use string) (ed25519.PrivateKey, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("more than %d bytes: %w", maxFile, record.ErrReject)
	}
	head, rest, ok := strings.Cut(string(text), "\n")
	if want := fileMagic + " " + algorithm + " " + use; !ok || head != want {
		// The line is not repeated: it could be a key in another format.
		return nil, fmt.Errorf("first line is not %q: %w", want, record.ErrReject)
	}
	body, ok := strings.CutSuffix(rest, "\n")
	seed, err := base64.StdEncoding.Strict().DecodeString(body)
	if !ok || err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("second line is not the base64 of %d bytes: %w", ed25519.SeedSize, record.ErrReject)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// publish writes a public file beside the keys, replacing an older one whole.
func publish(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := writeNew(temporary, data, 0o644); err != nil {
		return err
	}
	// A crash before this leaves the older file, one after it the new one.
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}
