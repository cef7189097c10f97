package probe

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
)

// part is one kind of canary's act and what it proves. Parts fail one by one:
// that one cannot act says nothing of the others.
type part struct {
	proves []bpf.ProbeEventType
	act    func(allocate uint64) error
}

var parts = []part{
	{[]bpf.ProbeEventType{bpf.ProbeEventTypeEV_CREATE, bpf.ProbeEventTypeEV_WRITE, bpf.ProbeEventTypeEV_CLOSE, bpf.ProbeEventTypeEV_RENAME,
		bpf.ProbeEventTypeEV_UNLINK, bpf.ProbeEventTypeEV_TRUNCATE, bpf.ProbeEventTypeEV_CHMOD, bpf.ProbeEventTypeEV_CHOWN, bpf.ProbeEventTypeEV_LINK},
		func(uint64) error { return act() }},
	{[]bpf.ProbeEventType{bpf.ProbeEventTypeEV_MAP, bpf.ProbeEventTypeEV_PROTECT}, func(uint64) error { return actInMemory() }},
	{[]bpf.ProbeEventType{bpf.ProbeEventTypeEV_MEMFD}, func(uint64) error { return actOnMemoryFile() }},
	// To the credentials that it has: that is no change, and is seen.
	{[]bpf.ProbeEventType{bpf.ProbeEventTypeEV_CREDS}, func(uint64) error { return sameCredentials() }},
	{[]bpf.ProbeEventType{bpf.ProbeEventTypeEV_ALLOCATE}, grow},
}

// canary does one of each act and returns which hooks saw it, and why those
// whose act could not be done did not have the chance. The programs count what
// this process does and send nothing.
func canary(s *stats, allocate uint64) (seen [types]bool, failed map[bpf.ProbeEventType]error, err error) {
	before, err := s.own()
	if err != nil {
		return seen, nil, err
	}
	failed = map[bpf.ProbeEventType]error{}
	for _, p := range parts {
		if err := p.act(allocate); err != nil {
			for _, t := range p.proves {
				failed[t] = fmt.Errorf("act as a canary: %w", err)
			}
		}
	}
	after, err := s.own()
	if err != nil {
		return seen, nil, err
	}
	for t := range seen {
		seen[t] = after[t] > before[t]
	}
	return seen, failed, nil
}

// at calls f with the directory of a place of its own.
func at(f func(dir int) error) error {
	dir, err := instance("tmpfs")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), unix.Close(dir))
}

// act makes a file and does to it what can be done to files.
func act() error {
	return at(func(dir int) error {
		fd, err := unix.Openat(dir, "a", unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("make file: %w", err)
		}
		_, err = unix.Write(fd, []byte("canary\n"))
		return errors.Join(err, unix.Ftruncate(fd, 0), unix.Fchmod(fd, 0o640), unix.Fchown(fd, os.Getuid(), os.Getgid()), unix.Close(fd),
			unix.Renameat(dir, "a", dir, "b"), unix.Linkat(dir, "b", dir, "c", 0), unix.Unlinkat(dir, "b", 0), unix.Unlinkat(dir, "c", 0))
	})
}

// actInMemory maps and protects.
func actInMemory() error {
	m, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	err = errors.Join(unix.Mprotect(m, unix.PROT_READ), unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
	if err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	return nil
}

// actOnMemoryFile makes what has no name in any file system.
func actOnMemoryFile() error {
	fd, err := unix.MemfdCreate("provost", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make memfd: %w", err)
	}
	return unix.Close(fd)
}

// grow maps as much as is told. Nothing of it is ever touched.
func grow(allocate uint64) error {
	if allocate == 0 {
		return nil
	}
	m, err := unix.Mmap(-1, 0, int(allocate), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", allocate, err)
	}
	return unix.Munmap(m)
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

// judge says what a canary's acts say of the required hooks: nil is that all
// were called. A hook that is not proven is enough only for who asked for it.
func judge(asked Mode, seen [types]bool, failed map[bpf.ProbeEventType]error) error {
	var never []bpf.ProbeEventType
	var unproven error
	for _, t := range required {
		switch {
		case seen[t]:
		case failed[t] == nil:
			never = append(never, t)
		case unproven == nil:
			unproven = failed[t]
		}
	}
	switch {
	case len(never) > 0:
		return fmt.Errorf("LSM programs are attached and %d of %d required ones are never called: the kernel was booted without bpf in lsm=", len(never), len(required))
	case unproven != nil && asked != ModeLSM:
		return fmt.Errorf("LSM programs are attached and not proven to be called: %w", unproven)
	}
	return nil
}
