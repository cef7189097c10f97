package policy

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

// traversal compiles a field, a loop variable or a constant.
func (c *compiler) traversal(x *hclsyntax.ScopeTraversalExpr) (term, bool) {
	root := x.Traversal.RootName()
	if b, ok := c.scope[root]; ok {
		return c.variable(x, b)
	}
	if root == "list" || root == "local" {
		return c.fold(x)
	}
	r, p := c.env.resolve(x.Traversal)
	if p != nil {
		return term{}, false
	}
	if r.bound > 0 {
		return boundTerm(r)
	}
	return fieldTerm(r)
}

func fieldTerm(r ref) (term, bool) {
	f := r.info.Field
	switch r.info.Kind {
	case event.KindMap:
		k := r.key
		return term{cost: 20, s: func(e *event.Event) (string, state) {
			if s, ok := e.Metadata(k); ok {
				return event.Normalize(s), present
			}
			return "", missing
		}}, true
	case event.KindString:
		return term{cost: 2, s: textField(f), from: from(f)}, true
	case event.KindAddress:
		return term{cost: 50, s: textField(f), addr: f, isIP: true, from: from(f)}, true
	case event.KindNumber:
		return term{cost: 2, from: from(f), n: func(e *event.Event) (uint64, state) {
			if n, ok := e.Num(f); ok {
				return n, present
			}
			return 0, missing
		}}, true
	case event.KindBool:
		return term{cost: 2, b: func(e *event.Event) Tri { return tri(e.Bool(f)) }, guards: []Guard{{{Source: Source{Field: f}, Op: OpTrue}}}}, true
	case event.KindStrings:
		return term{cost: 20, list: &listTerm{field: f, whole: true, from: from(f),
			len: func(e *event.Event) int { return len(e.Strings(f)) },
			at:  func(e *event.Event, i int) (string, bool) { return e.Strings(f)[i], true }}}, true
	}
	return term{}, false
}

func textField(f event.Field) textFn {
	return func(e *event.Event) (string, state) {
		if s, ok := e.Str(f); ok {
			return s, present
		}
		return "", missing
	}
}

// variable compiles the variable of a loop: a constant, a string, or one
// attribute of an ancestor.
func (c *compiler) variable(x *hclsyntax.ScopeTraversalExpr, b binding) (term, bool) {
	if b.konst != nil {
		return c.fold(x)
	}
	if !b.ancestor {
		if len(x.Traversal) != 1 {
			return term{}, false
		}
		f := b.list
		return term{cost: 3, from: from(f), s: func(e *event.Event) (string, state) { return e.Strings(f)[e.Iter], present }}, true
	}
	name, ok := secondName(x.Traversal)
	if !ok || len(x.Traversal) != 2 {
		return term{}, false
	}
	switch name {
	case "name", "executable":
		get := ancestorText(name)
		return term{cost: 3, from: ancestorOrigin(name), s: func(e *event.Event) (string, state) {
			if s := get(&e.Ancestors()[e.Iter]); s != "" {
				return s, present
			}
			return "", missing
		}}, true
	case "pid":
		return term{cost: 3, n: func(e *event.Event) (uint64, state) { return e.Ancestors()[e.Iter].PID, present }}, true
	case "start":
		return term{cost: 3, n: func(e *event.Event) (uint64, state) { return e.Ancestors()[e.Iter].Start, present }}, true
	}
	return term{}, false
}

func ancestorOrigin(name string) origin {
	o := from(event.ProcessAncestors)
	if o.Part = PartExecutable; name == "name" {
		o.Part = PartName
	}
	return o
}

func ancestorText(name string) func(*event.Process) string {
	if name == "name" {
		return func(p *event.Process) string { return p.Name }
	}
	return func(p *event.Process) string { return p.Executable }
}

// splat compiles process.ancestors[*].name and .executable.
func (c *compiler) splat(x *hclsyntax.SplatExpr) (term, bool) {
	src, ok := x.Source.(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return c.fold(x)
	}
	if _, shadowed := c.scope[src.Traversal.RootName()]; shadowed {
		return term{}, false
	}
	r, p := resolve(src.Traversal)
	if p != nil || r.info.Field != event.ProcessAncestors {
		return c.fold(x)
	}
	each, ok := x.Each.(*hclsyntax.RelativeTraversalExpr)
	if !ok || each.Source != hclsyntax.Expression(x.Item) || len(each.Traversal) != 1 {
		return term{}, false
	}
	a, ok := each.Traversal[0].(hcl.TraverseAttr)
	if !ok || a.Name != "name" && a.Name != "executable" {
		return term{}, false
	}
	get := ancestorText(a.Name)
	return term{cost: 20, list: &listTerm{from: ancestorOrigin(a.Name),
		len: func(e *event.Event) int { return len(e.Ancestors()) },
		at: func(e *event.Event, i int) (string, bool) {
			s := get(&e.Ancestors()[i])
			return s, s != ""
		}}}, true
}
