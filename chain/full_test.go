package chain_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain"
)

var fullDir = flag.String("full-dir", "", "be the child that has a small disk here, in a mount namespace of its own")

// TestFullDisk writes to a small disk of its own until it is full: the writer
// ends and says why; with room again everything that it acknowledged is there.
// Then the disk is read-only: the store says so, and opens when it is not.
func TestFullDisk(t *testing.T) {
	if *fullDir != "" {
		fullDisk(t, *fullDir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-full-dir="+t.TempDir(), "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Fatal("mounting a small disk needs root: run the tests as root")
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFullDisk") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func fullDisk(t *testing.T, dir string) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=12m,mode=700"); err != nil {
		t.Fatal(err)
	}
	room := filepath.Join(dir, "room")
	if err := os.WriteFile(room, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	newWriterStore(t, dir)
	p, err := write(t, dir, -1)
	if err == nil || len(p.acked) == 0 || !strings.Contains(p.said, "no space left on device") {
		t.Fatalf("a writer on a full disk: %v\n%s", err, last(p.said))
	}
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	p.kept(t, dir, "after a full disk")

	if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	cfg, err := writerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Open(cfg)
	if err == nil {
		t.Errorf("a store on a read-only disk opens: %v", s.Close())
	} else if !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("a store on a read-only disk: %v", err)
	}
	if q, err := write(t, dir, -1); err == nil || len(q.acked) > 0 || !strings.Contains(q.said, "read-only file system") {
		t.Errorf("a writer on a read-only disk: %v\n%s", err, last(q.said))
	}
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT, "size=12m"); err != nil {
		t.Fatal(err)
	}
	p.kept(t, dir, "after a read-only disk")
}

// last returns the end of a long text.
func last(s string) string { return s[max(0, len(s)-4000):] }
