package policy

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// scope is what the expressions of one policy may read besides the event. The
// zero value: nothing.
type scope struct {
	policy *Policy
	steps  []*Step // the steps that came before, in order
	counts bool    // threshold.*
	some   bool    // the condition need not be able to hold of every type
}

// within returns v for expressions that may read s.
func (v *env) within(s scope) *env {
	c := *v
	c.scope = s
	return &c
}

var (
	countInfo  = &event.Info{Kind: event.KindNumber}
	windowInfo = &event.Info{Kind: event.KindString}
)

// scopeRoots are the names that a scope gives a meaning.
var scopeRoots = []string{"step", "threshold"}

// resolve finds what t names: a field, or a value of the scope.
func (v *env) resolve(t hcl.Traversal) (ref, *problem) {
	switch t.RootName() {
	case "step":
		return v.resolveStep(t)
	case "threshold":
		return v.resolveThreshold(t)
	}
	return resolve(t)
}

func (v *env) resolveThreshold(t hcl.Traversal) (ref, *problem) {
	if !v.scope.counts {
		return ref{}, &problem{code: CodeUnknownName, subject: t.SourceRange(), what: "No threshold here",
			detail: "The names threshold.count and threshold.window belong to the messages of a policy or an escalate block that has a threshold."}
	}
	switch name, _ := secondName(t); {
	case len(t) == 2 && name == "count":
		return v.capture(&Capture{Kind: CaptureCount, info: countInfo, name: "threshold.count"}), nil
	case len(t) == 2 && name == "window":
		return v.capture(&Capture{Kind: CaptureWindow, info: windowInfo, name: "threshold.window"}), nil
	}
	return ref{}, &problem{code: CodeUnknownName, subject: t.SourceRange(), what: "Unknown name",
		detail: "A threshold has: threshold.count, threshold.window."}
}

func (v *env) resolveStep(t hcl.Traversal) (ref, *problem) {
	fail := func(what, detail, fix string) (ref, *problem) {
		return ref{}, &problem{code: CodeUnknownName, subject: t.SourceRange(), what: what, detail: detail, fix: fix}
	}
	if len(v.scope.steps) == 0 {
		return fail("No earlier step", "The names step.NAME.* read the events of earlier steps of a sequence, and there is no earlier step here.", "")
	}
	var names []string
	for _, s := range v.scope.steps {
		names = append(names, s.Name)
	}
	name, ok := secondName(t)
	i := slices.Index(names, name)
	if !ok || i < 0 {
		fix := suggest(name, names)
		detail := "There is no earlier step \"" + name + "\"." + didYouMean(fix) + " Earlier steps are: " + strings.Join(names, ", ") + "."
		if fix != "" {
			fix = "step." + fix
		}
		return fail("Unknown step", detail, fix)
	}
	if len(t) == 2 {
		return fail("Incomplete name", "Write step."+name+".count, or a field of its event such as step."+name+".process.name.", "")
	}
	if a, ok := t[2].(hcl.TraverseAttr); ok && a.Name == "count" && len(t) == 3 {
		return v.capture(&Capture{Kind: CaptureTaken, Step: i, info: countInfo, name: "step." + name + ".count"}), nil
	}
	a, ok := t[2].(hcl.TraverseAttr)
	if !ok {
		return fail("Unknown name", "Write step."+name+".FIELD, such as step."+name+".process.name.", "")
	}
	field := append(hcl.Traversal{hcl.TraverseRoot{Name: a.Name, SrcRange: a.SrcRange}}, t[3:]...)
	r, p := resolve(field)
	if p != nil {
		p.subject = t.SourceRange()
		if p.fix != "" {
			p.fix = "step." + name + "." + p.fix
		}
		return ref{}, p
	}
	if k := r.info.Kind; k == event.KindStrings || k == event.KindProcesses {
		return fail("Not a single value", "Only single values of earlier steps are kept, and "+r.info.Name+" is a "+k.String()+".", "")
	}
	val := &Value{field: r.info.Field, key: r.key}
	out := v.capture(&Capture{Kind: CaptureField, Step: i, Value: val, info: r.info, name: "step." + name + "." + val.Name()})
	out.on = v.scope.steps[i].set
	return out, nil
}

// capture returns the reference to c, which the policy numbers once.
func (v *env) capture(c *Capture) ref {
	p := v.scope.policy
	i := slices.IndexFunc(p.Captures, func(o *Capture) bool { return o.name == c.name })
	if i < 0 {
		i = len(p.Captures)
		p.Captures = append(p.Captures, c)
	}
	key := ""
	if c.Value != nil {
		key = c.Value.key
	}
	return ref{info: c.info, key: key, bound: i + 1}
}

// boundTerm is the closure of a value that the engine lends.
func boundTerm(r ref) (term, bool) {
	i := r.bound - 1
	switch r.info.Kind {
	case event.KindNumber:
		return term{cost: 3, n: func(e *event.Event) (uint64, state) {
			if b := e.BoundAt(i); b.Present {
				return b.Num, present
			}
			return 0, missing
		}}, true
	case event.KindBool:
		return term{cost: 3, b: func(e *event.Event) Tri { return tri(e.BoundAt(i).Num != 0) }}, true
	}
	return term{cost: 3, s: func(e *event.Event) (string, state) {
		if b := e.BoundAt(i); b.Present {
			return b.Str, present
		}
		return "", missing
	}}, true
}

// boundType is the type of such a value to HCL.
func boundType(i *event.Info) cty.Type {
	if i.Kind == event.KindMap {
		return cty.String
	}
	return ctyType(i.Kind)
}

// boundSource gives the value of a capture: of an event, or an unknown one.
type boundSource func(r ref) cty.Value

func eventBound(e *event.Event) boundSource {
	return func(r ref) cty.Value {
		b := e.BoundAt(r.bound - 1)
		switch t := boundType(r.info); {
		case t == cty.Bool:
			return cty.BoolVal(b.Num != 0)
		case !b.Present:
			return cty.NullVal(t)
		case t == cty.Number:
			return cty.NumberUIntVal(b.Num)
		}
		return cty.StringVal(b.Str)
	}
}

func unknownBound(r ref) cty.Value {
	v := cty.UnknownVal(boundType(r.info))
	if r.info.Kind == event.KindBool || r.info == countInfo || r.info == windowInfo {
		v = v.RefineNotNull()
	}
	return v
}

// boundTree is the object of one root of the scope: the names that an
// expression reads, and no others.
type boundTree struct {
	leaf     *ref
	children map[string]*boundTree
}

func (b *boundTree) add(t hcl.Traversal, r ref) {
	at := b
	for _, step := range t[1:] {
		name := ""
		switch s := step.(type) {
		case hcl.TraverseAttr:
			name = s.Name
		case hcl.TraverseIndex:
			name = s.Key.AsString() // resolved, so it is one
		}
		if at.children == nil {
			at.children = make(map[string]*boundTree)
		}
		if at.children[name] == nil {
			at.children[name] = &boundTree{}
		}
		at = at.children[name]
	}
	at.leaf = &r
}

func (b *boundTree) object(get boundSource) cty.Value {
	if b.leaf != nil {
		return get(*b.leaf)
	}
	m := make(map[string]cty.Value, len(b.children))
	for name, c := range b.children {
		m[name] = c.object(get)
	}
	return cty.ObjectVal(m)
}
