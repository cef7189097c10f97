package probe

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	// In a user namespace of its own: a file system that is mounted there.
	actors["run-mounted"] = func(dir string) error {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("x", dir, "tmpfs", 0, "mode=755")); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return runCopy(filepath.Join(dir, "mounted"))
	}
}

// runCopy makes a program that nobody has read yet, and runs it.
func runCopy(path string) error {
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, path...), 0o755); err != nil {
		return err
	}
	return copied(path).Run()
}

// copied is a copy of true, which in a guest is one of many programs in a file
// and goes by how it is called.
func copied(path string) *exec.Cmd {
	return &exec.Cmd{Path: path, Args: []string{"true"}}
}

// digesting is a probe that reads files.
func digesting(t *testing.T) *collector {
	t.Helper()
	p, err := Open(Config{Mode: Mode(*mode), DigestBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, p.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// digestOf waits for the digest of a program.
func digestOf(c *collector, t *testing.T, path string, reason string) *record.Process {
	t.Helper()
	return c.find(t, "digest of "+path+" "+reason, func(s seen) bool {
		return s.h.Class == record.ClassProcessDigest && string(s.e.Process.Executable) == path && s.e.Reason == reason
	}).e.Process
}

// A file system that was mounted in a user namespace is not read: whoever did
// that may answer what they like, or nothing.
func TestOriginUserNamespace(t *testing.T) {
	c := digesting(t)
	dir := workDir(t)
	cmd := exec.Command("/proc/self/exe", "act", "run-mounted", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if p := digestOf(c, t, filepath.Join(dir, "mounted"), reasonRemote); p.Sha256 != nil {
		t.Errorf("digest %x of what a user has mounted", p.Sha256)
	}
}

// What overlayfs shows of a lower layer is as certain as that; what lies above
// may be written without a trace.
func TestOriginOverlay(t *testing.T) {
	if b, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(b), "\toverlay\n") && exec.Command("modprobe", "overlay").Run() != nil {
		t.Skipf("this kernel has no overlayfs: %v", err)
	}
	c := digesting(t)
	dir := workDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"layers", "m"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Overlayfs takes no layer that is one of its own, as the root of a
	// container may be.
	if err := unix.Mount("x", at("layers"), "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at("layers"), unix.MNT_DETACH)
	for _, d := range []string{"low", "up", "work"} {
		if err := os.Mkdir(at("layers/"+d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := runCopy(at("layers/low/lower")); err != nil {
		t.Fatal(err)
	}
	options := "lowerdir=" + at("layers/low") + ",upperdir=" + at("layers/up") + ",workdir=" + at("layers/work")
	if err := unix.Mount("x", at("m"), "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at("m"), unix.MNT_DETACH)
	sum := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(b))
	}
	// The first execution is too close to the making of the file to be certain,
	// but on a slow machine, where a file that can be certain may be so by then.
	// What a second one says of itself is what is known by then.
	twice := func(path string, certain bool) []byte {
		t.Helper()
		if err := copied(path).Run(); err != nil {
			t.Fatal(err)
		}
		first := c.find(t, "digest of "+path, func(s seen) bool {
			return s.h.Class == record.ClassProcessDigest && string(s.e.Process.Executable) == path
		}).e
		if fmt.Sprintf("%x", first.Process.Sha256) != sum(path) || first.Reason != reasonUnsettled && !(certain && first.Reason == "") {
			t.Errorf("digest %x of %s, reason %q", first.Process.Sha256, path, first.Reason)
		}
		again := copied(path)
		if err := again.Run(); err != nil {
			t.Fatal(err)
		}
		return c.find(t, "second execution of "+path, func(s seen) bool {
			return s.h.Class == record.ClassProcessExec && int(s.e.Process.Pid) == again.Process.Pid
		}).e.Process.Sha256
	}
	r := release()
	tells := !strings.HasPrefix(r, "5.") && !strings.HasPrefix(r, "6.1.") // which layer it is
	if got := twice(at("m/lower"), tells); (got != nil) != tells || got != nil && fmt.Sprintf("%x", got) != sum(at("m/lower")) {
		t.Errorf("digest %x of the lower layer's file is known, on %s", got, r)
	}
	if err := runCopy(at("m/upper")); err != nil {
		t.Fatal(err)
	}
	if got := twice(at("m/upper"), false); got != nil {
		t.Errorf("digest %x of the upper layer's file is certain", got)
	}

	// Other files of the same size and times are others here too.
	fd, err := unix.Open(at("m/upper"), unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	key := keyOf(&st)
	key.device++
	if err := same(fd, key); err != nil {
		t.Errorf("the same file: %v", err)
	}
	key.inode++
	if err := same(fd, key); !errors.Is(err, errOther) {
		t.Errorf("another file: %v", err)
	}
}
