package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCpioReadByCpio has GNU cpio read what cpioWriter writes.
func TestCpioReadByCpio(t *testing.T) {
	var buf bytes.Buffer
	c := newCpioWriter(&buf)
	c.file("a/b/c.txt", 0o640, []byte("hello"))
	c.file("a/b/empty", 0o600, nil)
	c.symlink("a/link", "b/c.txt")
	c.char("dev/null", 0o666, 1, 3)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "-itv", "--numeric-uid-gid", "--quiet")
	cmd.Stdin = &buf
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+strings.Join(f[len(f)-1:], " "))
	}
	want := []string{"drwxr-xr-x a", "drwxr-xr-x a/b", "-rw-r----- a/b/c.txt", "-rw------- a/b/empty",
		"lrwxrwxrwx b/c.txt", "drwxr-xr-x dev", "crw-rw-rw- dev/null"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("cpio lists\n%s\nwant\n%s\nin full:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), out)
	}
}

func TestImageKeyFollowsContent(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "f")
	build := func(content string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := BuildImage(ctx, ImageConfig{Files: map[string]string{"/etc/f": file}})
		if err != nil {
			t.Fatal(err)
		}
		return img.Key
	}
	a, b, again := build("one"), build("two"), build("one")
	if a == b || a != again {
		t.Errorf("keys %s, %s, %s: want the first and last equal and the middle another", a, b, again)
	}
}

func TestImageRefusals(t *testing.T) {
	ctx := context.Background()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := BuildImage(ctx, ImageConfig{Agent: bash}); !errors.Is(err, errDynamic) {
		t.Errorf("a dynamically linked agent: error %v", err)
	}
	if _, err := BuildImage(ctx, ImageConfig{Agent: busyboxPath, AgentArgs: []string{"a b"}}); err == nil {
		t.Error("an argument with a blank was taken")
	}
	if _, err := BuildImage(ctx, ImageConfig{KernelVersion: "../../etc"}); err == nil {
		t.Error("a kernel version that is a path was taken")
	}
}

// TestAgentSupervision runs a stand-in program under the agent's supervisor: what matters here is
// that a test can stop, kill and start whatever the agent is.
func TestAgentSupervision(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// busybox by another name is no applet, so the name of one is its first argument.
	img, err := BuildImage(ctx, ImageConfig{Agent: busyboxPath, AgentArgs: []string{"x"}, KernelVersion: "6.1"})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := StartVM(VMConfig{Image: img, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if _, err := vm.WaitBoot(ctx, ""); err != nil {
		t.Fatal(err)
	}
	out, err := vm.Output(ctx, `agentctl stop; agentctl status; echo $?
		n=$(grep -c ended /var/log/provost-agent.log); /bin/sleep 1; test "$n" = "$(grep -c ended /var/log/provost-agent.log)" && echo held
		mount --bind /bin/busybox /usr/bin/provost-agent; echo "sleep 1000" >/lib/provost-test/agent-args
		printf '#!/bin/sh\nexec sleep 1000\n' >/tmp/agent; chmod +x /tmp/agent; mount --bind /tmp/agent /usr/bin/provost-agent
		agentctl start; until agentctl status; do /bin/sleep 0.1; done >/tmp/first
		agentctl kill; agentctl status; agentctl start; until agentctl status; do /bin/sleep 0.1; done >/tmp/second
		tail -n1 /tmp/first; tail -n1 /tmp/second`)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 6 || lines[0] != "stopped" || lines[1] != "3" || lines[2] != "held" || lines[3] != "stopped" ||
		!strings.HasPrefix(lines[4], "running ") || !strings.HasPrefix(lines[5], "running ") || lines[4] == lines[5] {
		t.Fatalf("agentctl said\n%s", out)
	}
}

// TestControlSideBySide runs scripts at the same time and ends one by its deadline.
func TestControlSideBySide(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	img, err := BuildImage(ctx, ImageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := StartVM(VMConfig{Image: img, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if _, err := vm.WaitBoot(ctx, ""); err != nil {
		t.Fatal(err)
	}
	short, cancelShort := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := vm.Run(short, "/bin/sleep 777 & wait")
		ended <- err
	}()
	if _, err := vm.Output(ctx, "until pidof sleep; do /bin/usleep 50000; done"); err != nil {
		t.Fatal(err)
	}
	cancelShort()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the cancelled script ended with %v", err)
	}
	// The kill reaches the whole session of the script.
	if _, err := vm.Output(ctx, "while pidof sleep; do /bin/usleep 50000; done"); err != nil {
		t.Fatal(err)
	}
	res, err := vm.Run(ctx, `head -c 5000000 /dev/zero | tr '\0' x`)
	if err != nil || len(res.Stdout) != 4<<20 || !res.Truncated {
		t.Fatalf("long output: %d bytes, truncated %v, %v", len(res.Stdout), res.Truncated, err)
	}
	// The connection breaks and comes back.
	if err := vm.Control.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := vm.Output(ctx, "echo again"); err != nil || out != "again\n" {
		t.Fatalf("after a reconnect: %q, %v", out, err)
	}
}

func TestBestAccel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	img, err := BuildImage(ctx, ImageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	cache := Cache{Dir: t.TempDir()}
	a, err := BestAccel(ctx, cache, img)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guests run with %s", a)
	vm, err := StartVM(VMConfig{Image: img, Dir: t.TempDir(), Accel: a})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := vm.WaitConsole(ctx, "PROVOST-GUEST-UP"); err != nil {
		t.Fatalf("the accelerator called best does not boot the guest: %v", err)
	}
	if b, err := BestAccel(ctx, cache, Image{}); err != nil || a != b {
		t.Fatalf("the remembered answer is %q, %v", b, err)
	}
}
