package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// outage is a host for the real agent on this machine, that can go away.
type outage struct {
	t      *testing.T
	socket string
	host   agenttest.Host
	answer chan wire.Result
}

// here listens and serves the agent until the returned function is called:
// then nobody listens any more.
func (o *outage) here(ctx context.Context) (away func()) {
	o.t.Helper()
	l, err := net.Listen("unix", o.socket)
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = o.host.Serve(ctx, c)
		}
		done <- err
	}()
	return func() {
		cancel()
		l.Close() // removes the socket
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "EOF") {
			o.t.Errorf("host: %v", err)
		}
	}
}

func (o *outage) until(ctx context.Context, what string, f func(agenttest.View) bool) agenttest.View {
	o.t.Helper()
	if err := o.host.Books.Until(ctx, f); err != nil {
		o.t.Fatalf("%s: %v", what, err)
	}
	return o.host.Books.View()
}

// spoolFiles are the files without a name that a process has in dir.
func spoolFiles(pid int, dir string) (n int) {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// execs counts programs of one path among the records, and what was declared
// lost, by reason.
func execs(t *testing.T, v agenttest.View, path string) (n int, lost map[record.LossReason]uint64) {
	t.Helper()
	lost = map[record.LossReason]uint64{}
	for _, r := range v.Records {
		if r.Header.Class != record.ClassProcessExec && r.Header.Class != record.ClassAgentDropped {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *record.Event:
			if string(m.Process.GetExecutable()) == path {
				n++
			}
		case *record.Lost:
			for _, c := range m.Counts {
				lost[c.Reason] += c.Count
			}
		}
	}
	return n, lost
}

// TestOutage has the real agent, with real events of this machine, live through
// an outage of its host that makes far more than its memory holds: what the
// workload did comes back whole from the spool, and when the agent is told to
// stop every lane balances to the last event.
func TestOutage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the agent loads BPF programs: run this as root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	programs := 3000
	if *long {
		programs = 20_000
	}
	dir := t.TempDir()
	bin := build(t, dir, "provost-agent")
	marker := filepath.Join(dir, "marker")
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(marker, b, 0o755); err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	commands := make(chan func(*wire.Hello) []byte)
	o := &outage{t: t, socket: filepath.Join(dir, "port"), answer: make(chan wire.Result, 1)}
	o.host = agenttest.Host{Books: agenttest.NewBooks(), Beat: wire.HeartbeatEvery, CommandKey: [32]byte(pub), Commands: commands,
		Clock: func() uint64 { return uint64(time.Now().UnixNano()) }, Answered: func(r wire.Result) { o.answer <- r }}
	away := o.here(ctx)
	spool := filepath.Join(dir, "spool")
	agent := exec.CommandContext(ctx, bin, "-mode", "tracepoint", "-port", o.socket, "-budget", "0",
		"-queue-bytes", "1048576", "-spool-bytes", "536870912", "-spool-directory", spool)
	var log strings.Builder
	agent.Stderr = &log
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	o.until(ctx, "the first frame", func(v agenttest.View) bool { return v.Frame > 0 })
	away()

	run := fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s; i=$((i+1)); done", programs, marker)
	if out, err := exec.CommandContext(ctx, "sh", "-c", run).CombinedOutput(); err != nil {
		t.Fatalf("workload: %v: %s", err, out)
	}
	if spoolFiles(agent.Process.Pid, spool) == 0 {
		t.Error("nothing is on the disk: the outage was too short")
	}
	if names, err := os.ReadDir(spool); err != nil || len(names) != 0 {
		t.Errorf("names in the spool: %v, %v", names, err)
	}
	away = o.here(ctx)
	defer func() { away() }()
	o.until(ctx, "the workload", func(v agenttest.View) bool {
		n, lost := execs(t, v, marker)
		return n == programs || len(lost) > 0
	})

	select {
	case commands <- func(h *wire.Hello) []byte {
		r := wire.Request{Kind: wire.KindStop, Requester: "test", Reason: "the end"}
		c := wire.Command{ID: [16]byte{1}, Epoch: h.Epoch, Nonce: h.Nonce, Expiry: uint64(time.Now().Add(time.Minute).UnixNano()), Body: r.AppendBinary(nil)}
		c.Signature = [64]byte(ed25519.Sign(key, append([]byte("provost/command/v1\x00"), c.AppendUnsigned(nil)...)))
		return c.AppendBinary(nil)
	}:
	case err := <-ended:
		t.Fatalf("agent ended: %v\n%s", err, log.String())
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	if r := <-o.answer; r.Status != wire.ResultDone {
		t.Fatalf("stop: status %d, %s", r.Status, r.Body)
	}
	if err := <-ended; err != nil {
		t.Fatalf("agent ended: %v\n%s", err, log.String())
	}
	v := o.until(ctx, "the last record", func(v agenttest.View) bool {
		return v.Records[len(v.Records)-1].Header.Class == record.ClassAgentStopped
	})
	n, lost := execs(t, v, marker)
	for _, r := range []record.LossReason{record.LossReason_LOSS_REASON_SPOOL_DAMAGED, record.LossReason_LOSS_REASON_SPOOL_FULL, record.LossReason_LOSS_REASON_UNEXPLAINED} {
		if lost[r] != 0 {
			t.Errorf("%d events are lost: %s", lost[r], r)
		}
	}
	if len(lost) == 0 && n != programs {
		t.Errorf("%d of %d programs are sealed and nothing is declared lost", n, programs)
	}
	for lane, x := range v.Lanes {
		if x.Counted != x.Arrived+x.Dropped {
			t.Errorf("lane %x: %d counted, %d arrived and %d declared lost", lane, x.Counted, x.Arrived, x.Dropped)
		}
	}
	t.Logf("%d records, %d frames; declared lost: %v", len(v.Records), v.Frame, lost)
}
