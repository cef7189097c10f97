package guestagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What stands in the port's place is not taken for it. (That the port itself
// is, every test in a guest shows.)
func TestNotThePort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "org.provost.0")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ path, sys, want string }{
		{file, "/sys", "it is no device"},
		{"/dev/null", "/sys", "no virtio-serial port but"},
		{"/dev/ptmx", "/sys", "no virtio-serial port but"},
		{"/dev/null", t.TempDir(), "ask for the device's kind"},
	} {
		f, err := os.Open(x.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := isVirtioPort(int(f.Fd()), "org.provost.0", x.sys); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.path, err, x.want)
		}
		f.Close()
	}
	// A directory that only looks like sysfs.
	sys := t.TempDir()
	if err := os.MkdirAll(sys+"/dev/char", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(sys+"/devices/x/virtio-ports/vport1p1", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../devices/x/virtio-ports/vport1p1", sys+"/dev/char/1:3"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := isVirtioPort(int(f.Fd()), "org.provost.0", sys); err == nil || !strings.Contains(err.Error(), "not in sysfs") {
		t.Errorf("a directory that looks like sysfs: %v", err)
	}
}
