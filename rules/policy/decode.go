package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// shape is what a block may hold.
type shape struct {
	what   string // for messages: "policy"
	labels int
	attrs  []string
	blocks []string
	hints  map[string]string // wrong name -> right name
}

var (
	fileShape   = shape{what: "a policy file", blocks: []string{"bundle", "list", "locals", "macro", "policy"}}
	bundleShape = shape{what: "bundle", attrs: []string{"name", "version", "language", "mode"}}
	listShape   = shape{what: "list", labels: 1, attrs: []string{"type", "values", "file"}}
	macroShape  = shape{what: "macro", labels: 1, attrs: []string{"condition"}}
	policyShape = shape{what: "policy", labels: 1,
		attrs:  []string{"title", "description", "owner", "references", "tags", "attack", "severity", "mode", "on", "condition", "on_error"},
		blocks: []string{"target", "exception", "approval", "threshold", "sequence", "first_seen", "cooldown", "limit", "prevent", "action", "escalate"},
		hints: map[string]string{"rule": "condition", "when": "condition", "filter": "condition", "output": "action", "priority": "severity", "level": "severity",
			"events": "on", "event": "on", "desc": "description", "name": "title", "throttle": "cooldown", "exceptions": "exception", "unless": "exception",
			"correlation": "sequence", "frequency": "threshold", "count": "threshold", "new_terms": "first_seen", "response": "action"}}
	targetShape    = shape{what: "target", attrs: []string{"names", "uuids", "tags", "metadata", "condition"}, hints: map[string]string{"name": "names", "uuid": "uuids", "tag": "tags"}}
	exceptionShape = shape{what: "exception", labels: 1, attrs: []string{"condition", "reason", "expires"}, hints: map[string]string{"until": "expires", "expiry": "expires", "comment": "reason", "when": "condition"}}
	approvalShape  = shape{what: "approval", attrs: []string{"group", "require", "grace"}, hints: map[string]string{"groups": "group", "quorum": "require", "by": "group"}}
	thresholdShape = shape{what: "threshold", attrs: []string{"count", "distinct", "by", "window", "max_keys"}, hints: map[string]string{"period": "window", "timespan": "window", "within": "window", "group_by": "by", "max": "count"}}
	sequenceShape  = shape{what: "sequence", attrs: []string{"by", "within", "max_keys"}, blocks: []string{"step", "reset"}, hints: map[string]string{"maxspan": "within", "window": "within", "timespan": "within", "until": "reset", "event": "step"}}
	stepShape      = shape{what: "step", labels: 1, attrs: []string{"on", "condition", "count", "by"}, hints: map[string]string{"runs": "count"}}
	resetShape     = shape{what: "reset", attrs: []string{"on", "condition", "by"}}
	firstSeenShape = shape{what: "first_seen", attrs: []string{"by", "history", "learn", "max_keys"}, hints: map[string]string{"window": "history", "fields": "by"}}
	cooldownShape  = shape{what: "cooldown", attrs: []string{"period", "by"}, hints: map[string]string{"key": "by", "window": "period", "interval": "period"}}
	limitShape     = shape{what: "limit", attrs: []string{"max", "per", "scope", "then"}, hints: map[string]string{"count": "max", "window": "per", "period": "per"}}
	preventShape   = shape{what: "prevent", labels: 1, attrs: []string{"allow", "deny", "scope"}}
	escalateShape  = shape{what: "escalate", labels: 1, blocks: []string{"threshold", "action"}}
)

// shapeOf reports everything in a block that does not belong there. It returns
// false only where the labels are not what they should be: the rest of a block
// with a misspelt argument is looked at all the same.
func (l *loader) shapeOf(b *hclsyntax.Block, s shape) bool {
	ok := true
	if len(b.Labels) != s.labels {
		ok = false
		if s.labels == 0 {
			l.rep.err(CodeUnknownArg, b.LabelRanges[0], "Unexpected label", fmt.Sprintf("A %s block has no label.", b.Type))
		} else {
			l.rep.err(CodeMissing, b.DefRange(), "Missing label", fmt.Sprintf("Write %s \"NAME\" { ... }, with one name.", b.Type))
		}
	}
	l.bodyShape(b.Body, s)
	return ok
}

func (l *loader) bodyShape(body *hclsyntax.Body, s shape) {
	for _, name := range keys(body.Attributes) {
		if slices.Contains(s.attrs, name) {
			continue
		}
		rng := body.Attributes[name].NameRange
		switch {
		case slices.Contains(s.blocks, name):
			l.rep.err(CodeUnknownArg, rng, "Not an argument", fmt.Sprintf("%q is a block: write %s { ... } without \"=\".", name, name))
		default:
			l.unknown(CodeUnknownArg, rng, "argument", name, s, s.attrs)
		}
	}
	for _, b := range body.Blocks {
		if slices.Contains(s.blocks, b.Type) {
			continue
		}
		switch {
		case slices.Contains(s.attrs, b.Type):
			l.rep.err(CodeUnknownBlock, b.TypeRange, "Not a block", fmt.Sprintf("%q is an argument: write %s = ...", b.Type, b.Type))
		default:
			l.unknown(CodeUnknownBlock, b.TypeRange, "block", b.Type, s, s.blocks)
		}
	}
}

func (l *loader) unsupported(rng hcl.Range, what string) {
	l.rep.err(CodeUnsupported, rng, "Not supported by this version",
		what+" is not supported by this version of Provost. The bundle is refused, because without it the policy would mean something else. Remove it, or use a version that supports it.")
}

func (l *loader) unknown(code Code, rng hcl.Range, kind, name string, s shape, names []string) {
	fix := s.hints[name]
	if fix == "" {
		fix = suggest(name, names)
	}
	detail := fmt.Sprintf("There is no %s %q in %s.%s", kind, name, s.what, didYouMean(fix))
	if fix == "" {
		if len(names) == 0 {
			detail += fmt.Sprintf(" It has no %ss.", kind)
		} else {
			detail += " It has: " + strings.Join(names, ", ") + "."
		}
	}
	l.rep.errFix(code, rng, fix, "Unknown "+kind, detail)
}

// attr evaluates an argument that must be constant. Lists and locals may be
// used; nil means that it is absent or was reported.
func (l *loader) attr(v *env, body *hclsyntax.Body, name string) (*hclsyntax.Attribute, cty.Value) {
	a := body.Attributes[name]
	if a == nil {
		return nil, cty.NilVal
	}
	x, uses := v.inline(a.Expr)
	if x == nil {
		return nil, cty.NilVal
	}
	for _, t := range x.Variables() {
		if root := t.RootName(); root != "list" && root != "local" {
			l.rep.err(CodeBadValue, t.SourceRange(), "Value not constant", fmt.Sprintf("The argument %q must be a constant.", name))
			return nil, cty.NilVal
		}
	}
	val, diags := x.Value(v.consts)
	if diags.HasErrors() {
		l.rep.adopt(CodeType, diags)
		return nil, cty.NilVal
	}
	if val.IsNull() || !val.IsWhollyKnown() {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Missing value", fmt.Sprintf("The argument %q is null. Leave it out, or give it a value.", name))
		return nil, cty.NilVal
	}
	if l.uses != nil {
		for u := range uses {
			l.uses[u] = true
		}
	}
	return a, val
}

func (l *loader) wrongType(a *hclsyntax.Attribute, want string, v cty.Value) {
	l.rep.err(CodeBadValue, a.Expr.Range(), "Wrong type of value", fmt.Sprintf("The argument %q needs a %s, and this is %s.", a.Name, want, describeType(v)))
}

func (l *loader) str(v *env, body *hclsyntax.Body, name string) (string, hcl.Range) {
	a, val := l.attr(v, body, name)
	if a == nil {
		return "", hcl.Range{}
	}
	if val.Type() != cty.String {
		l.wrongType(a, "string", val)
		return "", hcl.Range{}
	}
	if val.AsString() == "" {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Empty value", fmt.Sprintf("The argument %q is empty. Leave it out, or give it a value.", name))
	}
	return val.AsString(), a.Expr.Range()
}

// strs returns a list of strings and the range of each. A present but empty
// list is an error: it would select or say nothing.
func (l *loader) strs(v *env, body *hclsyntax.Body, name string) ([]string, []hcl.Range) {
	a, val := l.attr(v, body, name)
	if a == nil {
		return nil, nil
	}
	t := val.Type()
	if !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		l.wrongType(a, "list of strings", val)
		return nil, nil
	}
	tuple, _ := a.Expr.(*hclsyntax.TupleConsExpr)
	var out []string
	var ranges []hcl.Range
	i := 0
	for it := val.ElementIterator(); it.Next(); i++ {
		_, e := it.Element()
		rng := a.Expr.Range()
		if tuple != nil && i < len(tuple.Exprs) {
			rng = tuple.Exprs[i].Range()
		}
		if e.IsNull() || e.Type() != cty.String {
			l.rep.err(CodeBadValue, rng, "Wrong type of value", fmt.Sprintf("The argument %q needs a list of strings, and this element is %s.", name, describeType(e)))
			continue
		}
		out = append(out, e.AsString())
		ranges = append(ranges, rng)
	}
	if i == 0 {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Empty list", fmt.Sprintf("The list %q is empty. Leave it out, or give it values.", name))
	}
	return out, ranges
}

// oneOf returns a string that must be one of names.
func (l *loader) oneOf(v *env, body *hclsyntax.Body, name string, names []string) string {
	s, rng := l.str(v, body, name)
	if s == "" || slices.Contains(names, s) {
		return s
	}
	fix := suggest(s, names)
	l.rep.errFix(CodeBadValue, rng, quoteFix(fix), "Unknown value",
		fmt.Sprintf("%q is no %s.%s It is one of: %s.", s, name, didYouMean(fix), strings.Join(names, ", ")))
	return ""
}

// need reports that a required argument is missing.
func (l *loader) need(b *hclsyntax.Block, what, name, example string) bool {
	if b.Body.Attributes[name] != nil {
		return true
	}
	for other := range b.Body.Attributes {
		if suggest(other, []string{name}) == name {
			return false // it is there, misspelt, which shapeOf has said
		}
	}
	l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("%s needs the argument %q, such as %s = %s.", what, name, name, example))
	return false
}

// number returns a whole number between bounds, or 0.
func (l *loader) number(v *env, body *hclsyntax.Body, name string, low, high int64) int64 {
	a, val := l.attr(v, body, name)
	if a == nil {
		return 0
	}
	n, ok := wholeNumber(val)
	if val.Type() != cty.Number {
		l.wrongType(a, "number", val)
		return 0
	}
	if !ok || n < low || n > high {
		l.rep.err(CodeBadValue, a.Expr.Range(), "Number out of range", fmt.Sprintf("The argument %q needs a whole number from %d to %d.", name, low, high))
		return 0
	}
	return n
}

// duration returns a duration between bounds, or 0.
func (l *loader) duration(v *env, body *hclsyntax.Body, name string, low, high time.Duration) time.Duration {
	text, rng := l.str(v, body, name)
	if text == "" {
		return 0
	}
	d, err := parsePeriod(text)
	if err != nil || d < low || d > high {
		l.rep.err(CodeBadValue, rng, "Invalid duration",
			fmt.Sprintf("%q is not a duration between %s and %s, such as \"90s\", \"5m\", \"12h\" or \"7d\".", text, FormatPeriod(low), FormatPeriod(high)))
		return 0
	}
	return d
}

// flag returns a true/false argument as "true" or "false", or "".
func (l *loader) flag(v *env, body *hclsyntax.Body, name string) string {
	a, val := l.attr(v, body, name)
	if a == nil {
		return ""
	}
	if val.Type() != cty.Bool {
		l.wrongType(a, "bool", val)
		return ""
	}
	return strconv.FormatBool(val.True())
}

// parsePeriod is time.ParseDuration with days.
func parsePeriod(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		h, err := time.ParseDuration(days + "h")
		if err != nil || h > maxPeriod*24 {
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

// FormatPeriod writes a duration as policies do, in its largest whole unit.
func FormatPeriod(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.size && d%u.size == 0 {
			return strconv.FormatInt(int64(d/u.size), 10) + u.name
		}
	}
	return d.String()
}

func wholeNumber(v cty.Value) (int64, bool) {
	if v.Type() != cty.Number {
		return 0, false
	}
	f := v.AsBigFloat()
	n, _ := f.Int64()
	return n, f.IsInt()
}

// text returns the source text of a range.
func (l *loader) text(r hcl.Range) string {
	data := l.files[r.Filename]
	if r.Start.Byte > r.End.Byte || r.End.Byte > len(data) {
		return ""
	}
	return string(data[r.Start.Byte:r.End.Byte])
}

func blockRange(b *hclsyntax.Block) hcl.Range {
	return hcl.RangeBetween(b.DefRange(), b.CloseBraceRange)
}

// validName reports identifiers that are not lower-case words.
func (l *loader) validName(b *hclsyntax.Block) bool {
	name := b.Labels[0]
	ok := name != "" && len(name) <= 128
	for i, r := range name {
		if r >= 'a' && r <= 'z' || r == '_' || i > 0 && (r >= '0' && r <= '9') {
			continue
		}
		ok = false
	}
	if !ok {
		l.rep.err(CodeBadValue, b.LabelRanges[0], "Invalid name", fmt.Sprintf("The name of %s starts with a lower-case letter and has only a-z, 0-9 and \"_\", at most 128 of them.", article(b.Type)))
	}
	return ok
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

func (l *loader) duplicate(b *hclsyntax.Block, first hcl.Range) {
	l.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate "+b.Type,
		fmt.Sprintf("A %s named %q was defined at %s:%d. Names are unique in a bundle.", b.Type, b.Labels[0], first.Filename, first.Start.Line))
}
