package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

// actionShapes are the arguments of each kind of action.
var actionShapes = map[string]shape{
	"alert":          {what: `action "alert"`, labels: 1, attrs: []string{"message", "channels"}, hints: map[string]string{"channel": "channels", "text": "message"}},
	"pause":          {what: `action "pause"`, labels: 1, attrs: []string{"resume_after"}, hints: map[string]string{"for": "resume_after", "duration": "resume_after"}},
	"snapshot":       {what: `action "snapshot"`, labels: 1, attrs: []string{"memory", "label", "keep"}, hints: map[string]string{"name": "label", "retain": "keep"}},
	"detach_network": {what: `action "detach_network"`, labels: 1, attrs: []string{"interfaces", "mode"}, hints: map[string]string{"interface": "interfaces", "devices": "interfaces"}},
	"quarantine":     {what: `action "quarantine"`, labels: 1, attrs: []string{"network", "pause", "release"}},
	"kill_process":   {what: `action "kill_process"`, labels: 1},
}

// actionHints are the names that other tools give to our actions.
var actionHints = map[string]string{
	"suspend": "pause", "stop": "pause", "isolate": "quarantine", "kill": "kill_process", "sigkill": "kill_process",
	"notify": "alert", "log": "alert", "email": "alert", "webhook": "alert", "disconnect": "detach_network",
}

// actions decodes the action blocks of a policy or an escalate block.
func (l *loader) actions(v *env, pb *hclsyntax.Block, on event.ClassSet) []*Action {
	seen := make(map[string]hcl.Range)
	var all []*Action
	for _, b := range blocksOf(pb.Body, "action") {
		if len(b.Labels) != 1 {
			l.rep.err(CodeMissing, b.DefRange(), "Missing label", "Write action \"alert\" { ... } or action \"pause\" {}.")
			continue
		}
		kind := b.Labels[0]
		s, ok := actionShapes[kind]
		if !ok {
			l.unknownAction(b, kind)
			continue
		}
		if first, dup := seen[kind]; dup && kind != "alert" {
			l.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate action", fmt.Sprintf("The action %q stands at line %d already.", kind, first.Start.Line))
		}
		seen[kind] = b.LabelRanges[0]
		if !l.shapeOf(b, s) {
			continue
		}
		all = append(all, l.action(v, b, kind, on))
	}
	return all
}

func (l *loader) unknownAction(b *hclsyntax.Block, kind string) {
	fix := actionHints[kind]
	if fix == "" {
		fix = suggest(kind, ActionKinds)
	}
	l.rep.errFix(CodeUnknownBlock, b.LabelRanges[0], quoteFix(fix), "Unknown action",
		fmt.Sprintf("There is no action %q.%s Actions are: %s.", kind, didYouMean(fix), strings.Join(ActionKinds, ", ")))
}

func (l *loader) action(v *env, b *hclsyntax.Block, kind string, on event.ClassSet) *Action {
	a := &Action{Kind: kind}
	set := func(name, value string) {
		if value == "" {
			return
		}
		if a.Parameters == nil {
			a.Parameters = make(map[string]string)
		}
		a.Parameters[name] = value
	}
	switch kind {
	case "alert":
		l.alert(v, b, a, on)
	case "pause":
		if d := l.duration(v, b.Body, "resume_after", minPeriod, maxPeriod); d > 0 {
			set("resume_after", strconv.FormatInt(int64(d/time.Second), 10))
		}
	case "snapshot":
		set("memory", l.flag(v, b.Body, "memory"))
		if label, rng := l.str(v, b.Body, "label"); label != "" {
			if len(label) > 64 || label != Safe(label) {
				l.rep.err(CodeBadValue, rng, "Invalid label", "A label has at most 64 printable characters.")
			}
			set("label", label)
		}
		if n := l.number(v, b.Body, "keep", 1, 1_000); n > 0 {
			set("keep", strconv.FormatInt(n, 10))
		}
	case "detach_network":
		names, ranges := l.strs(v, b.Body, "interfaces")
		for i, n := range names {
			if len(n) > 64 || strings.ContainsAny(n, ", \t\n") {
				l.rep.err(CodeBadValue, ranges[i], "Invalid interface", fmt.Sprintf("%q is neither the MAC address nor the alias nor the device name of an interface.", n))
			}
		}
		set("interfaces", strings.Join(names, ","))
		set("mode", l.oneOf(v, b.Body, "mode", []string{"link_down", "unplug", "isolate"}))
	case "quarantine":
		set("network", l.oneOf(v, b.Body, "network", []string{"isolate", "keep"}))
		set("pause", l.flag(v, b.Body, "pause"))
		set("release", l.oneOf(v, b.Body, "release", []string{"manual", "two-person"}))
	case "kill_process":
		l.killable(b, on)
	}
	return a
}

// killable refuses to kill where no event says whom.
func (l *loader) killable(b *hclsyntax.Block, on event.ClassSet) {
	for _, c := range on.Classes() {
		if f := event.ProcessPID.Info(); !f.Classes.Has(c) {
			l.rep.err(CodeNeverPresent, b.DefRange(), "No process to kill", fmt.Sprintf("The action \"kill_process\" kills the process that did it, and %q events name none.", c))
			return
		}
	}
}

func (l *loader) alert(v *env, b *hclsyntax.Block, a *Action, on event.ClassSet) {
	a.Channels, _ = l.strs(v, b.Body, "channels")
	m := b.Body.Attributes["message"]
	if m == nil {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", "An alert needs the argument \"message\".")
		return
	}
	x, uses := v.inline(m.Expr)
	if x == nil {
		return
	}
	for u := range uses {
		l.uses[u] = true
	}
	if checkMessage(x, v, on) {
		a.Message = compileMessage(x, v)
	}
}
