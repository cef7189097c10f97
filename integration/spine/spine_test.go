package spine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
)

// newLab starts a host with a domain whose agent is enrolled. Without
// arguments the agent obeys signals, as most tests end it by one.
func newLab(t *testing.T, ctx context.Context, agentArgs ...string) *lab.Lab {
	t.Helper()
	if len(agentArgs) == 0 {
		agentArgs = []string{"-protect", "off"}
	}
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Config{
		Dir: fmt.Sprintf("/run/pv-%d-%s", os.Getpid(), shortName(t)), Policies: root + "/examples/policies/baseline", Channel: true,
		Out: t.Logf, AgentArgs: agentArgs, Extra: "guest {\n  silent_after = \"8s\"\n}\n",
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
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// shortName keeps socket paths short.
func shortName(t *testing.T) string {
	n := strings.TrimPrefix(t.Name(), "Test")
	return n[:min(len(n), 12)]
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func wait(t *testing.T, ctx context.Context, l *lab.Lab, what string, match func(*lab.Entry) bool) *lab.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	e, err := l.Wait(ctx, what, match)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func guestRun(t *testing.T, ctx context.Context, l *lab.Lab, script string) string {
	t.Helper()
	out, err := l.Guest.Output(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func count(t *testing.T, ctx context.Context, l *lab.Lab, match func(*lab.Entry) bool) int {
	t.Helper()
	all, err := l.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range all {
		if match(e) {
			n++
		}
	}
	return n
}

// numbered matches the programs that the streams below start.
func numbered(e *lab.Entry) (string, bool) {
	m, ok := e.Msg.(*record.Event)
	if !ok || e.Leaf.Header.Class != record.ClassProcessExec {
		return "", false
	}
	args := m.Process.GetArgs()
	if len(args) != 3 || string(args[1]) != "echo" || !strings.HasPrefix(string(args[2]), "tick-") {
		return "", false
	}
	return string(args[2]), true
}

// stream starts n numbered programs in the guest, some per second.
func stream(n int) string {
	return fmt.Sprintf(`i=0; while [ $i -lt %d ]; do /bin/busybox echo tick-$i >/dev/null; i=$((i+1)); done`, n)
}

// noHoles holds that every numbered program was sealed exactly once and that
// nothing is missing unexplained.
func noHoles(t *testing.T, ctx context.Context, l *lab.Lab, n int) {
	t.Helper()
	wait(t, ctx, l, "the last tick", func(e *lab.Entry) bool { s, ok := numbered(e); return ok && s == fmt.Sprintf("tick-%d", n-1) })
	all, err := l.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range all {
		if s, ok := numbered(e); ok {
			seen[s]++
		}
		switch e.Leaf.Header.Class {
		case record.ClassAgentSequenceGap, record.ClassAgentRefused, record.ClassAgentSignatureInvalid, record.ClassAgentRollback:
			t.Errorf("leaf %d: %s: %s", e.Leaf.Index, e.Leaf.Header.Class, record.Text(e.Leaf.Header.Class, e.Msg))
		}
	}
	for i := range n {
		if c := seen[fmt.Sprintf("tick-%d", i)]; c != 1 {
			t.Errorf("tick-%d is sealed %d times, want once", i, c)
		}
	}
}

// TestScenario is the main job: guest events with their facts, a verdict and
// its outcome in the chain, a domain that libvirt says is paused, and evidence
// that verifies.
func TestScenario(t *testing.T) {
	ctx := testContext(t)
	l := newLab(t, ctx)
	guestRun(t, ctx, l, lab.Activity)
	exec := wait(t, ctx, l, "exec", lab.Exec("/bin/busybox", "uname", "-a"))
	p := exec.Msg.(*record.Event).Process
	if string(p.Executable) != "/bin/busybox" || p.Pid == 0 || p.Start == 0 || exec.Leaf.Origin != record.OriginGuest {
		t.Errorf("exec is sealed as %s, origin %s", record.Text(exec.Leaf.Header.Class, exec.Msg), exec.Leaf.Origin)
	}
	if parent := exec.Msg.(*record.Event).Parent; parent == nil || parent.Pid != p.Ppid || len(parent.Executable) == 0 {
		t.Errorf("exec is sealed with parent %v", parent)
	}
	wait(t, ctx, l, "create", lab.File(record.ClassFileCreate, "/etc/passwd.new"))
	wait(t, ctx, l, "first write", lab.File(record.ClassFileModify, "/etc/passwd.new"))
	wait(t, ctx, l, "rename", lab.Rename("/etc/passwd"))
	wait(t, ctx, l, "connect", lab.Connect(7777))
	verdict := wait(t, ctx, l, "verdict on /etc", lab.Verdict("etc_changed"))
	if verdict.Leaf.Origin != record.OriginPolicy {
		t.Errorf("the verdict has origin %s", verdict.Leaf.Origin)
	}
	wait(t, ctx, l, "outcome of the alert", lab.Outcome("etc_changed", "alert"))

	guestRun(t, ctx, l, lab.Malware)
	paused := wait(t, ctx, l, "outcome of the pause", lab.Outcome("known_malicious_process", "pause"))
	if o := paused.Msg.(*record.Outcome); o.Result != "done" || !strings.HasPrefix(o.StateAfter, "paused") {
		t.Errorf("outcome %v", o)
	}
	if s, err := l.Guest.State(ctx); err != nil || s != "paused" {
		t.Errorf("virsh domstate says %q (%v)", s, err)
	}
	wait(t, ctx, l, "libvirt's own word on the pause", lab.Of(record.ClassVMPause))

	bundle := t.TempDir() + "/b.zip"
	if _, err := l.Provost(ctx, "export", "--socket", l.Socket(), "-o", bundle, l.Domain); err != nil {
		t.Fatal(err)
	}
	out, err := l.Provost(ctx, "verify", "--key", l.Dir+"/state/keys/host.vkey", bundle)
	if err != nil || !strings.HasPrefix(out, "VALID") {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestDaemonKilledInTheMiddle kills provostd twice while the guest streams:
// what was acknowledged is there, what was not is sent again, nothing twice,
// and the pause at the end happens once.
func TestDaemonKilledInTheMiddle(t *testing.T) {
	ctx := testContext(t)
	l := newLab(t, ctx)
	const ticks = 300
	done := make(chan error, 1)
	go func() { _, err := l.Guest.Output(ctx, stream(ticks)); done <- err }()
	for _, at := range []string{"tick-40", "tick-120"} {
		wait(t, ctx, l, at, func(e *lab.Entry) bool { s, ok := numbered(e); return ok && s == at })
		if err := l.KillDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := l.StartDaemon(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	noHoles(t, ctx, l, ticks)

	guestRun(t, ctx, l, lab.Malware)
	wait(t, ctx, l, "the verdict", lab.Verdict("known_malicious_process"))
	if err := l.KillDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	wait(t, ctx, l, "the outcome", lab.Outcome("known_malicious_process", "alert"))
	if err := l.Guest.WaitState(ctx, "paused"); err != nil {
		t.Error(err)
	}
	if n := count(t, ctx, l, lab.Verdict("known_malicious_process")); n != 1 {
		t.Errorf("%d verdicts, want 1", n)
	}
	if n := count(t, ctx, l, lab.Outcome("known_malicious_process", "pause")); n != 1 {
		t.Errorf("%d outcomes of the pause, want 1", n)
	}
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Fsck(ctx); err != nil {
		t.Error(err)
	} else {
		t.Log(out)
	}
}

// TestRestarts restarts the agent, libvirtd and the guest in turn.
func TestRestarts(t *testing.T) {
	ctx := testContext(t)
	l := newLab(t, ctx)

	guestRun(t, ctx, l, "agentctl kill; agentctl start")
	second := wait(t, ctx, l, "the second enrolment", nth(2, lab.Of(record.ClassAgentEnrolled)))
	if e := second.Msg.(*record.Enrolled); e.Resumed || len(e.RetiredKey) == 0 {
		t.Errorf("the restarted agent is sealed as %v", record.Text(record.ClassAgentEnrolled, e))
	}
	wait(t, ctx, l, "its hooks", nth(2, lab.Of(record.ClassAgentHooks)))
	guestRun(t, ctx, l, stream(20))
	noHoles(t, ctx, l, 20)

	if err := l.Host.StopLibvirtd(true); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitLibvirt(ctx, false); err != nil {
		t.Fatal(err)
	}
	guestRun(t, ctx, l, "/bin/busybox true while libvirtd is away")
	wait(t, ctx, l, "an event without libvirtd", lab.Exec("/bin/busybox", "true", "while", "libvirtd"))
	if err := l.Host.StartLibvirtd(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitLibvirt(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := l.Guest.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	wait(t, ctx, l, "a lifecycle event after libvirtd is back", lab.Of(record.ClassVMPause))
	if err := l.Guest.Resume(ctx); err != nil {
		t.Fatal(err)
	}

	if err := l.Guest.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	epoch := wait(t, ctx, l, "the epoch of the reboot", nth(2, lab.Of(record.ClassVMEpoch)))
	if e := epoch.Msg.(*record.Epoch); e.Cause != "reset" || len(e.Parent) == 0 {
		t.Errorf("epoch %v", e)
	}
	third := wait(t, ctx, l, "the enrolment after the reboot", func(e *lab.Entry) bool {
		m, ok := e.Msg.(*record.Enrolled)
		return ok && e.Leaf.Index > epoch.Leaf.Index && string(m.Epoch) == string(epoch.Msg.(*record.Epoch).Epoch)
	})
	guestRun(t, ctx, l, "/bin/busybox true after the reboot")
	wait(t, ctx, l, "an event of the new boot", func(e *lab.Entry) bool {
		return e.Leaf.Index > third.Leaf.Index && lab.Exec("/bin/busybox", "true", "after")(e)
	})
	for _, e := range entries(t, ctx, l) {
		switch e.Leaf.Header.Class {
		case record.ClassAgentRefused, record.ClassAgentSignatureInvalid, record.ClassAgentRollback, record.ClassAgentSequenceGap:
			t.Errorf("leaf %d: %s", e.Leaf.Index, record.Text(e.Leaf.Header.Class, e.Msg))
		}
	}
}

func entries(t *testing.T, ctx context.Context, l *lab.Lab) []*lab.Entry {
	t.Helper()
	all, err := l.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// nth matches the nth entry that match accepts.
func nth(n int, match func(*lab.Entry) bool) func(*lab.Entry) bool {
	return func(e *lab.Entry) bool {
		if match(e) {
			n--
		}
		return n == 0
	}
}
