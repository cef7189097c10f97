package main

import (
	"context"
	"os"
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

func TestWatchInit(t *testing.T) {
	link := filepath.Join(t.TempDir(), "exe")
	set := func(target string) {
		t.Helper()
		_ = os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	set("/usr/lib/systemd/systemd")
	down := watchInit(link)
	if down() {
		t.Error("going down from the start")
	}
	set("/usr/lib/systemd/systemd (deleted)")
	if down() {
		t.Error("an upgrade of systemd passes for a shutdown")
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if down() {
		t.Error("what cannot be read passes for a shutdown")
	}
	set("/usr/lib/systemd/systemd-shutdown")
	if !down() {
		t.Error("systemd-shutdown in the place of systemd passes for nothing")
	}
	if watchInit("/no/such/link")() {
		t.Error("without a first process there is a shutdown")
	}
}
