package guestagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenPort opens a virtio-serial port, given its name (org.provost.0) or, with
// a slash in it, the path of its device or of a unix socket that stands in for
// one. A port that does not exist is an error that may pass: it can be plugged
// in at any time.
func OpenPort(nameOrPath string) (Port, error) {
	path, err := findPort(nameOrPath)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return dialPort(path)
	}
	// Not blocking, so that a write waits in Go's poller: the driver's own
	// blocking write spins on the CPU until the host has taken the buffer.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open port %s: another program has it open (see fuser %s): %w", path, path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return virtioPort{f}, nil
}

func findPort(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if p := filepath.Join("/dev/virtio-ports", name); exists(p) {
		return p, nil
	}
	// Without udev nothing makes the links.
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", fmt.Errorf("find port %s: %w", name, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(f))), nil
		}
	}
	return "", fmt.Errorf("find port %s: no virtio-serial port has that name; on the host, \"provost domain enroll\" adds it to the domain", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// dialPort connects to a unix socket. Its end of file is final, unlike that of
// a virtio port: the agent connects anew.
func dialPort(path string) (Port, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open port %s: make socket: %w", path, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open port %s: connect: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// virtioPort is a port of the virtio_console driver: end of file means that
// the host has closed its end and may open it again.
type virtioPort struct{ *os.File }

func (p virtioPort) Read(b []byte) (int, error) {
	n, err := p.File.Read(b)
	if errors.Is(err, io.EOF) {
		return n, ErrAway
	}
	return n, err
}
