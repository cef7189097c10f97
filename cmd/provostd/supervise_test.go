package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSystemd runs a whole daemon as systemd does, with libvirt not there: it is ready
// all the same, shows at each ping that everything moves, and tells of its stop.
func TestSystemd(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "provostd.hcl")
	if err := os.WriteFile(config, fmt.Appendf(nil, `host_id = "h"
state_dir = %q
anchor = %q
libvirt {
  uri = "qemu+unix:///system?socket=%s"
}
api {
  socket = %q
  listen = "127.0.0.1:0"
}
`, dir+"/state", dir+"/anchor/a", dir+"/nobody", dir+"/s"), 0o600); err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	if code := run(t.Context(), []string{"--config", config, "init"}, &told, &told); code != 0 {
		t.Fatal(told.String())
	}
	path := filepath.Join(dir, "n")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var log bytes.Buffer // read when the daemon has ended
	go func() { ended <- run(ctx, []string{"--config", config, "run"}, &log, &log) }()
	next := func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := systemd.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := systemd.Read(b)
		if err != nil {
			stop()
			t.Fatalf("systemd hears nothing: %v, exit code %d\n%s", err, <-ended, log.String())
		}
		return string(b[:n])
	}
	if got := next(); !strings.HasPrefix(got, "READY=1") {
		t.Errorf("first is %q", got)
	}
	for range 5 {
		if got := next(); !strings.HasPrefix(got, "WATCHDOG=1\nSTATUS=libvirt is not heard; 0 domains run") {
			t.Errorf("a ping is %q", got)
		}
	}
	stop()
	got := next()
	for ; strings.HasPrefix(got, "WATCHDOG=1"); got = next() {
	}
	if !strings.HasPrefix(got, "STOPPING=1") {
		t.Errorf("the stop is %q", got)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d\n%s", code, log.String())
	}
}
