package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/integration/harness"
)

// unitFile is what is shipped.
const unitFile = "../../deploy/provost-agent.service"

// The agent does its work with the few rights that its unit leaves it: here in
// mode tracepoint.
func TestUnit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the agent takes root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	dir := t.TempDir()
	// The user whose program is run has to get there.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	launcher := build(t, dir, "underunit")
	agent := build(t, dir, "provost-agent")
	port, err := net.Listen("unix", filepath.Join(dir, "port"))
	if err != nil {
		t.Fatal(err)
	}
	books := agenttest.NewBooks()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer port.Close()
	wg.Go(func() {
		for {
			c, err := port.Accept()
			if err != nil {
				return // closed: the test is over
			}
			h := agenttest.Host{Books: books, Beat: wire.HeartbeatEvery}
			if err := h.Serve(ctx, c); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("host: %v", err)
			}
			_ = c.Close()
		}
	})
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(launcher, unitFile, agent, "-mode", "tracepoint", "-port", filepath.Join(dir, "port"), "-queue-bytes", "268435456", "-allocate-bytes", "0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Kill() // it has ended when all is well
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("agent:\n%s", b)
		}
	}()
	workUnderUnit(t, ctx, books, dir, []string{"process.exec", "file.create", "network.connect", "network.accept", "network.bind", "network.listen",
		"network.send", "network.flow", "file.mount", "file.unmount", "file.xattr", "process.namespace", "process.setuid", "memory.map"},
		func(script string) error {
			out, err := exec.CommandContext(ctx, "/bin/sh", "-c", script).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the agent ended with %v, want none", err)
		}
	case <-ctx.Done():
		t.Fatal("the agent has not ended")
	}
}

// In a guest, in mode lsm, with protection on.
func TestUnitInGuest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir := t.TempDir()
	launcher := build(t, dir, "underunit")
	agent := build(t, dir, "provost-agent")
	for _, kernel := range kernels(t) {
		t.Run(kernel, func(t *testing.T) {
			vm := boot(t, ctx, harness.ImageConfig{KernelVersion: kernel, Agent: launcher,
				AgentArgs: []string{"/etc/unit", "/bin/agent", "-mode", "lsm", "-log-level", "debug"},
				Files:     map[string]string{"/etc/unit": unitFile, "/bin/agent": agent}})
			h := &host{books: agenttest.NewBooks(), path: vm.AgentSocket()}
			h.connect(ctx)
			t.Cleanup(func() { h.stop() })
			workUnderUnit(t, ctx, h.books, "/tmp", []string{"process.exec", "file.create", "network.connect", "network.accept", "network.send", "network.flow",
				"file.mount", "file.unmount", "file.xattr", "process.namespace", "process.setuid", "memory.map", "kernel.bpf", "kernel.param_change"},
				func(script string) error {
					_, err := vm.Output(ctx, script)
					return err
				})
		})
	}
}

// workUnderUnit acts as several users and expects what is told of it, and that
// the classes named are proven.
func workUnderUnit(t *testing.T, ctx context.Context, books *agenttest.Books, dir string, proven []string, sh func(string) error) {
	t.Helper()
	find := func(what string, match func(event) bool) event {
		t.Helper()
		var found event
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := books.Until(ctx, func(v agenttest.View) bool {
			all := events(t, v)
			i := slices.IndexFunc(all, match)
			if i >= 0 {
				found = all[i]
			}
			return i >= 0
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return found
	}
	if err := books.Until(ctx, func(v agenttest.View) bool { return v.Frame > 0 }); err != nil {
		t.Fatal(err)
	}
	first := books.View().Records[0]
	m, err := record.Decode(first.Header.Class, first.Payload)
	if err != nil {
		t.Fatal(err)
	}
	hooks, ok := m.(*record.Hooks)
	if !ok {
		t.Fatalf("the first record is %s", first.Header.Class)
	}
	for _, class := range proven {
		if !slices.ContainsFunc(hooks.Hooks, func(h *record.Hook) bool { return record.Class(h.Class).String() == class && h.Proven }) {
			t.Errorf("%s is not proven", class)
		}
	}
	// A program that only its owner may read.
	script := fmt.Sprintf("cp /bin/true %[1]s/theirs && chown 1000:1000 %[1]s/theirs && chmod 700 %[1]s/theirs && sleep 2 && %[1]s/theirs of another; "+
		"touch %[1]s/made", dir)
	if err := sh(script); err != nil {
		t.Fatal(err)
	}
	program := dir + "/theirs"
	find("exec", func(e event) bool {
		return e.h.Class == record.ClassProcessExec && string(e.e.Process.Executable) == program
	})
	find("file", func(e event) bool {
		return e.h.Class == record.ClassFileCreate && strings.HasSuffix(string(e.e.File.GetPath()), "/made")
	})
	d := find("digest", func(e event) bool {
		return e.h.Class == record.ClassProcessDigest && string(e.e.Process.Executable) == program
	})
	if len(d.e.Process.Sha256) != 32 {
		t.Errorf("no digest of another user's file: %v", d.e)
	}
}
