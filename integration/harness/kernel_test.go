package harness

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSecurityModules boots kernels with and without bpf among their security modules: of the
// default lists, that of 5.10 lacks it and that of 6.12 has it. 5.10 comes from an older release.
func TestSecurityModules(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	for _, c := range []struct {
		version string
		without bool
	}{{"5.10", false}, {"5.10", true}, {"6.12", true}} {
		img, err := BuildImage(ctx, ImageConfig{KernelVersion: c.version, NoBPFLSM: c.without,
			Modules: []string{"overlay"}, SpareModules: []string{"vsock_loopback"}})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(img.Release, c.version+".") {
			t.Errorf("kernel %s is release %s", c.version, img.Release)
		}
		vm, err := StartVM(VMConfig{Image: img, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vm.WaitBoot(ctx, ""); err != nil {
			t.Fatal(err)
		}
		out, err := vm.Output(ctx, `uname -r; echo "$(cat /sys/kernel/security/lsm)"; ls /lib/modules/vsock_loopback.ko; while read -r n x; do case $n in overlay|vsock*) echo $n; esac; done </proc/modules`)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 4 || lines[0] != img.Release || strings.Contains(","+lines[1]+",", ",bpf,") == c.without || lines[3] != "overlay" {
			t.Errorf("kernel %s, without bpf %v: the guest says\n%s\nwant release %s, its security modules, a module's file and the one module loaded", c.version, c.without, out, img.Release)
		}
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPrivateAptLeavesTheMachineAlone holds that sources of another release are written to a
// directory of ours only.
func TestPrivateAptLeavesTheMachineAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	stamp := func() (out string) {
		for _, pattern := range []string{"/etc/apt/*", "/etc/apt/*/*", "/var/lib/apt/lists/*bullseye*"} {
			names, _ := filepath.Glob(pattern)
			for _, n := range names {
				if st, err := os.Lstat(n); err == nil && !st.IsDir() {
					out += n + " " + st.ModTime().String() + "\n"
				}
			}
		}
		return out
	}
	before := stamp()
	a, err := privateApt(ctx, t.TempDir(), "bullseye")
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := resolveKernelPackage(ctx, a, "5.10")
	if err != nil || !strings.HasPrefix(pkg, "linux-image-5.10.") {
		t.Errorf("kernel 5.10 is in package %q, %v", pkg, err)
	}
	if after := stamp(); before != after {
		t.Errorf("apt's files of this machine changed from\n%s\nto\n%s", before, after)
	}
}
