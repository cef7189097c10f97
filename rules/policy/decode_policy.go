package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

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
	l.target(v, b.Body, p)
	on := l.matching(v, b, p)
	sc := scope{policy: p}
	if p.Sequence != nil {
		sc.steps = p.Sequence.Steps
	}
	v = v.within(sc)
	l.exceptions(v, b, p, on)
	l.approval(v, b, p)
	l.threshold(v, b, p, on)
	l.firstSeen(v, b, p, on)
	l.cooldown(v, b, p, on)
	p.Deciding = len(p.Captures)
	sc.counts = p.Threshold != nil
	p.Actions = l.actions(v.within(sc), b, on)
	l.escalates(v, b, p, on)
	l.prevents(v, b, p)
	l.limit(v, b, p)
	l.pointless(b, p)
	if len(p.Captures) > MaxCaptures {
		l.rep.err(CodeTooComplex, b.DefRange(), "Too many values of earlier steps", fmt.Sprintf("A policy may read %d different values of step.* and threshold.*.", MaxCaptures))
	}
	if !ok || l.rep.hasErrors() { // the bundle is refused as a whole
		return nil
	}
	p.Digest = l.policyDigest(v, l.text(blockRange(b)), l.transitive(v))
	l.stateDigests(v, b, p)
	return p
}

// matching decodes what the policy looks for: event types and a condition, or
// a sequence. It returns the types that the event of a match can have.
func (l *loader) matching(v *env, b *hclsyntax.Block, p *Policy) event.ClassSet {
	if len(blocksOf(b.Body, "sequence")) > 0 {
		for _, name := range []string{"on", "condition"} {
			if a := b.Body.Attributes[name]; a != nil {
				l.rep.err(CodeBadValue, a.NameRange, "Argument beside a sequence", fmt.Sprintf("Each step of a sequence has its own %q. Move this one into the steps.", name))
			}
		}
		return l.sequence(v, b, p)
	}
	if b.Body.Attributes["on"] == nil {
		if onlyPrevents(b.Body) {
			return event.ClassSet{}
		}
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("Policy %q needs the argument \"on\": the event types it judges, such as on = [\"file.modify\"].", p.Name))
	}
	on, classes := l.on(v, b.Body)
	p.On = classes
	p.Watches = watches(classes)
	p.Condition = l.condition(v, b.Body, on)
	return on
}

// onlyPrevents reports whether a policy judges no events, because all it does
// is done by the host's packet filter.
func onlyPrevents(body *hclsyntax.Body) bool {
	return len(blocksOf(body, "prevent")) > 0 && body.Attributes["condition"] == nil && len(blocksOf(body, "action")) == 0
}

func blocksOf(body *hclsyntax.Body, typ string) []*hclsyntax.Block {
	var all []*hclsyntax.Block
	for _, b := range body.Blocks {
		if b.Type == typ {
			all = append(all, b)
		}
	}
	return all
}

func watches(classes []record.Class) bool {
	return slices.ContainsFunc(classes, func(c record.Class) bool {
		return strings.HasPrefix(c.String(), "policy.") || strings.HasPrefix(c.String(), "approval.")
	})
}

// pointless warns of a policy from which nothing follows.
func (l *loader) pointless(b *hclsyntax.Block, p *Policy) {
	if len(blocksOf(b.Body, "action"))+len(blocksOf(b.Body, "prevent")) == 0 {
		l.rep.warn(CodeNoEffect, b.DefRange(), "Policy does nothing", fmt.Sprintf("Policy %q has no action: its verdicts are sealed, and nobody is told.", p.Name))
	}
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
	p.OnError = OnErrorAlert
	if e := l.oneOf(v, body, "on_error", []string{OnErrorAlert, OnErrorIgnore, OnErrorMatch}); e != "" {
		p.OnError = e
	}
	ids, ranges := l.strs(v, body, "attack")
	for i, id := range ids {
		if !attackID.MatchString(id) {
			l.rep.err(CodeBadValue, ranges[i], "Invalid ATT&CK id", fmt.Sprintf("%q is not the id of a technique, such as T1059 or T1059.004.", id))
		} else if !attackTechniques[id] {
			l.rep.warn(CodeAttack, ranges[i], "Unknown ATT&CK technique", fmt.Sprintf("ATT&CK %s has no technique %s. It may be misspelt, revoked, or of a later version.", AttackVersion, id))
		}
	}
	p.Attack = ids
}

// on decodes event types; the set is empty after an error.
func (l *loader) on(v *env, body *hclsyntax.Body) (event.ClassSet, []record.Class) {
	names, ranges := l.strs(v, body, "on")
	var set event.ClassSet
	var classes []record.Class
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
			classes = append(classes, c)
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
	return set, classes
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
