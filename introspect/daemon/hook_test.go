package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestHook: a domain starts when the daemon says so, and where it cannot be asked or
// says no, as the configuration says.
func TestHook(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "hook.sock")
	quiet := slog.New(slog.DiscardHandler)
	hook := func(fail, operation, sub, xml string) error {
		cfg := &Config{Egress: &EgressConfig{HookSocket: socket, Fail: fail}}
		return Hook(t.Context(), cfg, operation, sub, strings.NewReader(xml), quiet)
	}
	if err := hook("closed", "start", "begin", "<domain/>"); err == nil || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("without a daemon: %v", err)
	}
	if err := hook("open", "start", "begin", "<domain/>"); err != nil {
		t.Errorf("without a daemon, fail open: %v", err)
	}
	var asked []string
	l, err := controlSocket(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	door := &hookDoor{log: quiet, ask: func(_ context.Context, xml string) error {
		asked = append(asked, xml)
		if strings.Contains(xml, "bad") {
			return errors.New("it has\nno tap")
		}
		return nil
	}}
	go func() { ended <- door.serve(ctx, l) }()
	if err := hook("closed", "start", "begin", "<domain/>"); err != nil {
		t.Error(err)
	}
	if err := hook("closed", "start", "begin", "<bad/>"); err == nil || !strings.Contains(err.Error(), "it has; no tap") {
		t.Errorf("a domain that cannot be guarded: %v", err)
	}
	if err := hook("open", "start", "begin", "<bad/>"); err != nil {
		t.Errorf("a domain that cannot be guarded, fail open: %v", err)
	}
	for _, op := range [][2]string{{"prepare", "begin"}, {"started", "begin"}, {"migrate", "begin"}, {"release", "end"}} {
		if err := hook("closed", op[0], op[1], "<bad/>"); err != nil {
			t.Errorf("%s %s: %v", op[0], op[1], err)
		}
	}
	if err := hook("closed", "start", "begin", strings.Repeat("x", maxHookXML+1)); err == nil {
		t.Error("XML beyond the limit is taken")
	}
	if n := len(asked); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	for _, raw := range []string{"\n", "provost-hook 2 1\nx", "provost-hook 1 -1\n", fmt.Sprintf("provost-hook 1 %d\n", maxHookXML+1), "provost-hook 1 99999999999\n", strings.Repeat("y", 100), "provost-hook 1 5\nabc"} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, raw); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "no ") {
			t.Errorf("%.30q is answered %q", raw, answer)
		}
		c.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
