package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/provostd/provost/bpf"
)

// canary does one of each act in a directory of its own and returns which
// hooks saw it. The programs count what this process does and send nothing.
func canary(s *stats) (seen [types]bool, err error) {
	before, err := s.own()
	if err != nil {
		return seen, err
	}
	if err := act(); err != nil {
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
