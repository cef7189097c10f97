package probe

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKill holds that the process that is meant is killed, and no other that
// has its number.
func TestKill(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	pid := uint32(cmd.Process.Pid)
	b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, _, ticks, ok := parseStat(b)
	if !ok {
		t.Fatalf("%q", b)
	}
	start := ticks*userTick + 1234567 // as BPF says it, finer than /proc
	for _, wrong := range []uint64{start - userTick, start + userTick, 1} {
		if err := Kill(pid, wrong); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("another process of the number: %v", err)
		}
	}
	if err := unix.Kill(int(pid), 0); err != nil {
		t.Fatalf("it is gone: %v", err)
	}
	if err := Kill(pid, start); err != nil {
		t.Fatal(err)
	}
	if err := Kill(pid, start); !errors.Is(err, os.ErrProcessDone) { // a zombie by now
		t.Errorf("once more: %v", err)
	}
	go func() { done <- cmd.Wait() }()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
	if err := Kill(pid, start); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("of a process that was waited for: %v", err)
	}
	for _, never := range []uint32{0, 1, uint32(os.Getpid())} {
		if err := Kill(never, start); err == nil || errors.Is(err, os.ErrProcessDone) || !strings.Contains(err.Error(), "not killed") {
			t.Errorf("process %d: %v", never, err)
		}
	}
}
