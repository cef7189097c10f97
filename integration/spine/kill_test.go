package spine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/lab"
)

const killPolicy = `bundle {
  name     = "kill"
  version  = "1"
  language = 1
}

policy "miner" {
  severity  = "critical"
  mode      = "enforce"
  on        = ["process.exec"]
  condition = process.executable == "/tmp/miner/sleep"

  action "kill_process" {}
}
`

// killLab is a host that kills what is executed as /tmp/miner/sleep.
func killLab(t *testing.T, agentArgs ...string) *lab.Lab {
	t.Helper()
	policies := t.TempDir()
	if err := os.WriteFile(filepath.Join(policies, "kill.policy.hcl"), []byte(killPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	l, err := lab.New(ctx, lab.Config{Dir: fmt.Sprintf("/run/pv-%d-%s", os.Getpid(), shortName(t)), Policies: policies, Channel: true, Out: t.Logf, AgentArgs: agentArgs})
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

// TestKillProcess has a policy kill a process in a guest that allows it: that one,
// and not another of the same program; what is gone already is told as that; and
// who asked, and the agent's answer, are sealed.
func TestKillProcess(t *testing.T) {
	l := killLab(t, "-protect", "off", "-allow-kill", "on")
	ctx := testContext(t)
	guestRun(t, ctx, l, "mkdir /tmp/decoy /tmp/miner; cp /bin/busybox /tmp/decoy/sleep; (exec /tmp/decoy/sleep 1000) >/dev/null 2>&1 </dev/null & mkdir -p /tmp/miner; cp /bin/busybox /tmp/miner/sleep; (exec /tmp/miner/sleep 1000) >/dev/null 2>&1 </dev/null & sleep 1")
	o := wait(t, ctx, l, "outcome", lab.Outcome("miner", "kill_process")).Msg.(*record.Outcome)
	if o.Result != "done" || !strings.HasPrefix(o.StateAfter, "ended") {
		t.Errorf("outcome %v", o)
	}
	out := guestRun(t, ctx, l, `for p in /proc/[0-9]*; do readlink $p/exe; done 2>/dev/null | sort | uniq -c`)
	if strings.Contains(out, "/tmp/miner/sleep") || !strings.Contains(out, "/tmp/decoy") {
		t.Errorf("in the guest run:\n%s", out)
	}
	c := wait(t, ctx, l, "command", lab.Of(record.ClassAgentCommand))
	if m := c.Msg.(*record.AgentCommand); m.Kind != "kill_process" || m.Requester != "policy miner" || c.Leaf.Origin != record.OriginPolicy {
		t.Errorf("command %v of origin %s", m, c.Leaf.Origin)
	}
	if m := wait(t, ctx, l, "answer", lab.Of(record.ClassAgentResult)).Msg.(*record.AgentResult); m.Status != 0 || len(m.Signature) != 64 {
		t.Errorf("answer %v", m)
	}
	// One that has ended by the time: its number is nobody's, or somebody else's. It ends
	// while nobody listens, or else it might be killed before.
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	guestRun(t, ctx, l, "/tmp/miner/sleep 0")
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	o = wait(t, ctx, l, "second outcome", nth(2, lab.Outcome("miner", "kill_process"))).Msg.(*record.Outcome)
	if o.Result != "already" {
		t.Errorf("outcome of one that has ended: %v", o)
	}
}

// TestKillRefused: a guest that has not allowed it refuses, and that is the outcome.
func TestKillRefused(t *testing.T) {
	l := killLab(t, "-protect", "off")
	ctx := testContext(t)
	guestRun(t, ctx, l, "mkdir -p /tmp/miner; cp /bin/busybox /tmp/miner/sleep; (exec /tmp/miner/sleep 1000) >/dev/null 2>&1 </dev/null & sleep 1")
	o := wait(t, ctx, l, "outcome", lab.Outcome("miner", "kill_process")).Msg.(*record.Outcome)
	if o.Result != "failed" || !strings.Contains(o.Error, "refused") || !strings.Contains(o.Error, "allow-kill") {
		t.Errorf("outcome %v", o)
	}
	if out := guestRun(t, ctx, l, `for p in /proc/[0-9]*; do readlink $p/exe; done 2>/dev/null; true`); !strings.Contains(out, "/tmp/miner/sleep") {
		t.Errorf("in the guest run:\n%s", out)
	}
}
