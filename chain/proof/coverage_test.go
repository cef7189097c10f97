package proof

import (
	"fmt"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

const second = int64(1e9)

// tells is one entry of a made-up log.
type tells struct {
	at     int64 // seconds
	class  record.Class
	origin record.Origin
	vm     string // of a heartbeat: state, agent
}

func tick(at int64, vm string) tells {
	return tells{at, record.ClassTick, record.OriginHost, vm}
}

func host(at int64, c record.Class) tells { return tells{at, c, record.OriginHost, ""} }

func guest(at int64, c record.Class) tells { return tells{at, c, record.OriginGuest, ""} }

func cover(since, until int64, log []tells) string {
	c := NewCoverage(since*second, until*second)
	if n := len(log); n > 0 && log[n-1].at > until && log[n-1].at < 560 {
		log = append(log[:n:n], guest(560, record.ClassFileModify)) // long enough behind it
	}
	for i, e := range log {
		leaf := record.Leaf{Index: uint64(i), Mono: e.at * second, Origin: e.origin}
		leaf.Header.Class = e.class
		var m record.Message
		if state, agent, ok := strings.Cut(e.vm, ", "); ok {
			m = &record.Event{Vm: &record.VM{State: state, Detail: agent}}
		}
		if e.vm == "silent" {
			m = &record.AgentState{Silent: 10 * second}
		}
		c.Add(&leaf, m)
	}
	gaps, more := c.Gaps()
	var b strings.Builder
	for _, g := range gaps {
		why := strings.Fields(g.Why)
		fmt.Fprintf(&b, "%d-%d %s;", g.From/second, g.To/second, strings.Join(why[:min(3, len(why))], " "))
	}
	if more > 0 {
		fmt.Fprintf(&b, "+%d", more)
	}
	return b.String()
}

// TestCoverage says of each history what is not covered from 100 to 400.
func TestCoverage(t *testing.T) {
	heard := []tells{tick(60, "running, connected"), tick(120, "running, connected"), tick(180, "running, connected"), tick(240, "running, connected"),
		tick(300, "running, connected"), tick(360, "running, connected"), tick(420, "running, connected"), tick(490, "running, connected"), tick(550, "running, connected")}
	with := func(more ...tells) []tells {
		all := append(append([]tells{}, heard...), more...)
		for i := range all { // stable, by time
			for j := i; j > 0 && all[j].at < all[j-1].at; j-- {
				all[j], all[j-1] = all[j-1], all[j]
			}
		}
		return all
	}
	without := func(from, to int64) (out []tells) {
		for _, e := range heard {
			if e.at < from || e.at > to {
				out = append(out, e)
			}
		}
		return out
	}
	for name, c := range map[string]struct {
		log  []tells
		want string
	}{
		"nothing else":        {heard, ""},
		"events":              {with(guest(150, record.ClassFileModify), host(151, record.ClassAgentFrame)), ""},
		"no log":              {nil, "100-400 there is no;"},
		"one heartbeat lacks": {without(240, 240), ""},
		"two heartbeats lack": {without(240, 300), "180-360 no entry and;"},
		"begins later":        {heard[1:], "100-120 no entry stands;"},
		"ends earlier":        {heard[:6], "210-400 what is sealed;"},
		"state unknown":       {append([]tells{guest(60, record.ClassFileModify)}, heard[1:]...), "100-120 the guest ran,;"},
		"a frame says it":     {append([]tells{host(60, record.ClassAgentFrame)}, heard[1:]...), ""},
		"silent":              {with(tells{200, record.ClassAgentHeartbeatLost, record.OriginHost, "silent"}, host(230, record.ClassAgentHeartbeatBack)), "190-230 the guest ran,;"},
		"silent, withheld":    {with(host(300, record.ClassAgentHeartbeatLost), host(330, record.ClassAgentHeartbeatBack)), "150-330 the guest ran,;"},
		// Whoever hands out a bundle chooses what it opens: a heartbeat that told of
		// an agent which was not there is worth no more when it is withheld.
		"heartbeats withheld":             {append(append([]tells{}, heard[:2]...), host(180, record.ClassTick), host(240, record.ClassTick), heard[4], heard[5], heard[6], heard[7], heard[8]), "180-300 the guest ran,;"},
		"one withheld, a frame behind it": {with(host(200, record.ClassTick), host(201, record.ClassAgentFrame)), "200-201 the guest ran,;"},
		"silent by heartbeats":            {append(without(240, 240), tick(430, "running, connected"))[:7], ""},
		"no agent": {[]tells{tick(60, "running, none"), tick(120, "running, none"), tick(240, "running, none"), tick(360, "running, none"), tick(430, "running, none")},
			"100-400 the guest ran,;"},
		"off":          {[]tells{tick(60, "shutoff, none"), tick(200, "shutoff, none"), tick(330, "shutoff, none"), tick(430, "shutoff, none")}, ""},
		"paused":       {with(host(200, record.ClassVMPause), host(210, record.ClassAgentHeartbeatLost), host(230, record.ClassAgentHeartbeatBack), host(231, record.ClassVMResume)), ""},
		"started":      {append([]tells{tick(60, "shutoff, none"), tick(120, "shutoff, none"), host(150, record.ClassVMStart), host(170, record.ClassAgentEnrolled)}, heard[2:]...), "150-170 the guest ran,;"},
		"stopped":      {append(heard[:3:3], host(200, record.ClassVMStop), tick(300, "shutoff, none"), tick(420, "shutoff, none")), ""},
		"lost records": {with(guest(200, record.ClassAgentDropped)), "180-200 the agent lost;"},
		// All entries of one commit have one time: what is lost is told of the time before it.
		"lost records behind others": {with(guest(200, record.ClassFileModify), guest(200, record.ClassAgentDropped), host(200, record.ClassAgentFrame)), "180-200 the agent lost;"},
		"a gap between two frames": {with(guest(200, record.ClassFileModify), host(200, record.ClassAgentFrame), host(200, record.ClassAgentSequenceGap), guest(200, record.ClassFileModify), host(200, record.ClassAgentFrame)),
			"180-200 records of the;"},
		"blind": {with(host(200, record.ClassVMGap)), "180-200 libvirt was not;"},
		// A guest cannot claim what is the host's to say.
		"forged": {append([]tells{tick(60, "running, none")}, guest(120, record.ClassTick), guest(130, record.ClassAgentHeartbeatBack), guest(140, record.ClassVMStop), guest(270, record.ClassTick), guest(410, record.ClassVMGap)), "100-400 the guest ran,;"},
	} {
		if got := cover(100, 400, c.log); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	c := NewCoverage(100*second, 150*second)
	for i, at := range []int64{90, 110, 160, 300} {
		leaf := record.Leaf{Index: uint64(i), Mono: at * second, Origin: record.OriginHost}
		leaf.Header.Class = record.ClassTick
		if i == 2 {
			c.AddUnreadable(17, "fenced off")
		}
		c.Add(&leaf, &record.Event{Vm: &record.VM{State: "running", Detail: AgentHeard}})
	}
	// It may have told of something lost before it, and have been sealed with the one at 110.
	if gaps, _ := c.Gaps(); len(gaps) != 2 || gaps[0].From != 100*second || gaps[0].To != 110*second || gaps[1].From != 100*second || gaps[1].To != 150*second {
		t.Errorf("an entry that cannot be read: %+v", gaps)
	}
	c = NewCoverage(100*second, 200*second)
	for i, at := range []int64{90, 150, 150, 210, 360} {
		leaf := record.Leaf{Index: uint64(i), Mono: at * second, Origin: record.OriginHost}
		leaf.Header.Class = record.ClassTick
		if i == 2 {
			c.AddUnreadable(17, "fenced off")
		}
		c.Add(&leaf, &record.Event{Vm: &record.VM{State: "running", Detail: AgentHeard}})
	}
	if gaps, _ := c.Gaps(); len(gaps) != 2 || gaps[0].Index != 17 || gaps[1].From != 100*second || gaps[1].To != 150*second {
		t.Errorf("an entry that cannot be read amid a commit: %+v", gaps)
	}
	var many []tells
	for i := range int64(3000) {
		many = append(many, guest(i, record.ClassAgentDropped))
	}
	if got := cover(0, 2999, many); !strings.HasSuffix(got, "+2000") && strings.Count(got, ";") < maxGaps {
		t.Errorf("many gaps end with %q", got[max(0, len(got)-100):])
	}
}
