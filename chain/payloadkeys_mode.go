package chain

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// checkKeyModes refuses a directory of payload keys that others may enter, or
// that somebody else owns, and files in it that are none. Files that others might
// read are mended: nobody could come to them.
func checkKeyModes(c Config) (err error) {
	d, err := c.FS.OpenDir(c.PayloadKeys)
	if err != nil {
		return fmt.Errorf("open payload keys: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	fd := d.Fd()
	if fd == vfs.InvalidFd {
		return nil // not on a disk
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		return fmt.Errorf("open payload keys %s: %w", c.PayloadKeys, err)
	}
	if st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the directory of payload keys %s has mode %#o and owner %d: others may have read them; see who, then: chown %d %s && chmod 700 %s: %w",
			c.PayloadKeys, st.Mode&0o777, st.Uid, os.Geteuid(), c.PayloadKeys, c.PayloadKeys, record.ErrReject)
	}
	files, err := os.ReadDir(c.PayloadKeys)
	if err != nil {
		return fmt.Errorf("open payload keys: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(c.PayloadKeys, f.Name())
		if !f.Type().IsRegular() {
			return fmt.Errorf("%s is no file: nothing else belongs in the directory of payload keys: %w", path, record.ErrReject)
		}
		info, err := f.Info()
		if err != nil {
			return fmt.Errorf("open payload keys: %w", err)
		}
		if info.Mode().Perm() == 0o600 {
			continue
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("open payload keys: %w", err)
		}
		c.Log.Warn("a file of payload keys had another mode than 0600 and has it now", slog.String("file", path), slog.String("mode", info.Mode().String()))
	}
	return nil
}
