package hostbench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
)

const cutPolicy = `bundle {
  name     = "cut"
  version  = "1"
  language = 1
  mode     = "enforce"
}

policy "malicious" {
  title     = "A program that must not run"
  severity  = "critical"
  mode      = "enforce"
  on        = ["process.exec"]
  condition = process.executable == "/tmp/xmrig"
  action "quarantine" {
  }
}
`

// stream builds the program that sends and counts datagrams.
func stream(t *testing.T) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "stream")
	cmd := exec.Command("go", "build", "-o", path, "./integration/cmd/stream")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build stream: %v: %s", err, out)
	}
	return path
}

// listener counts what comes from the guest, inside the host's namespaces.
type listener struct {
	in  io.Writer
	out *bufio.Scanner
}

func (l *listener) ask() (count uint64, last time.Time, err error) {
	var ns int64
	if _, err = fmt.Fprintln(l.in, "?"); err != nil {
		return 0, last, err
	}
	if !l.out.Scan() {
		return 0, last, fmt.Errorf("the listener has ended: %w", l.out.Err())
	}
	_, err = fmt.Sscan(l.out.Text(), &count, &ns)
	return count, time.Unix(0, ns), err
}

// flows waits until datagrams come.
func (l *listener) flows(ctx context.Context) error {
	before, _, err := l.ask()
	for err == nil {
		var n uint64
		if n, _, err = l.ask(); err == nil && n > before+20 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for datagrams of the guest: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return err
}

// newCutLab makes a host with a guard, and a guest that sends all the time.
func newCutLab(t *testing.T, ctx context.Context) (*lab.Lab, *listener) {
	t.Helper()
	program, policies := stream(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(policies, "p.policy.hcl"), []byte(cutPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/run/pvc-%d", os.Getpid())
	l, err := lab.New(ctx, lab.Config{
		Dir: dir, Policies: policies, Channel: true, Out: t.Logf, Network: true, AgentArgs: []string{"-protect", "off"},
		Files:   map[string]string{"/usr/bin/stream": program},
		Devices: "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><model type='virtio'/></interface>",
		Extra:   fmt.Sprintf("egress {\n  hook_socket = %q\n  fail = \"open\"\n}\n", dir+"/hook.sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = l.CopyLog(t.Output()) // what it says helps; that it cannot be read does not
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if out, err := l.Host.Command(ctx, "sh", "-ec", `mount -t bpf bpf /sys/fs/bpf
ip link add br0 type bridge forward_delay 0 mcast_snooping 0
ip link set br0 up
ip addr add 10.0.0.1/24 dev br0
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done`).CombinedOutput(); err != nil {
		t.Fatalf("make the network: %v: %s", err, out)
	}
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	cmd := l.Host.Command(ctx, program, "listen", "10.0.0.1:9999")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // its context may have ended it
	})
	heard := &listener{in, bufio.NewScanner(out)}
	if !heard.out.Scan() {
		t.Fatal("the listener does not start")
	}
	if out, err := l.Guest.Output(ctx, `ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0
stream send 10.0.0.1:9999 >/dev/null 2>&1 &
cp /bin/busybox /tmp/xmrig`); err != nil {
		t.Fatalf("start the stream: %v: %s", err, out)
	}
	return l, heard
}

// cutOnce has the program start, and returns how long behind the verdict the last
// datagram came. Then the quarantine is released.
func cutOnce(ctx context.Context, l *lab.Lab, heard *listener, behind uint64) (late time.Duration, index uint64, err error) {
	if err := heard.flows(ctx); err != nil {
		return 0, 0, err
	}
	if _, err := l.Guest.Output(ctx, "/tmp/xmrig true 2>/dev/null || true"); err != nil {
		return 0, 0, fmt.Errorf("start the program: %w", err)
	}
	var verdict *lab.Entry
	outcome, err := l.Wait(ctx, "the outcome of the quarantine", func(e *lab.Entry) bool {
		switch m := e.Msg.(type) {
		case *record.Verdict:
			if e.Leaf.Index > behind && m.Policy == "malicious" && verdict == nil {
				verdict = e
			}
		case *record.Outcome:
			return verdict != nil && m.VerdictIndex == verdict.Leaf.Index && m.Kind == "quarantine"
		}
		return false
	})
	if err != nil {
		return 0, 0, err
	}
	if o := outcome.Msg.(*record.Outcome); o.Result != "done" {
		return 0, 0, fmt.Errorf("the quarantine is %s: %s", o.Result, o.Error)
	}
	count, last, err := heard.ask()
	if err != nil {
		return 0, 0, err
	}
	select { // what was on its way comes in this time
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(200 * time.Millisecond):
	}
	if n, _, err := heard.ask(); err != nil || n != count {
		return 0, 0, fmt.Errorf("%d datagrams came behind the outcome of the quarantine (%v)", n-count, err)
	}
	if _, err := l.Provost(ctx, "release", "--socket", l.Socket(), "--reason", "measured", l.Domain); err != nil {
		return 0, 0, err
	}
	return max(0, last.Sub(time.Unix(0, verdict.Leaf.Wall))), outcome.Leaf.Index, nil
}

// TestMaliciousProcessIsCutOff: a policy has a guest quarantined in which a program
// starts; nothing leaves it behind that, and all of it works again once it is released.
func TestMaliciousProcessIsCutOff(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	l, heard := newCutLab(t, ctx)
	_, _, err := cutOnce(ctx, l, heard, 0)
	if err == nil {
		err = heard.flows(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wait(ctx, "the release", func(e *lab.Entry) bool { return strings.HasPrefix(e.Leaf.Header.Class.String(), "policy.released") }); err != nil {
		t.Error(err)
	}
}

// cuts measures how long behind a verdict the network of its guest is cut.
func cuts(t *testing.T) {
	const rounds = 30
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	l, heard := newCutLab(t, ctx)
	var late []time.Duration
	behind := uint64(0)
	for i := range rounds {
		d, index, err := cutOnce(ctx, l, heard, behind)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		late, behind = append(late, d), index
	}
	for _, q := range []float64{0.5, 0.99} {
		result(fmt.Sprintf("host.cut.p%g", 100*q), ms(quantile(late, q)), "ms", map[float64]string{0.5: "-", 0.99: "target<=10"}[q])
	}
	if err := eventToSeal(ctx, l); err != nil {
		t.Fatal(err)
	}
}

// eventToSeal reports how long behind the start of a program in the guest the entry
// about it is made on the host: probe, agent, channel and session.
func eventToSeal(ctx context.Context, l *lab.Lab) error {
	const programs = 200
	clock, err := l.ReadClock(ctx)
	if err != nil {
		return err
	}
	if _, err := l.Guest.Output(ctx, fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/busybox echo tick-$i >/dev/null; i=$((i+1)); usleep 20000; done", programs)); err != nil {
		return err
	}
	var took []time.Duration
	_, err = l.Wait(ctx, "the last program", func(e *lab.Entry) bool {
		m, ok := e.Msg.(*record.Event)
		if !ok || e.Leaf.Header.Class != record.ClassProcessExec || len(m.Process.GetArgs()) != 3 || !strings.HasPrefix(string(m.Process.Args[2]), "tick-") {
			return false
		}
		took = append(took, time.Unix(0, e.Leaf.Wall).Sub(clock.Host(e.Leaf.Header.Time)))
		return string(m.Process.Args[2]) == fmt.Sprintf("tick-%d", programs-1)
	})
	if err != nil {
		return err
	}
	note("clocks of guest and host are compared to within %s; the guest runs in software", clock.Error)
	for _, q := range []float64{0.5, 0.99} {
		result(fmt.Sprintf("host.event_to_seal.p%g", 100*q), ms(quantile(took, q)), "ms", "-")
	}
	return nil
}
