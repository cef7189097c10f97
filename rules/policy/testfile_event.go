package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// policyTypes are the event types that a policy looks at.
func policyTypes(p *Policy) event.ClassSet {
	set := event.SetOf(p.On...)
	if p.Sequence != nil {
		for _, s := range p.Sequence.parts() {
			set = set.Union(s.set)
		}
	}
	return set
}

func lookupEnum(field string) ([]string, bool) {
	f, ok := event.Lookup(field)
	if !ok {
		return nil, false
	}
	return f.Enum, true
}

// testEvents decodes the events and recorded blocks of a test in their order.
func (d *testDecoder) testEvents(b *hclsyntax.Block, t *Test) {
	for _, eb := range b.Body.Blocks {
		var e *TestEvent
		switch eb.Type {
		case "event":
			e = d.testEvent(eb, t)
		case "recorded":
			e = d.recorded(eb, t)
		}
		if e == nil {
			continue
		}
		if len(t.Events) == maxEvents {
			d.rep.err(CodeTooComplex, eb.DefRange(), "Too many events", fmt.Sprintf("A test has at most %d event blocks.", maxEvents))
			return
		}
		if n := len(t.Events); n > 0 && e.At >= 0 && e.At < t.Events[n-1].At {
			d.rep.err(CodeBadValue, eb.Body.Attributes["at"].Expr.Range(), "Time goes back", "The events of a test stand in the order in which they are sealed: this one comes before the one above it.")
		}
		t.Events = append(t.Events, e)
	}
	if len(blocksOf(b.Body, "event"))+len(blocksOf(b.Body, "recorded")) == 0 {
		d.rep.err(CodeMissing, b.DefRange(), "Missing event", "A test needs at least one event or recorded block.")
	}
}

// recorded decodes a block that names a file of sealed entries.
func (d *testDecoder) recorded(b *hclsyntax.Block, t *Test) *TestEvent {
	if !d.shapeOf(b, testRecordedShape) {
		return nil
	}
	name := b.Labels[0]
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsAny(name, "\\\x00") {
		d.rep.err(CodeFile, b.LabelRanges[0], "File outside the bundle", fmt.Sprintf("%q must be a plain path inside the bundle directory, such as \"recorded/entries.jsonl\", without \"..\".", name))
		return nil
	}
	data, ok := d.loader.read(name, MaxListSize, &b.LabelRanges[0])
	if !ok {
		return nil
	}
	e := &TestEvent{Type: "recorded", At: -1, Recorded: data, Place: place(b.DefRange())}
	if at, ok := d.offset(b.Body, "at"); ok {
		e.At = at
	}
	if x := d.single(b.Body, "expect"); x != nil {
		e.Expect = d.expect(x, t)
	}
	return e
}

// eventArgs are the arguments of an event that are no fields.
var eventArgs = []string{"at", "repeat", "every"}

func (d *testDecoder) testEvent(b *hclsyntax.Block, t *Test) *TestEvent {
	e := &TestEvent{At: -1, Place: place(b.DefRange())}
	if len(b.Labels) != 1 {
		d.rep.err(CodeMissing, b.DefRange(), "Missing label", "Write event \"TYPE\" { ... }, such as event \"file.modify\" { ... }.")
		return nil
	}
	for _, nested := range b.Body.Blocks {
		if nested.Type != "expect" {
			d.rep.err(CodeUnknownBlock, nested.TypeRange, "Not a block", fmt.Sprintf("Fields are arguments: write %s = { ... }. The only block in an event is expect.", nested.Type))
		}
	}
	class, ok := d.eventType(b.Labels[0], b.LabelRanges[0])
	if !ok {
		return nil
	}
	e.Type = class.String()
	if at, ok := d.offset(b.Body, "at"); ok {
		e.At = at
	}
	times := d.number(d.env, b.Body, "repeat", 1, maxRepeat)
	e.Every, _ = d.offset(b.Body, "every")
	if x := d.single(b.Body, "expect"); x != nil {
		e.Expect = d.expect(x, t)
	}
	if t.Policy != nil && !policyTypes(t.Policy).Has(class) {
		d.rep.warn(CodeNoEffect, b.LabelRanges[0], "Event is not looked at", fmt.Sprintf("Policy %q does not judge %s events.", t.Policy.Name, class))
	}
	for i := range max(times, 1) {
		entry, again, ok := d.draft(class, b, i)
		if !ok {
			return nil
		}
		e.Entries = append(e.Entries, entry)
		if !again { // the others are the same
			for range times - 1 - i {
				e.Entries = append(e.Entries, entry)
			}
			break
		}
	}
	return e
}

func (d *testDecoder) eventType(name string, rng hcl.Range) (record.Class, bool) {
	c, err := record.ParseClass(name)
	if err == nil && event.IsSubject(c) {
		return c, true
	}
	fix := suggest(name, eventTypes())
	d.rep.errFix(CodeEventType, rng, quoteFix(fix), "Unknown event type", fmt.Sprintf("There is no event type %q that policies judge.%s", name, didYouMean(fix)))
	return 0, false
}

// draft makes the entry of an event block, the i-th of its repeats. again says
// that the next one differs.
func (d *testDecoder) draft(class record.Class, b *hclsyntax.Block, i int64) (out TestEntry, again, ok bool) {
	f := &fieldDecoder{testDecoder: d, draft: event.NewDraft(class)}
	f.ctx = d.env.consts.NewChild()
	f.ctx.Variables = map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(i)})}
	ok = true
	// In order of writing, so that mistakes are told in that order.
	attrs := keys(b.Body.Attributes)
	slices.SortFunc(attrs, func(x, y string) int {
		return b.Body.Attributes[x].SrcRange.Start.Byte - b.Body.Attributes[y].SrcRange.Start.Byte
	})
	for _, name := range attrs {
		a := b.Body.Attributes[name]
		if slices.Contains(eventArgs, name) {
			continue
		}
		again = again || usesEach(a.Expr)
		ok = f.value(hcl.Traversal{hcl.TraverseRoot{Name: name, SrcRange: a.NameRange}}, a.Expr) && ok
	}
	if !ok {
		return out, again, false
	}
	leaf, payload, err := f.draft.Entry()
	if err != nil {
		d.rep.err(CodeBadValue, b.DefRange(), "Impossible event", sentence(err))
		return out, again, false
	}
	return TestEntry{Leaf: leaf, Payload: payload}, again, true
}

// sentence makes an error of a draft a sentence.
func sentence(err error) string {
	s := strings.TrimSuffix(err.Error(), ": "+record.ErrReject.Error())
	if first, _, _ := strings.Cut(s, " "); strings.Contains(first, ".") {
		return "The field " + s + "."
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func usesEach(x hclsyntax.Expression) bool {
	return slices.ContainsFunc(x.Variables(), func(t hcl.Traversal) bool { return t.RootName() == "each" })
}

// fieldDecoder writes the fields of one event into a draft.
type fieldDecoder struct {
	*testDecoder
	draft *event.Draft
	ctx   *hcl.EvalContext
}

// value sets the field that t names, or the fields below it.
func (f *fieldDecoder) value(t hcl.Traversal, x hclsyntax.Expression) bool {
	if obj, ok := x.(*hclsyntax.ObjectConsExpr); ok && f.isGroup(t) {
		return f.object(t, obj)
	}
	r, p := resolve(t)
	if p != nil {
		if len(t) == 1 && p.fix == "" {
			if fix := suggest(t.RootName(), append(slices.Clone(eventArgs), schema.names...)); fix != "" {
				p.fix, p.detail = fix, p.detail+didYouMean(fix)
			}
		}
		f.rep.errFix(p.code, p.subject, p.fix, p.what, p.detail)
		return false
	}
	for _, v := range x.Variables() {
		if root := v.RootName(); root != "each" && root != "list" && root != "local" {
			f.rep.err(CodeBadValue, v.SourceRange(), "Value not constant", "The fields of an event are constants. In an event that repeats, each.index counts from 0.")
			return false
		}
	}
	val, diags := x.Value(f.ctx)
	if diags.HasErrors() {
		f.rep.adopt(CodeType, diags)
		return false
	}
	if val.IsNull() || !val.IsWhollyKnown() {
		f.rep.err(CodeNull, x.Range(), "Null value", fmt.Sprintf("A field that an event lacks is left out: remove %s.", r.info.Name))
		return false
	}
	v, ok := fieldValueOf(r.info, val)
	if !ok {
		detail := fmt.Sprintf("The field %s is a %s, and this is %s.", r.info.Name, r.info.Kind, describeType(val))
		switch r.info.Kind {
		case event.KindNumber:
			if val.Type() == cty.Number {
				detail = fmt.Sprintf("The field %s is a whole number from 0.", r.info.Name)
			}
		case event.KindProcesses:
			detail = fmt.Sprintf("The field %s is a list, the parent first, of objects with name, executable, pid and start, as in [{ name = \"bash\", executable = \"/usr/bin/bash\" }].", r.info.Name)
		}
		f.rep.err(CodeBadValue, x.Range(), "Wrong type of value", detail)
		return false
	}
	if err := f.draft.Set(r.info.Field, v); err != nil {
		f.rep.err(CodeBadValue, x.Range(), "Impossible value", sentence(err))
		return false
	}
	return true
}

// isGroup reports whether t names a group of fields, or nothing at all: then
// the names below it are looked up, and reported.
func (f *fieldDecoder) isGroup(t hcl.Traversal) bool {
	r, p := resolve(t)
	return p != nil && p.what == "Incomplete field" && r.info == nil
}

func (f *fieldDecoder) object(t hcl.Traversal, obj *hclsyntax.ObjectConsExpr) bool {
	ok := true
	for _, item := range obj.Items {
		key, diags := item.KeyExpr.Value(nil)
		if diags.HasErrors() || key.IsNull() || key.Type() != cty.String {
			f.rep.err(CodeBadValue, item.KeyExpr.Range(), "Invalid name", "The name of a field is a plain word, as in file = { path = \"/etc/passwd\" }.")
			ok = false
			continue
		}
		at := item.KeyExpr.Range()
		below := hcl.Traversal{hcl.TraverseRoot{Name: t.RootName(), SrcRange: at}}
		for _, s := range t[1:] {
			below = append(below, hcl.TraverseAttr{Name: s.(hcl.TraverseAttr).Name, SrcRange: at})
		}
		below = append(below, hcl.TraverseAttr{Name: key.AsString(), SrcRange: at})
		ok = f.value(below, item.ValueExpr) && ok
	}
	return ok
}

// fieldValueOf returns a value as a draft takes it.
func fieldValueOf(info *event.Info, v cty.Value) (any, bool) {
	switch info.Kind {
	case event.KindNumber:
		if v.Type() != cty.Number {
			return nil, false
		}
		return wholeUintOf(v)
	case event.KindBool:
		if v.Type() != cty.Bool {
			return nil, false
		}
		return v.True(), true
	case event.KindStrings:
		return textList(v)
	case event.KindProcesses:
		return processList(v)
	}
	if v.Type() != cty.String {
		return nil, false
	}
	return v.AsString(), true
}

func wholeUintOf(v cty.Value) (any, bool) {
	n, ok := wholeUint(v.AsBigFloat())
	return n, ok
}

func listLike(v cty.Value) bool {
	t := v.Type()
	return t.IsTupleType() || t.IsListType() || t.IsSetType()
}

func textList(v cty.Value) (any, bool) {
	if !listLike(v) {
		return nil, false
	}
	var all []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			return nil, false
		}
		all = append(all, e.AsString())
	}
	return all, len(all) > 0
}

// processList reads the members of process.ancestors, strictly.
func processList(v cty.Value) (any, bool) {
	if !listLike(v) {
		return nil, false
	}
	var all []event.Process
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || !e.Type().IsObjectType() {
			return nil, false
		}
		var p event.Process
		for name, val := range e.AsValueMap() {
			if val.IsNull() {
				return nil, false
			}
			text, number := val.Type() == cty.String, val.Type() == cty.Number
			switch {
			case name == "name" && text:
				p.Name = val.AsString()
			case name == "executable" && text:
				p.Executable = val.AsString()
			case name == "pid" && number:
				n, ok := wholeUint(val.AsBigFloat())
				if p.PID = n; !ok {
					return nil, false
				}
			case name == "start" && number:
				n, ok := wholeUint(val.AsBigFloat())
				if p.Start = n; !ok {
					return nil, false
				}
			default:
				return nil, false
			}
		}
		all = append(all, p)
	}
	return all, len(all) > 0
}
