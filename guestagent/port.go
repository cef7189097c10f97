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

// OpenPort opens a virtio-serial port, given its name (org.provost.0): it must
// be that port then. Or, with a slash in it, the path of any device, or of a
// unix socket that stands in for one: whoever sets that vouches for it. A port that does not exist is an error that may pass: it can be plugged
// in at any time.
func OpenPort(nameOrPath string) (Port, error) {
	path, err := findPort(nameOrPath)
	if err != nil {
		return nil, err
	}
	named := !strings.Contains(nameOrPath, "/")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); !named && err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
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
	if named {
		if err := isVirtioPort(fd, nameOrPath, "/sys"); err != nil {
			return nil, errors.Join(fmt.Errorf("open port %s: %w", path, err), unix.Close(fd))
		}
	}
	f := os.NewFile(uintptr(fd), path)
	return virtioPort{f}, nil
}

// isVirtioPort holds that an open file is the virtio-serial port of a name, as
// the kernel says and not a directory entry: whoever may write to /dev could
// put a terminal of their own in the port's place and play the host. What is
// asked has to be sysfs itself, which nobody but the kernel fills.
func isVirtioPort(fd int, name, sys string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at port: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return errors.New("it is no device; somebody has put something else in the port's place")
	}
	dir := fmt.Sprintf("%s/dev/char/%d:%d", sys, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("ask for the device's kind: %w", err)
	}
	if fs.Type != unix.SYSFS_MAGIC {
		return fmt.Errorf("%s is not in sysfs: what kind of device the port is cannot be told", dir)
	}
	device, err := os.Readlink(dir)
	if err != nil {
		return fmt.Errorf("ask for the device's kind: %w", err)
	}
	if filepath.Base(filepath.Dir(device)) != "virtio-ports" {
		return fmt.Errorf("it is no virtio-serial port but %s; somebody has put another device in the port's place", device)
	}
	b, err := os.ReadFile(dir + "/name")
	if err != nil {
		return fmt.Errorf("ask for the port's name: %w", err)
	}
	if got := strings.TrimSpace(string(b)); got != name {
		return fmt.Errorf("it is the port %q; somebody has put it in the place of %q", got, name)
	}
	return nil
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
