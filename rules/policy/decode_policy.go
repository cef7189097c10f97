package policy

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

var (
	attackID = regexp.MustCompile(`\AT[0-9]{4}(\.[0-9]{3})?\z`)
	uuidText = regexp.MustCompile(`\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\z`)
)

// policy decodes and compiles one policy; nil after an error. All its
// mistakes are reported.
func (l *loader) policy(v *env, b *hclsyntax.Block) *Policy {
	l.uses = make(map[string]bool)
	defer func() { l.uses = nil }()
	ok := l.shapeOf(b, policyShape)
	if len(b.Labels) != 1 || !l.validName(b) {
		return nil
	}
	p := &Policy{Name: b.Labels[0]}
	l.describe(v, b.Body, p)
	on := l.on(v, b, p)
	l.target(v, b.Body, p)
	condition := l.condition(v, b.Body, on)
	p.Condition = condition
	l.cooldown(v, b, p, on)
	l.actions(v, b, p, on)
	if !ok || l.rep.hasErrors() { // the bundle is refused as a whole
		return nil
	}
	p.Digest = l.policyDigest(v, l.text(blockRange(b)), l.transitive(v))
	p.StateDigest = l.stateDigest(b, p)
	return p
}

// transitive adds what the locals in use need.
func (l *loader) transitive(v *env) map[string]bool {
	all := make(map[string]bool)
	for u := range l.uses {
		all[u] = true
		if name, ok := strings.CutPrefix(u, "local."); ok {
			for sub := range v.locals[name].uses {
				all[sub] = true
			}
		}
	}
	return all
}

// stateDigest covers what gives the policy's memory its meaning: its name and
// the cooldown's key and period.
func (l *loader) stateDigest(b *hclsyntax.Block, p *Policy) Digest {
	h := sha256.New()
	h.Write([]byte(statePrefix))
	writeString(h, p.Name)
	if c := p.Cooldown; c != nil {
		writeString(h, c.Period.String())
		for _, k := range c.By {
			writeString(h, k.Name())
		}
	}
	return sum(h)
}

func (l *loader) describe(v *env, body *hclsyntax.Body, p *Policy) {
	p.Title, _ = l.str(v, body, "title")
	if p.Title == "" {
		p.Title = p.Name
	}
	p.Description, _ = l.str(v, body, "description")
	p.Owner, _ = l.str(v, body, "owner")
	p.References, _ = l.strs(v, body, "references")
	p.Tags, _ = l.strs(v, body, "tags")
	if p.Severity = l.oneOf(v, body, "severity", Severities); p.Severity == "" {
		p.Severity = "medium"
	}
	p.Mode = ModeAudit
	if m := l.oneOf(v, body, "mode", modeNames[ModeOff:]); m != "" {
		p.Mode, _ = ParseMode(m)
	}
	ids, ranges := l.strs(v, body, "attack")
	for i, id := range ids {
		if !attackID.MatchString(id) {
			l.rep.err(CodeBadValue, ranges[i], "Invalid ATT&CK id", fmt.Sprintf("%q is not the id of a technique, such as T1059 or T1059.004.", id))
		}
	}
	p.Attack = ids
}

// on decodes the event types; the set is empty after an error.
func (l *loader) on(v *env, b *hclsyntax.Block, p *Policy) event.ClassSet {
	if b.Body.Attributes["on"] == nil {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("Policy %q needs the argument \"on\": the event types it judges, such as on = [\"file.modify\"].", p.Name))
		return event.ClassSet{}
	}
	names, ranges := l.strs(v, b.Body, "on")
	var set event.ClassSet
	bad := false
	for i, name := range names {
		c, err := record.ParseClass(name)
		switch {
		case err == nil && event.IsSubject(c):
			if set.Has(c) {
				l.rep.warn(CodeNoEffect, ranges[i], "Duplicate event type", fmt.Sprintf("The type %q is listed twice.", name))
				continue
			}
			set = set.Union(event.SetOf(c))
			p.On = append(p.On, c)
			p.Watches = p.Watches || strings.HasPrefix(name, "policy.")
			continue
		case err == nil:
			l.rep.err(CodeEventType, ranges[i], "Event type cannot be judged", fmt.Sprintf("Entries of type %q are the ledger's or the host's own and are not in what policies judge.", name))
		case slices.Contains(event.Planned, name):
			l.unsupported(ranges[i], fmt.Sprintf("The event type %q, which no source produces,", name))
		default:
			fix := suggest(name, eventTypes())
			detail := fmt.Sprintf("There is no event type %q.%s", name, didYouMean(fix))
			if fix == "" {
				category, _, _ := strings.Cut(name, ".")
				if same := typesOf(category); len(same) > 0 {
					detail += " Types of " + category + ": " + strings.Join(same, ", ") + "."
				}
			}
			l.rep.errFix(CodeEventType, ranges[i], quoteFix(fix), "Unknown event type", detail)
		}
		bad = true
	}
	if bad {
		l.badOn = true
	}
	return set
}

func eventTypes() []string { return classNames(event.Subjects()) }

func typesOf(category string) []string {
	var all []string
	for _, n := range eventTypes() {
		if strings.HasPrefix(n, category+".") {
			all = append(all, n)
		}
	}
	return all
}

// condition decodes and compiles the condition; nil where there is none.
func (l *loader) condition(v *env, body *hclsyntax.Body, on event.ClassSet) *Condition {
	badOn := l.badOn
	l.badOn = false
	a := body.Attributes["condition"]
	if a == nil {
		return nil
	}
	if badOn {
		on = event.ClassSet{} // a misspelt type carries who knows what: check names and types only
	}
	return l.compile(v, a.Expr, on, false)
}

func (l *loader) compile(v *env, x hclsyntax.Expression, on event.ClassSet, vmOnly bool) *Condition {
	in, uses := v.inline(x)
	if in == nil {
		return nil
	}
	for u := range uses {
		l.uses[u] = true
	}
	if !checkCondition(in, v, on, vmOnly) {
		return nil
	}
	return compileCondition(in, v)
}

func (l *loader) target(v *env, body *hclsyntax.Body, p *Policy) {
	b := l.single(body, "target")
	if b == nil || !l.shapeOf(b, targetShape) {
		return
	}
	t := &Target{}
	names, ranges := l.strs(v, b.Body, "names")
	for i, n := range names {
		g, err := ParseGlob(n)
		if err != nil {
			l.rep.err(CodeRegexp, ranges[i], "Invalid pattern", fmt.Sprintf("The pattern %q is wrong: %s.", n, err))
			continue
		}
		t.Names = append(t.Names, g)
	}
	t.UUIDs, ranges = l.strs(v, b.Body, "uuids")
	for i, u := range t.UUIDs {
		if !uuidText.MatchString(u) {
			l.rep.err(CodeBadValue, ranges[i], "Invalid UUID", fmt.Sprintf("%q is not a UUID in lower case, such as 6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11.", u))
		}
	}
	t.Tags, _ = l.strs(v, b.Body, "tags")
	l.targetMetadata(v, b.Body, t)
	if a := b.Body.Attributes["condition"]; a != nil {
		t.Condition = l.compile(v, a.Expr, event.ClassSet{}, true)
	}
	if len(b.Body.Attributes) == 0 {
		l.rep.warn(CodeNoEffect, b.DefRange(), "Target selects everything", "An empty target block means every VM. Leave it out.")
	}
	p.Target = t
}

func (l *loader) targetMetadata(v *env, body *hclsyntax.Body, t *Target) {
	a, val := l.attr(v, body, "metadata")
	if a == nil {
		return
	}
	if !val.Type().IsObjectType() && !val.Type().IsMapType() || val.LengthInt() == 0 {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Wrong type of value", "The argument \"metadata\" needs keys and texts, such as { zone = \"restricted\" }.")
		return
	}
	t.Metadata = make(map[string]string)
	for it := val.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			l.rep.err(CodeBadValue, a.Expr.Range(), "Wrong type of value", fmt.Sprintf("The metadata value of %q must be a text.", k.AsString()))
			continue
		}
		t.Metadata[k.AsString()] = e.AsString()
	}
}

// single returns the only block of a type, or nil.
func (l *loader) single(body *hclsyntax.Body, typ string) *hclsyntax.Block {
	var found *hclsyntax.Block
	for _, b := range body.Blocks {
		if b.Type != typ {
			continue
		}
		if found != nil {
			l.rep.err(CodeDuplicate, b.DefRange(), "Duplicate "+typ, fmt.Sprintf("A policy has at most one %s block; the first is at line %d.", typ, found.DefRange().Start.Line))
			continue
		}
		found = b
	}
	return found
}

// Bounds of a cooldown.
const (
	minPeriod = time.Second
	maxPeriod = 30 * 24 * time.Hour
	maxBy     = 8
)

func (l *loader) cooldown(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	b := l.single(pb.Body, "cooldown")
	if b == nil || !l.shapeOf(b, cooldownShape) {
		return
	}
	c := &Cooldown{}
	if b.Body.Attributes["period"] == nil {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", "A cooldown needs the argument \"period\", such as period = \"5m\".")
	} else if text, rng := l.str(v, b.Body, "period"); text != "" {
		d, err := parsePeriod(text)
		if err != nil || d < minPeriod || d > maxPeriod {
			l.rep.err(CodeBadValue, rng, "Invalid duration", fmt.Sprintf("%q is not a duration between 1s and 30d, such as \"90s\", \"5m\", \"12h\" or \"7d\".", text))
		}
		c.Period = d
	}
	if a := b.Body.Attributes["by"]; a != nil {
		c.By = l.by(a, on)
	}
	p.Cooldown = c
}

// parsePeriod is time.ParseDuration with days.
func parsePeriod(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		h, err := time.ParseDuration(days + "h")
		if err != nil || h > maxPeriod {
			return 0, fmt.Errorf("parse duration %q: %w", s, err)
		}
		return h * 24, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("parse duration %q: %w", s, err)
	}
	return d, nil
}

func (l *loader) by(a *hclsyntax.Attribute, on event.ClassSet) []*Value {
	tuple, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok || len(tuple.Exprs) == 0 || len(tuple.Exprs) > maxBy {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Wrong type of value", fmt.Sprintf("The argument \"by\" needs a list of 1 to %d fields, such as [file.path].", maxBy))
		return nil
	}
	var out []*Value
	for _, x := range tuple.Exprs {
		t, ok := x.(*hclsyntax.ScopeTraversalExpr)
		if !ok {
			l.rep.err(CodeBadValue, x.Range(), "Not a field", "The elements of \"by\" are fields, such as file.path.")
			continue
		}
		r, p := resolve(t.Traversal)
		if p != nil {
			l.rep.errFix(p.code, p.subject, p.fix, p.what, p.detail)
			continue
		}
		if k := r.info.Kind; k == event.KindStrings || k == event.KindProcesses {
			l.rep.err(CodeBadValue, x.Range(), "Not a single value", "The elements of \"by\" must have one value each, and "+r.info.Name+" is a "+k.String()+".")
			continue
		}
		if !on.Empty() && !r.info.Classes.Intersects(on) {
			c := &checker{rep: l.rep, on: on}
			c.neverPresent(t.Traversal, r)
			continue
		}
		out = append(out, &Value{field: r.info.Field, key: r.key})
	}
	return out
}

func (l *loader) actions(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	seen := make(map[string]hcl.Range)
	for _, b := range pb.Body.Blocks {
		if b.Type != "action" {
			continue
		}
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
		a := &Action{Kind: kind}
		if kind == "alert" {
			l.alert(v, b, a, on)
		}
		p.Actions = append(p.Actions, a)
	}
	if len(seen) == 0 && !hasPlanned(pb) {
		l.rep.warn(CodeNoEffect, pb.DefRange(), "Policy does nothing", fmt.Sprintf("Policy %q has no action: its verdicts are sealed, and nobody is told.", p.Name))
	}
}

func hasPlanned(pb *hclsyntax.Block) bool {
	for _, b := range pb.Body.Blocks {
		if b.Type == "action" || slices.Contains(policyShape.plannedB, b.Type) {
			return true
		}
	}
	return false
}

func (l *loader) unknownAction(b *hclsyntax.Block, kind string) {
	if slices.Contains(plannedActions, kind) {
		l.unsupported(b.LabelRanges[0], fmt.Sprintf("The action %q", kind))
		return
	}
	names := append([]string{"alert", "pause"}, plannedActions...)
	fix := suggest(kind, names)
	l.rep.errFix(CodeUnknownBlock, b.LabelRanges[0], quoteFix(fix), "Unknown action",
		fmt.Sprintf("There is no action %q.%s This version has: alert, pause.", kind, didYouMean(fix)))
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
