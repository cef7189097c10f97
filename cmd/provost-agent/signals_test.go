package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal is answered once, those that follow it at once are not a flood of
// answers, and the end of the agent ends the watch.
func TestObey(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	signals := make(chan os.Signal, 1)
	got := make(chan string)
	done := make(chan struct{})
	go func() {
		defer close(done)
		obey(ctx, signals, time.Millisecond, func(_ context.Context, s string) { got <- s })
	}()
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGHUP} {
		signals <- s
		if name := <-got; name != unix.SignalName(s) {
			t.Errorf("%v is told as %s", s, name)
		}
	}
	cancel()
	<-done
	// During the pause nothing is answered.
	ctx, cancel = context.WithCancel(t.Context())
	answered := 0
	done = make(chan struct{})
	go func() {
		defer close(done)
		obey(ctx, signals, time.Hour, func(context.Context, string) { answered++; signals <- unix.SIGTERM; cancel() })
	}()
	signals <- unix.SIGTERM
	<-done
	if answered != 1 {
		t.Errorf("%d answers", answered)
	}
}

// A process becomes systemd-shutdown, and that is a shutdown. What only looks
// like it is none: its program renamed, replaced, or another one executed.
func TestWatchInit(t *testing.T) {
	dir := t.TempDir()
	install := func(from, name string) string {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to+".new", b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to+".new", to); err != nil { // another file, as an upgrade makes it
			t.Fatal(err)
		}
		return to
	}
	shell := install("/bin/sh", "systemd")
	// It executes what it is told to, line by line, and then waits.
	first := exec.Command(shell, "-c", `read x; exec "$x" -c 'read x; exec "$x" -c "read x"'`)
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = first.Wait() // it ends with its input, one way or the other
	}()
	exe := fmt.Sprintf("/proc/%d/exe", first.Process.Pid)
	await := func(path string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for to := ""; to != path; to, _ = os.Readlink(exe) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("the process runs %s, want %s", to, path)
			}
		}
	}
	await(shell)
	if err := os.Link(shell, filepath.Join(dir, "kept")); err != nil { // so that its number is not another file's soon
		t.Fatal(err)
	}
	down := watchInit(exe)
	if down() {
		t.Error("going down from the start")
	}
	if err := os.Rename(shell, filepath.Join(dir, "systemd-shutdown")); err != nil {
		t.Fatal(err)
	}
	if down() {
		t.Error("renaming the program of init passes for a shutdown")
	}
	if err := os.Remove(filepath.Join(dir, "systemd-shutdown")); err != nil {
		t.Fatal(err)
	}
	if down() {
		t.Error("an upgrade of init passes for a shutdown")
	}
	other := install("/bin/sh", "other")
	fmt.Fprintln(in, other)
	await(other)
	if down() {
		t.Error("any other program in the place of init passes for a shutdown")
	}
	last := install("/bin/sh", "systemd-shutdown")
	fmt.Fprintln(in, last)
	await(last)
	if !down() {
		t.Error("systemd-shutdown in the place of init passes for nothing")
	}
	if watchInit("/proc/self/no/such/link")() {
		t.Error("without a first process there is a shutdown")
	}
}
