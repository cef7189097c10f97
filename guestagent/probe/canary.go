package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
)

// canary does one of each act in a directory of its own and returns which
// hooks saw it. The programs count what this process does and send nothing.
func canary(s *stats, allocate uint64) (seen [types]bool, err error) {
	before, err := s.own()
	if err != nil {
		return seen, err
	}
	if err := errors.Join(act(), actInMemory(allocate)); err != nil {
		return seen, fmt.Errorf("act as a canary: %w", err)
	}
	after, err := s.own()
	if err != nil {
		return seen, err
	}
	for t := range seen {
		seen[t] = after[t] > before[t]
	}
	return seen, nil
}

// act works in the first directory that can be written.
func act() error {
	var errs []error
	for _, base := range []string{"/run", os.TempDir(), "/dev/shm", "/var/tmp"} {
		dir, err := os.MkdirTemp(base, ".provost-")
		if err == nil {
			err = errors.Join(actIn(dir), os.RemoveAll(dir))
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func actIn(dir string) error {
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	f, err := os.OpenFile(a, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("canary\n")
	return errors.Join(err, f.Truncate(0), f.Chmod(0o640), f.Chown(os.Getuid(), os.Getgid()), f.Close(),
		os.Rename(a, b), os.Link(b, c), os.Remove(b), os.Remove(c))
}

// actInMemory maps, protects and makes what has no name in any file system.
func actInMemory(allocate uint64) error {
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	err = errors.Join(unix.Mprotect(m, unix.PROT_READ), unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
	if err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	fd, err := unix.MemfdCreate("provost", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make memfd: %w", err)
	}
	// To the credentials that it has: that is no change, and is seen.
	err = errors.Join(unix.Close(fd), sameCredentials())
	if allocate > 0 {
		// Nothing of it is ever touched.
		m, merr := unix.Mmap(-1, 0, int(allocate), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if merr == nil {
			merr = unix.Munmap(m)
		}
		err = errors.Join(err, merr)
	}
	return err
}

// sameCredentials gives the calling thread the capabilities that it has.
func sameCredentials() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// missing names the required events that no hook saw.
func missing(seen [types]bool) []bpf.ProbeEventType {
	var m []bpf.ProbeEventType
	for _, t := range required {
		if !seen[t] {
			m = append(m, t)
		}
	}
	return m
}
