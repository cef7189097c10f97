package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const blocksText = head + `
list "net" {
  type   = "cidr"
  values = ["198.51.100.0/24"]
}
policy "counted" {
  on        = ["network.connect"]
  condition = is_private(destination.ip)
  mode      = "enforce"
  on_error  = "treat_as_match"
  exception "scanner" {
    condition = process.name == "nmap"
    reason    = "CHG-1"
    expires   = "2027-03-31"
  }
  approval {
    group   = "net"
    require = 2
    grace   = "10m"
  }
  threshold {
    count    = 50
    distinct = destination.ip
    by       = [vm.uuid, process.entity_id]
    window   = "60s"
    max_keys = 1000
  }
  cooldown {
    period = "30m"
    by     = [process.entity_id]
  }
  limit {
    max   = 3
    per   = "1h"
    scope = "host"
    then  = "audit"
  }
  prevent "egress" {
    allow = list.net
  }
  action "pause" {
    resume_after = "5m"
  }
  action "snapshot" {
    memory = true
    label  = "evidence"
    keep   = 3
  }
  action "alert" {
    message = "${process.name}: ${threshold.count} in ${threshold.window}"
  }
  escalate "more" {
    threshold {
      count  = 3
      window = "2d"
    }
    action "quarantine" {
      network = "isolate"
      pause   = true
      release = "manual"
    }
    action "alert" {
      message = "${threshold.count} times"
    }
  }
}
policy "sequence" {
  sequence {
    by     = [vm.uuid]
    within = "10m"
    step "download" {
      on        = ["file.create"]
      condition = process.name == "curl"
      by        = [file.path]
      count     = 2
    }
    step "run" {
      on        = ["process.exec"]
      condition = process.executable == step.download.file.path && step.download.count > 1
      by        = [process.executable]
    }
    reset {
      on        = ["file.delete"]
      condition = file.path == step.download.file.path
      by        = [file.path]
    }
  }
  action "detach_network" {
    interfaces = ["net0", "52:54:00:00:00:01"]
  }
  action "kill_process" {}
  action "alert" {
    message = "${step.download.file.path} of ${step.download.process.pid}, ${step.run.process.name}"
  }
}
policy "new" {
  on = ["memory.map"]
  first_seen {
    by      = [process.executable]
    history = "14d"
    learn   = "1d"
  }
  action "alert" {
    message = "x"
  }
}
policy "egress" {
  prevent "egress" {
    deny  = ["192.0.2.0/24"]
    scope = "all"
  }
}
`

func TestBlocks(t *testing.T) {
	b, diags := loadText(blocksText)
	if b == nil || len(diags) > 0 {
		t.Fatal(codes(diags), diags)
	}
	by := map[string]*Policy{}
	for _, p := range b.Policies {
		by[p.Name] = p
	}
	c := by["counted"]
	if x := c.Exceptions[0]; x.Name != "scanner" || x.Reason != "CHG-1" || !x.Expires.Equal(time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)) || x.Condition == nil {
		t.Errorf("exception %+v", x)
	}
	if got, want := fmt.Sprint(*c.Approval), "{net 2 10m0s}"; got != want {
		t.Errorf("approval %s", got)
	}
	if h := c.Threshold; h.Count != 50 || h.Window != time.Minute || h.Distinct.Name() != "destination.ip" || strings.Join(names(h.By), " ") != "vm.uuid process.entity_id" || h.MaxKeys != 1000 {
		t.Errorf("threshold %+v", h)
	}
	if m := c.Limit; m.Max != 3 || m.Per != time.Hour || m.Scope != LimitHost || m.Then != LimitAudit {
		t.Errorf("limit %+v", m)
	}
	if n := c.Prevent[0]; n.Kind != "egress" || fmt.Sprint(n.Allow, " ", n.Scope) != "[198.51.100.0/24] external" {
		t.Errorf("prevent %+v", n)
	}
	if c.OnError != OnErrorMatch || by["new"].OnError != OnErrorAlert {
		t.Error("on_error")
	}
	if got := fmt.Sprint(c.Actions[0].Parameters, c.Actions[1].Parameters, c.Escalates[0].Actions[0].Parameters); got != "map[resume_after:300] map[keep:3 label:evidence memory:true] map[network:isolate pause:true release:manual]" {
		t.Errorf("parameters %s", got)
	}
	if e := c.Escalates[0]; e.Name != "more" || e.Threshold.Window != 48*time.Hour || e.Threshold.MaxKeys != DefaultKeys {
		t.Errorf("escalate %+v", e)
	}
	s := by["sequence"]
	q := s.Sequence
	if len(q.Steps) != 2 || q.Steps[0].Count != 2 || q.Steps[1].Count != 1 || q.Steps[1].By[0].Name() != "process.executable" || q.Reset == nil || q.Within != 10*time.Minute {
		t.Errorf("sequence %+v", q)
	}
	if len(s.Classes()) != 3 || len(s.On) != 0 {
		t.Errorf("classes %v", s.Classes())
	}
	var caps []string
	for _, c := range s.Captures {
		caps = append(caps, c.Name())
	}
	if got := strings.Join(caps, " "); got != "step.download.file.path step.download.count step.download.process.pid step.run.process.name" {
		t.Errorf("captures %s", got)
	}
	if f := by["new"].FirstSeen; f.History != 14*24*time.Hour || f.Learn != 24*time.Hour || f.MaxKeys != DefaultKeys {
		t.Errorf("first_seen %+v", f)
	}
	if p := by["egress"]; p.On != nil || p.Prevent[0].Scope != "all" {
		t.Errorf("egress %+v", p)
	}
}

// What a policy remembers survives changes that do not touch its meaning.
func TestStateDigests(t *testing.T) {
	state := func(text string) map[string]Digest {
		t.Helper()
		b, diags := loadText(text)
		if b == nil {
			t.Fatal(diags)
		}
		m := make(map[string]Digest)
		for _, p := range b.Policies {
			m[p.Name] = p.StateDigest
			if p.Threshold != nil {
				m["threshold"], m["escalate"] = p.Threshold.StateDigest, p.Escalates[0].Threshold.StateDigest
			}
			if p.Sequence != nil {
				m["steps"] = p.Sequence.StateDigest
			}
			if p.FirstSeen != nil {
				m["first_seen"] = p.FirstSeen.StateDigest
			}
		}
		return m
	}
	base := state(blocksText)
	for _, tc := range []struct{ old, new, changed string }{
		{"of ${step.download.process.pid}", "by ${step.download.process.pid}", ""},
		{`count    = 50`, `count    = 60`, ""},
		{`window   = "60s"`, `window   = "61s"`, "threshold"},
		{`distinct = destination.ip`, `distinct = destination.port`, "threshold"},
		{`window = "2d"`, `window = "3d"`, "escalate"},
		{`period = "30m"`, `period = "31m"`, "counted"},
		{`is_private(destination.ip)`, `!is_private(destination.ip)`, "escalate threshold"},
		{`process.name == "nmap"`, `process.name == "masscan"`, "escalate threshold"},
		{`within = "10m"`, `within = "11m"`, "steps"},
		{`history = "14d"`, `history = "15d"`, ""},
		{`by      = [process.executable]
    history`, `by      = [process.name]
    history`, "first_seen"},
	} {
		if !strings.Contains(blocksText, tc.old) {
			t.Fatalf("no %q in the text", tc.old)
		}
		got := state(strings.Replace(blocksText, tc.old, tc.new, 1))
		var changed []string
		for _, k := range keys(base) {
			if base[k] != got[k] {
				changed = append(changed, k)
			}
		}
		if s := strings.Join(changed, " "); s != tc.changed {
			t.Errorf("%q for %q changes %q, want %q", tc.new, tc.old, s, tc.changed)
		}
	}
}

func TestExpiring(t *testing.T) {
	b, diags := loadText(blocksText)
	if b == nil {
		t.Fatal(diags)
	}
	for at, want := range map[string]string{
		"2027-03-01T00:00:00Z": "",
		"2027-03-31T12:00:00Z": "Exception ends soon",
		"2027-04-01T00:00:00Z": "Exception has ended",
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, d := range b.Expiring(now) {
			got += d.Summary
			if DetailOf(d).Code != CodeExpired || d.Subject.Start.Line == 0 {
				t.Errorf("diagnostic %v", d)
			}
		}
		if got != want {
			t.Errorf("at %s: %q, want %q", at, got, want)
		}
	}
}
