package spine

import (
	"bytes"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/integration/lab"
)

// TestAgentStoppedByHost ends an agent in the documented way: what was asked
// and by whom, the signed answer, everything the agent still had, its last
// record, and that it fell silent are sealed; nothing is an alarm, and an
// auditor finds the log valid.
func TestAgentStoppedByHost(t *testing.T) {
	ctx := testContext(t)
	l := newLab(t, ctx, "-mode", "lsm", "-protect", "on")
	guestRun(t, ctx, l, "touch /run/provost-agent.stop; "+stream(50)) // held back once it has ended
	// Nobody in the guest can end it, and that they tried is told.
	guestRun(t, ctx, l, `p=$(cat /run/provost-agent.pid); for s in TERM KILL STOP; do kill -$s $p && exit 1; done; [ -d /proc/$p ]`)
	wait(t, ctx, l, "the attempts", func(e *lab.Entry) bool {
		m, ok := e.Msg.(*record.Event)
		return ok && e.Leaf.Header.Class == record.ClassAgentTamper && m.Tamper.GetKind() == "signal" && m.Tamper.GetRefused()
	})
	if out, err := l.Provost(ctx, "domain", "agent-stop", "--socket", l.Socket(), l.Domain); err == nil {
		t.Errorf("stopped without a reason: %s", out)
	}
	out, err := l.Provost(ctx, "domain", "agent-stop", "--socket", l.Socket(), "--reason", "kernel upgrade", l.Domain)
	if err != nil || !strings.Contains(out, "done") {
		t.Fatalf("%v: %s", err, out)
	}
	command := wait(t, ctx, l, "the command", lab.Of(record.ClassAgentCommand))
	m := command.Msg.(*record.AgentCommand)
	if command.Leaf.Origin != record.OriginOperator || m.Kind != "stop" || m.Reason != "kernel upgrade" || !strings.HasPrefix(m.Requester, "uid 0, pid ") {
		t.Errorf("sealed as %s: %v", command.Leaf.Origin, m)
	}
	result := wait(t, ctx, l, "the result", lab.Of(record.ClassAgentResult))
	r := result.Msg.(*record.AgentResult)
	answer, err := wire.ParseResult(r.Body)
	if err != nil || r.Status != 0 || result.Leaf.Index < command.Leaf.Index {
		t.Errorf("result %v (%v)", r, err)
	}
	enrolled := wait(t, ctx, l, "the enrolment", lab.Of(record.ClassAgentEnrolled))
	if err := answer.Verify(enrolled.Msg.(*record.Enrolled).Key, m.Body); err != nil {
		t.Errorf("the sealed answer to the sealed command: %v", err)
	}
	for _, origin := range []record.Origin{record.OriginGuest, record.OriginHost} {
		e := wait(t, ctx, l, "the stop as "+origin.String()+" saw it", func(e *lab.Entry) bool {
			return e.Leaf.Header.Class == record.ClassAgentStopped && e.Leaf.Origin == origin
		})
		if s := e.Msg.(*record.AgentStopped); !s.Authorised || !bytes.Equal(s.Command, m.Id) {
			t.Errorf("%s sealed %v", origin, s)
		}
	}
	noHoles(t, ctx, l, 50)
	// Its end is behind it; the kernel takes its time to detach the programs.
	guestRun(t, ctx, l, `grep -q "nothing more is sent" /var/log/provost-agent.log`)
	if n := count(t, ctx, l, lab.Of(record.ClassAgentHeartbeatLost)); n != 0 {
		t.Errorf("%d silences of an agent that was told to stop", n)
	}
	if out, err := l.Provost(ctx, "domain", "list", "--socket", l.Socket()); err != nil || !strings.Contains(out, "stopped") {
		t.Errorf("domain list: %v\n%s", err, out)
	}

	ended := guestRun(t, ctx, l, `. /lib/provost-test/lib.sh; while [ -e /run/provost-agent.pid ]; do nap 0.2; done; tail -3 /var/log/provost-agent.log`)
	if !strings.Contains(ended, "ended with status 0") {
		t.Errorf("the agent's end: %s", ended)
	}
	guestRun(t, ctx, l, "agentctl start")
	second := wait(t, ctx, l, "the second enrolment", nth(2, lab.Of(record.ClassAgentEnrolled)))
	if e := second.Msg.(*record.Enrolled); e.Resumed {
		t.Errorf("the next agent is sealed as %v", record.Text(record.ClassAgentEnrolled, e))
	}
	guestRun(t, ctx, l, "/bin/busybox true behind the stop")
	wait(t, ctx, l, "an event of the next agent", lab.Exec("/bin/busybox", "true", "behind"))
	bundle := t.TempDir() + "/b.zip"
	if _, err := l.Provost(ctx, "export", "--socket", l.Socket(), "-o", bundle, l.Domain); err != nil {
		t.Fatal(err)
	}
	out, err = l.Provost(ctx, "verify", "--key", l.Dir+"/state/keys/host.vkey", bundle)
	if err != nil || !strings.HasPrefix(out, "VALID") {
		t.Errorf("verify: %v\n%s", err, out)
	}
}
