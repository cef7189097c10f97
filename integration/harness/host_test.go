package harness

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// needRoot fails rather than skips: a run without root proves nothing about this package.
func needRoot(t *testing.T) context.Context {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests start libvirtd and QEMU in namespaces: run them as root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func testImage(t *testing.T, ctx context.Context) Image {
	t.Helper()
	img, err := BuildImage(ctx, ImageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// hostDir is a short directory of this test alone, for socket paths.
func hostDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "pvt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newTestHost(t *testing.T, ctx context.Context, name string, network bool) *Host {
	t.Helper()
	h, err := NewHost(ctx, HostConfig{Dir: hostDir(t), Name: name, Network: network})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestGuestLife(t *testing.T) {
	ctx := needRoot(t)
	img := testImage(t, ctx)
	h := newTestHost(t, ctx, "hosta", false)
	g, err := h.DefineGuest(ctx, GuestConfig{Name: "g1", Image: img, AgentChannel: true})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := g.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("guest ready %v after start", time.Since(begin).Round(time.Millisecond))

	res, err := g.Run(ctx, "hostname; echo oops >&2; ls /dev/virtio-ports; exit 7")
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 7 || res.Stderr != "oops\n" || res.Stdout != "guest\n"+AgentPort+"\n"+ControlPort+"\n" {
		t.Fatalf("unexpected result %+v", res)
	}
	// A guest's UUID is visible inside as the product's.
	if out, err := g.Output(ctx, "cat /sys/class/dmi/id/product_uuid"); err != nil || strings.TrimSpace(out) != g.UUID() {
		t.Fatalf("product_uuid %q, want %s (%v)", out, g.UUID(), err)
	}

	if err := errors.Join(g.Pause(ctx), g.WaitState(ctx, "paused"), g.Resume(ctx), g.WaitState(ctx, "running")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Output(ctx, "touch /tmp/mark"); err != nil {
		t.Fatal(err)
	}
	if err := g.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if res, err := g.Run(ctx, "test -e /tmp/mark"); err != nil || res.Status != 1 {
		t.Fatalf("the file outlived a reboot: %+v, %v", res, err)
	}
	if err := g.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	// libvirtd goes and comes; the guest stays.
	boot, err := g.BootID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.StopLibvirtd(true), h.StartLibvirtd(ctx)); err != nil {
		t.Fatal(err)
	}
	if now, err := g.BootID(ctx); err != nil || now != boot {
		t.Fatalf("after a restart of libvirtd: boot %q, want %q (%v)", now, boot, err)
	}
	if err := errors.Join(g.WaitState(ctx, "running"), g.Destroy(ctx), g.WaitState(ctx, "shut off"), g.Undefine(ctx)); err != nil {
		t.Fatal(err)
	}
}

func TestTwoHosts(t *testing.T) {
	ctx := needRoot(t)
	img := testImage(t, ctx)
	var wg sync.WaitGroup
	for i, name := range []string{"hostb", "hostc"} {
		h := newTestHost(t, ctx, name, i == 1)
		// The same name and UUID on both: they must not see each other.
		g, err := h.DefineGuest(ctx, GuestConfig{Name: "same", UUID: "aaaaaaaa-0000-4000-8000-000000000001", Image: img, MemoryMiB: 256})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := g.Boot(ctx); err != nil {
				t.Error(err)
			}
			out, err := h.Command(ctx, "hostname").Output()
			if err != nil || strings.TrimSpace(string(out)) != name {
				t.Errorf("host name inside is %q, want %s (%v)", out, name, err)
			}
			here, err := os.Getwd()
			if out, perr := h.Command(ctx, "pwd").Output(); err != nil || perr != nil || strings.TrimSpace(string(out)) != here {
				t.Errorf("working directory inside is %q, want %s (%v, %v)", out, here, err, perr)
			}
			if out, err := h.Command(ctx, "virsh", "-c", InsideURI, "list", "--name").Output(); err != nil || strings.TrimSpace(string(out)) != "same" {
				t.Errorf("virsh inside lists %q (%v)", out, err)
			}
		})
	}
	wg.Wait()
}

// TestClearAfterInterruption checks that what a killed run leaves behind is found and ended, and
// that nothing is touched when the state file names processes that are not the host's.
func TestClearAfterInterruption(t *testing.T) {
	ctx := needRoot(t)
	img := testImage(t, ctx)
	dir := hostDir(t)
	h, err := NewHost(ctx, HostConfig{Dir: dir, Name: "hostd"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() }) // only where the test ends before the second host has cleared the first
	g, err := h.DefineGuest(ctx, GuestConfig{Name: "left", Image: img, MemoryMiB: 256})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	// None of the host's mounts shows outside.
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts of the host show outside (%v):\n%s", err, mounts)
	}
	left := processesIn(h.state.UTS)
	if len(left) < 3 {
		t.Fatalf("found %d processes of the host, want at least holder, libvirtd and QEMU", len(left))
	}
	// As after SIGKILL of the owner: the state file names an owner who is gone.
	h.state.Owner.Start++
	if err := h.save(); err != nil {
		t.Fatal(err)
	}
	h2, err := NewHost(ctx, HostConfig{Dir: dir, Name: "hostd"})
	if err != nil {
		t.Fatal(err)
	}
	defer h2.Close()
	_, _ = h.daemon.Wait(), h.holder.Wait()
	for _, p := range left {
		if p.alive() {
			t.Errorf("process %d of the interrupted run still runs", p.Pid)
		}
	}
	if out, err := h2.Virsh(ctx, "list", "--all", "--name"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("the new host knows domains of the old one: %q (%v)", out, err)
	}
}

func TestClearLeavesStrangersAlone(t *testing.T) {
	needRoot(t)
	stranger := exec.Command("sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stranger.Process.Kill(); stranger.Wait() }()
	p, err := findProcess(stranger.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	uts, err := namespaceID(p.Pid, "uts")
	if err != nil {
		t.Fatal(err)
	}
	later := process{Pid: p.Pid, Start: p.Start - 1} // the pid was another process's before
	dir := hostDir(t)
	write := func(s hostState) {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "run/qemu"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "host.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The host's processes are gone and their pids, even the namespace's number, belong to others now.
	write(hostState{Boot: boot, Owner: later, Holder: later, Daemon: later, UTS: uts})
	if err := os.WriteFile(filepath.Join(dir, "run/qemu/x.pid"), []byte("  "+itoa(p.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ClearHost(dir); err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Fatal("a stranger's process was ended")
	}
	// Another boot: even exact pids and start times mean nothing.
	write(hostState{Boot: "other", Owner: p, Holder: p, Daemon: p, UTS: uts})
	if err := ClearHost(dir); err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Fatal("a stranger's process was ended")
	}
	// A living owner keeps its host.
	write(hostState{Boot: boot, Owner: p})
	if err := ClearHost(dir); err == nil {
		t.Fatal("a host in use was cleared")
	}
	// A directory with other things in it is not ours to remove.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ClearHost(other); err == nil {
		t.Fatal("a directory of somebody else was removed")
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }
