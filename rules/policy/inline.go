package policy

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxNodes bounds an expression after its macros were put in place, so that
// macros which double each other cannot exhaust memory.
const maxNodes = 20_000

// macro is a named condition.
type macro struct {
	name  string
	expr  hclsyntax.Expression
	rng   hcl.Range // of the label
	block hcl.Range
	used  bool
	state int // 0 new, 1 being put in place, 2 done
	done  hclsyntax.Expression
	size  int
	uses  map[string]bool // names of lists, locals and macros it reads
	bad   bool            // an error was reported
}

// local is a named constant.
type local struct {
	name  string
	expr  hclsyntax.Expression
	rng   hcl.Range
	used  bool
	state int
	uses  map[string]bool
}

// env is what conditions of one bundle may name besides fields.
type env struct {
	lists   map[string]*list
	locals  map[string]*local
	macros  map[string]*macro
	listVal cty.Value // object: name -> list of strings
	localV  map[string]cty.Value
	consts  *hcl.EvalContext // lists and locals, pure functions
	rep     *report
	scope   scope
}

// inliner replaces macro.* in one expression.
type inliner struct {
	env  *env
	uses map[string]bool
	size int
	bad  bool
}

// inline returns x with every macro replaced by its condition, and the names
// of the lists, locals and macros it reads. It returns nil after an error.
func (v *env) inline(x hclsyntax.Expression) (hclsyntax.Expression, map[string]bool) {
	in := &inliner{env: v, uses: make(map[string]bool)}
	out := in.expr(x)
	if in.size > maxNodes && !in.bad {
		in.bad = true
		v.rep.err(CodeTooComplex, x.Range(), "Expression too large",
			fmt.Sprintf("With its macros in place this expression has more than %d parts. Split the policy, or use a list.", maxNodes))
	}
	if in.bad {
		return nil, in.uses
	}
	return out, in.uses
}

func (in *inliner) exprs(xs []hclsyntax.Expression) []hclsyntax.Expression {
	out := make([]hclsyntax.Expression, len(xs))
	for i, x := range xs {
		out[i] = in.expr(x)
	}
	return out
}

// expr copies the nodes on the way to a macro and shares all others: one
// macro stands in many policies.
func (in *inliner) expr(x hclsyntax.Expression) hclsyntax.Expression {
	in.size++
	switch x := x.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		return in.traversal(x)
	case *hclsyntax.ParenthesesExpr:
		c := *x
		c.Expression = in.expr(x.Expression)
		return &c
	case *hclsyntax.BinaryOpExpr:
		c := *x
		c.LHS, c.RHS = in.expr(x.LHS), in.expr(x.RHS)
		return &c
	case *hclsyntax.UnaryOpExpr:
		c := *x
		c.Val = in.expr(x.Val)
		return &c
	case *hclsyntax.ConditionalExpr:
		c := *x
		c.Condition, c.TrueResult, c.FalseResult = in.expr(x.Condition), in.expr(x.TrueResult), in.expr(x.FalseResult)
		return &c
	case *hclsyntax.FunctionCallExpr:
		c := *x
		c.Args = in.exprs(x.Args)
		return &c
	case *hclsyntax.TupleConsExpr:
		c := *x
		c.Exprs = in.exprs(x.Exprs)
		return &c
	case *hclsyntax.ForExpr:
		c := *x
		c.CollExpr, c.KeyExpr, c.ValExpr, c.CondExpr = in.expr(x.CollExpr), in.optional(x.KeyExpr), in.expr(x.ValExpr), in.optional(x.CondExpr)
		return &c
	case *hclsyntax.SplatExpr:
		c := *x
		c.Source = in.expr(x.Source)
		return &c
	case *hclsyntax.IndexExpr:
		c := *x
		c.Collection, c.Key = in.expr(x.Collection), in.expr(x.Key)
		return &c
	case *hclsyntax.RelativeTraversalExpr:
		c := *x
		c.Source = in.expr(x.Source)
		return &c
	case *hclsyntax.TemplateExpr:
		c := *x
		c.Parts = in.exprs(x.Parts)
		return &c
	case *hclsyntax.TemplateWrapExpr:
		c := *x
		c.Wrapped = in.expr(x.Wrapped)
		return &c
	}
	return x
}

func (in *inliner) optional(x hclsyntax.Expression) hclsyntax.Expression {
	if x == nil {
		return nil
	}
	return in.expr(x)
}

func (in *inliner) traversal(x *hclsyntax.ScopeTraversalExpr) hclsyntax.Expression {
	root := x.Traversal.RootName()
	if root != "macro" && root != "list" && root != "local" {
		return x
	}
	name, ok := secondName(x.Traversal)
	if !ok {
		in.fail(CodeUnknownName, x.Traversal.SourceRange(), "", "Incomplete name", "Write "+root+".NAME.")
		return x
	}
	v := in.env
	in.uses[root+"."+name] = true
	switch root {
	case "list":
		if l, ok := v.lists[name]; ok {
			l.used = true
		} else {
			in.unknown(x, root, name, keys(v.lists))
		}
	case "local":
		if l, ok := v.locals[name]; ok {
			l.used = true
		} else {
			in.unknown(x, root, name, keys(v.locals))
		}
	case "macro":
		m, ok := v.macros[name]
		if !ok {
			in.unknown(x, root, name, keys(v.macros))
			return x
		}
		m.used = true
		if len(x.Traversal) > 2 {
			in.fail(CodeUnknownName, x.Traversal.SourceRange(), "", "Macro has no fields", "A macro is a condition: write macro."+name+" alone.")
			return x
		}
		return in.macro(x, m)
	}
	return x
}

func (in *inliner) macro(x *hclsyntax.ScopeTraversalExpr, m *macro) hclsyntax.Expression {
	if m.state == 1 {
		in.fail(CodeCycle, x.Traversal.SourceRange(), "", "Macro refers to itself", "The condition of macro \""+m.name+"\" leads back to itself.")
		return x
	}
	if m.state == 0 {
		m.state = 1
		sub := &inliner{env: in.env, uses: make(map[string]bool)}
		m.done = sub.expr(m.expr)
		m.uses, m.size, m.bad = sub.uses, sub.size, sub.bad
		m.state = 2
	}
	for u := range m.uses {
		in.uses[u] = true
	}
	in.bad = in.bad || m.bad
	if in.size += m.size; in.size > maxNodes {
		return x // reported by inline; do not grow any further
	}
	return &hclsyntax.ParenthesesExpr{Expression: m.done, SrcRange: x.SrcRange}
}

func (in *inliner) unknown(x *hclsyntax.ScopeTraversalExpr, root, name string, names []string) {
	s := suggest(name, names)
	detail := "There is no " + root + " \"" + name + "\" in this bundle." + didYouMean(s)
	if s == "" && len(names) > 0 && len(names) <= 12 {
		detail += " It has: " + strings.Join(names, ", ") + "."
	}
	fix := ""
	if s != "" {
		fix = root + "." + s
	}
	in.fail(CodeUnknownName, x.Traversal.SourceRange(), fix, "Unknown "+root, detail)
}

func (in *inliner) fail(code Code, rng hcl.Range, fix, summary, detail string) {
	in.bad = true
	in.env.rep.errFix(code, rng, fix, summary, detail)
}

// secondName returns the name after the root: x in macro.x or macro["x"].
func secondName(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	switch s := t[1].(type) {
	case hcl.TraverseAttr:
		return s.Name, true
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String && !s.Key.IsNull() {
			return s.Key.AsString(), true
		}
	}
	return "", false
}
