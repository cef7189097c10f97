package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openSegment makes a file without a name, with its space reserved.
func openSegment(dir string, size int64) (file, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer unix.Close(d)
	if err := private(d, dir); err != nil {
		return nil, err
	}
	fd, err := nameless(d)
	if err != nil {
		return nil, fmt.Errorf("make segment in %s: %w", dir, err)
	}
	// Reserved, so that a full disk is known before a run is half written, and
	// others' writes do not take the space. Where the file system cannot, a
	// write may fail later, which Put reports.
	if err := unix.Fallocate(fd, 0, 0, size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		unix.Close(fd)
		return nil, fmt.Errorf("reserve %d bytes in %s: %w", size, dir, err)
	}
	return os.NewFile(uintptr(fd), dir+"/segment"), nil
}

// private refuses a directory in which others could exchange files before they
// are unlinked.
func private(fd int, dir string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at directory %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("directory %s belongs to uid %d with mode %#o: it must be this user's and not writable for others; chown and chmod 0700 it",
			dir, st.Uid, st.Mode&0o7777)
	}
	return nil
}

// nameless opens a new file that no name leads to: a crash leaves nothing.
func nameless(dir int) (int, error) {
	fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	// A file system without O_TMPFILE. A crash between the two calls leaves an
	// empty file.
	name := ".provost-" + rand.Text()
	if fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err != nil {
		return -1, err
	}
	if err := unix.Unlinkat(dir, name, 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
