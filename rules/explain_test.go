package rules

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

const explained = `bundle {
  name     = "e"
  version  = "1"
  language = 1
}

policy "plain" {
  mode      = "enforce"
  on        = ["file.modify"]
  condition = under(file.path, "/etc") && process.pid > 1
  target { names = ["web-*"] }
  exception "hosts" {
    condition = file.path == "/etc/hosts"
    reason    = "CHG-1"
    expires   = "2100-01-01"
  }
  cooldown {
    period = "1m"
    by     = [file.path]
  }
  action "alert" { message = "changed ${file.path}" }
}

policy "audited" {
  on        = ["file.modify"]
  condition = file.path == "/etc/passwd"
  action "alert" { message = "m" }
}

policy "off" {
  mode      = "off"
  on        = ["file.modify"]
  condition = file.path == "/etc/passwd"
  action "alert" { message = "m" }
}

policy "counted" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  threshold {
    count  = 3
    window = "1m"
  }
  action "alert" { message = "m" }
}

policy "new" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  first_seen {
    by      = [file.path]
    history = "1h"
  }
  action "alert" { message = "m" }
}

policy "steps" {
  sequence {
    within = "1h"
    step "write" {
      on        = ["file.modify"]
      condition = under(file.path, "/etc")
    }
    step "remove" {
      on        = ["file.delete"]
      condition = file.path == step.write.file.path
    }
  }
  action "alert" { message = "m" }
}

policy "ignores" {
  on_error  = "ignore"
  on        = ["file.modify"]
  condition = process.pid > 1
  action "alert" { message = "m" }
}
`

// Every way in which a policy gives no verdict is told, with what was asked on
// the way, and nothing but the explained policy.
func TestExplain(t *testing.T) {
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(explained)}})
	if b == nil {
		t.Fatal(diags)
	}
	e, err := New(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	modify := func(path string, pid uint32) *record.Event {
		ev := &record.Event{File: &record.File{Path: []byte(path)}}
		if pid > 0 {
			ev.Process = &record.Process{Pid: pid}
		}
		return ev
	}
	for name, c := range map[string]struct {
		policy string
		vm     string
		class  record.Class
		events []*record.Event // the last one is explained
		want   []string        // in the text
	}{
		"match":     {"plain", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7)}, []string{"verdict: it matches\n", "true   all of\n", "process.pid = 7", "  1. alert: changed /etc/x"}},
		"audit":     {"audited", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/passwd", 7)}, []string{"verdict: it matches; its mode is audit"}},
		"off":       {"off", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/passwd", 7)}, []string{"no verdict: its mode on this VM is off"}},
		"type":      {"plain", "web-1", record.ClassFileCreate, []*record.Event{modify("/etc/x", 7)}, []string{"no verdict: it does not judge file.create entries"}},
		"target":    {"plain", "db-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7)}, []string{"no verdict: its target does not select this VM"}},
		"condition": {"plain", "web-1", record.ClassFileModify, []*record.Event{modify("/x", 7)}, []string{"no verdict: its condition is false", `  false  10:15  under(file.path, "/etc")  file.path = "/x"`}},
		"exception": {"plain", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/hosts", 7)}, []string{`no verdict: its condition is true, and the exception "hosts" covers it`, `exception "hosts", a.policy.hcl`}},
		"cooldown":  {"plain", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7), modify("/etc/x", 8)}, []string{"its cooldown swallows the repeat"}},
		"error":     {"plain", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 0)}, []string{"no verdict: it could not be decided: ", "process.pid = null (not supplied), error: "}},
		"ignored":   {"ignores", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 0)}, []string{"its on_error ignores that"}},
		"threshold": {"counted", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7), modify("/etc/x", 7)}, []string{"has not been true often enough (2)"}},
		"seen":      {"new", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7), modify("/etc/x", 7)}, []string{"these values have been seen before"}},
		"step":      {"steps", "web-1", record.ClassFileModify, []*record.Event{modify("/etc/x", 7)}, []string{`has reached the step "write", which is not the last`, `step "write", a.policy.hcl`}},
		"captured":  {"steps", "web-1", record.ClassFileDelete, []*record.Event{modify("/etc/x", 7), modify("/etc/y", 7)}, []string{`step "remove", a.policy.hcl`, `file.path = "/etc/y", step.write.file.path = "/etc/x"`}},
		"sequence":  {"steps", "web-1", record.ClassFileDelete, []*record.Event{modify("/etc/x", 7), modify("/etc/x", 7)}, []string{"verdict: it matches"}},
	} {
		t.Run(name, func(t *testing.T) {
			st := &State{}
			leaf := record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: record.ClassGenesis}}
			if _, err := e.Eval(st, leaf, record.Hash{}, &record.Genesis{DomainName: c.vm, DomainUuid: "u"}); err != nil {
				t.Fatal(err)
			}
			for i, ev := range c.events {
				leaf := record.Leaf{Origin: record.OriginGuest, Index: uint64(i + 1), Mono: int64(i + 1), Wall: int64(i + 1), Header: record.Header{Class: record.ClassFileModify}}
				if i < len(c.events)-1 {
					if _, err := e.Eval(st, leaf, record.Hash{}, ev); err != nil {
						t.Fatal(err)
					}
					continue
				}
				leaf.Header.Class = c.class
				x, err := e.Explain(st, leaf, record.Hash{}, ev, c.policy)
				if err != nil {
					t.Fatal(err)
				}
				var text strings.Builder
				if err := x.WriteText(&text); err != nil {
					t.Fatal(err)
				}
				for _, want := range c.want {
					if !strings.Contains(text.String(), want) {
						t.Errorf("want %q in\n%s", want, text.String())
					}
				}
			}
		})
	}
	if _, err := e.Explain(&State{}, record.Leaf{}, record.Hash{}, &record.Genesis{}, "plane"); !errors.Is(err, record.ErrReject) {
		t.Errorf("a policy that is not there: %v", err)
	}
}
