package access

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/provostd/provost/chain/record"
)

// stamp tells one state of a file from another.
type stamp struct {
	device, inode  uint64
	size           int64
	changed        syscall.Timespec
	missing, fresh bool
}

// settle is how old a change has to be before a stamp can tell the next one:
// two within one tick of the clock look alike.
const settle = time.Second

// stampOf looks at a file. A fresh stamp equals no other: what was changed just
// now may have changed again.
func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{missing: true}
	}
	s := stamp{size: st.Size()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.changed = sys.Dev, sys.Ino, sys.Ctim
	}
	// The file system's clock is the machine's, not an injected one.
	s.fresh = time.Since(time.Unix(s.changed.Unix())) < settle
	return s
}

// same reports whether a file is as it was.
func (s stamp) same(now stamp) bool { return !s.fresh && s == now }

// readPrivate reads a small file whose content is to be kept from people. Its
// mode must have none of the bits of denied.
func readPrivate(path string, limit int64, denied os.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", path, record.ErrReject)
	}
	if st.Mode().Perm()&denied != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others can read or write it; chmod 0600 it, and replace what it holds if somebody may have: %w", path, st.Mode().Perm(), record.ErrReject)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to uid %d; chown it to root: %w", path, sys.Uid, record.ErrReject)
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d: %w", path, st.Size(), limit, record.ErrReject)
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}
