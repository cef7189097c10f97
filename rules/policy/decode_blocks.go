package policy

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

// Bounds of arguments.
const (
	minPeriod  = time.Second
	maxPeriod  = 30 * 24 * time.Hour
	maxHistory = 366 * 24 * time.Hour
	maxBy      = 8

	maxExceptions = 64
	maxSigners    = 16
	maxLimit      = 10_000
)

func (l *loader) cooldown(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	b := l.single(pb.Body, "cooldown")
	if b == nil || !l.shapeOf(b, cooldownShape) {
		return
	}
	c := &Cooldown{}
	if l.need(b, "A cooldown", "period", `"5m"`) {
		c.Period = l.duration(v, b.Body, "period", minPeriod, maxPeriod)
	}
	if a := b.Body.Attributes["by"]; a != nil {
		c.By = l.by(a, on)
	}
	p.Cooldown = c
}

// by decodes the fields of a key.
func (l *loader) by(a *hclsyntax.Attribute, on event.ClassSet) []*Value {
	tuple, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok || len(tuple.Exprs) == 0 || len(tuple.Exprs) > maxBy {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Wrong type of value", fmt.Sprintf("The argument %q needs a list of 1 to %d fields, such as [file.path].", a.Name, maxBy))
		return nil
	}
	var out []*Value
	for _, x := range tuple.Exprs {
		if v := l.fieldValue(x, "by", on); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// fieldValue decodes a field with one value; nil after an error.
func (l *loader) fieldValue(x hclsyntax.Expression, name string, on event.ClassSet) *Value {
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		l.rep.err(CodeBadValue, x.Range(), "Not a field", fmt.Sprintf("The argument %q takes fields, such as file.path.", name))
		return nil
	}
	r, p := resolve(t.Traversal)
	if p != nil {
		l.rep.errFix(p.code, p.subject, p.fix, p.what, p.detail)
		return nil
	}
	if k := r.info.Kind; k == event.KindStrings || k == event.KindProcesses {
		l.rep.err(CodeBadValue, x.Range(), "Not a single value", fmt.Sprintf("The argument %q takes fields with one value each, and %s is a %s.", name, r.info.Name, k))
		return nil
	}
	if !on.Empty() && !r.info.Classes.Intersects(on) {
		c := &checker{rep: l.rep, on: on}
		c.neverPresent(t.Traversal, r, on)
		return nil
	}
	return &Value{field: r.info.Field, key: r.key}
}

func (l *loader) exceptions(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	sc := v.scope
	sc.some = true // an exception may be of one of the policy's types only
	v = v.within(sc)
	seen := make(map[string]bool)
	for i, b := range blocksOf(pb.Body, "exception") {
		if !l.shapeOf(b, exceptionShape) {
			continue
		}
		x := &Exception{Name: b.Labels[0], rng: b.DefRange()}
		switch {
		case x.Name == "" || len(x.Name) > 128 || x.Name != Safe(x.Name):
			l.rep.err(CodeBadValue, b.LabelRanges[0], "Invalid name", "The name of an exception has 1 to 128 printable characters.")
		case seen[x.Name]:
			l.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate exception", fmt.Sprintf("Policy %q has an exception %q already.", p.Name, x.Name))
		case i == maxExceptions:
			l.rep.err(CodeTooComplex, b.DefRange(), "Too many exceptions", fmt.Sprintf("A policy has at most %d exceptions. Put what they share into a list.", maxExceptions))
		}
		seen[x.Name] = true
		if l.need(b, "An exception", "condition", `file.path == "/etc/resolv.conf"`) {
			x.Condition = l.compile(v, b.Body.Attributes["condition"].Expr, on, false)
		}
		x.Reason, _ = l.str(v, b.Body, "reason")
		if text, rng := l.str(v, b.Body, "expires"); text != "" {
			x.Expires, x.rng = l.expiry(text, rng), rng
		}
		if p.Mode == ModeEnforce {
			l.need(b, "An exception of a policy that is enforced", "reason", `"CHG-2291"`)
			l.need(b, "An exception of a policy that is enforced", "expires", `"2027-03-31"`)
		}
		p.Exceptions = append(p.Exceptions, x)
	}
}

// expiry parses a date, which is the last day in UTC, or an exact time.
func (l *loader) expiry(text string, rng hcl.Range) time.Time {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1)
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() > 2200 || at.Year() < 2000 {
		l.rep.err(CodeBadValue, rng, "Invalid date", fmt.Sprintf("%q is neither a date such as \"2027-03-31\", the last day in UTC, nor a time such as \"2027-03-31T12:00:00Z\".", text))
		return time.Time{}
	}
	return at.UTC()
}

func (l *loader) approval(v *env, pb *hclsyntax.Block, p *Policy) {
	b := l.single(pb.Body, "approval")
	if b == nil || !l.shapeOf(b, approvalShape) {
		return
	}
	a := &Approval{}
	if l.need(b, "An approval block", "group", `"security-team"`) {
		a.Group, _ = l.str(v, b.Body, "group")
	}
	a.Require = int(l.number(v, b.Body, "require", 1, maxSigners))
	a.Grace = l.duration(v, b.Body, "grace", minPeriod, maxPeriod)
	p.Approval = a
}

func (l *loader) limit(v *env, pb *hclsyntax.Block, p *Policy) {
	b := l.single(pb.Body, "limit")
	if b == nil || !l.shapeOf(b, limitShape) {
		return
	}
	m := &Limit{Then: LimitAlert}
	if l.need(b, "A limit", "max", "3") {
		m.Max = uint64(l.number(v, b.Body, "max", 1, maxLimit))
	}
	if l.need(b, "A limit", "per", `"1h"`) {
		m.Per = l.duration(v, b.Body, "per", minPeriod, maxPeriod)
	}
	if l.need(b, "A limit", "scope", `"vm"`) {
		m.Scope = l.oneOf(v, b.Body, "scope", []string{LimitVM, LimitHost})
	}
	if then := l.oneOf(v, b.Body, "then", []string{LimitAlert, LimitAudit}); then != "" {
		m.Then = then
	}
	if !p.destructive() && !l.rep.hasErrors() {
		l.rep.warn(CodeNoEffect, b.DefRange(), "Limit of nothing", "A limit counts actions that change the VM, and this policy has none. Use a cooldown to bound its alerts.")
	}
	p.Limit = m
}

// destructive reports whether any action of the policy changes the domain.
func (p *Policy) destructive() bool {
	all := p.Actions
	for _, e := range p.Escalates {
		all = append(all[:len(all):len(all)], e.Actions...)
	}
	for _, a := range all {
		if a.Destructive() {
			return true
		}
	}
	return false
}

func (l *loader) prevents(v *env, pb *hclsyntax.Block, p *Policy) {
	for i, b := range blocksOf(pb.Body, "prevent") {
		if !l.shapeOf(b, preventShape) {
			continue
		}
		n := &Prevent{Kind: b.Labels[0], Scope: "external"}
		if n.Kind != "egress" {
			fix := suggest(n.Kind, []string{"egress"})
			l.rep.errFix(CodeUnknownBlock, b.LabelRanges[0], quoteFix(fix), "Unknown prevention", fmt.Sprintf("There is no prevention %q.%s There is: egress.", n.Kind, didYouMean(fix)))
			continue
		}
		if i > 0 {
			l.rep.err(CodeDuplicate, b.DefRange(), "Duplicate prevent", "A policy has at most one prevent \"egress\" block.")
		}
		n.Allow, n.Deny = l.destinations(v, b.Body, "allow"), l.destinations(v, b.Body, "deny")
		if n.Allow == nil && b.Body.Attributes["allow"] != nil {
			n.Allow = []string{} // a list of nothing allows nothing; no list allows everything
		}
		if b.Body.Attributes["allow"] == nil && b.Body.Attributes["deny"] == nil {
			l.rep.err(CodeMissing, b.DefRange(), "Missing argument", "A prevent \"egress\" block needs \"allow\", \"deny\" or both: lists of addresses and prefixes.")
		}
		if s := l.oneOf(v, b.Body, "scope", []string{"all", "external"}); s != "" {
			n.Scope = s
		}
		p.Prevent = append(p.Prevent, n)
	}
}

// destinations reads a list of prefixes and addresses, each with a port or without.
func (l *loader) destinations(v *env, body *hclsyntax.Body, name string) []string {
	texts, ranges := l.strs(v, body, name)
	for i, s := range texts {
		d, err := ParseDestination(s)
		if err == nil && d.Name != "" && name == "deny" {
			err = fmt.Errorf("names may be allowed only: who is denied a name can learn its addresses elsewhere")
		}
		if err != nil {
			l.rep.err(CodeAddress, ranges[i], "Invalid address", fmt.Sprintf("%q: %s.", s, err))
		}
	}
	return texts
}
