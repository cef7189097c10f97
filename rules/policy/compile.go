package policy

import (
	"math/big"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// Tri is the answer of a closure.
type Tri uint8

// The answers. Failed means: ask the oracle.
const (
	False Tri = iota
	True
	Failed
)

// String returns the answer in a word.
func (t Tri) String() string { return [...]string{"false", "true", "an error"}[t] }

func tri(b bool) Tri {
	if b {
		return True
	}
	return False
}

// state says whether a text or number closure has a value.
type state uint8

const (
	missing state = iota
	present
	failed
)

type (
	boolFn  func(*event.Event) Tri
	textFn  func(*event.Event) (string, state)
	numFn   func(*event.Event) (uint64, state)
	floatFn func(*event.Event) (float64, state)
)

// term is a compiled expression: exactly one of its closures is set, or
// konst, or list.
type term struct {
	b     boolFn
	s     textFn
	n     numFn
	f     floatFn
	list  *listTerm
	konst *cty.Value
	addr  event.Field // with s: the address field it is the text of
	isIP  bool
	cost  int  // rough nanoseconds
	fails bool // it may answer Failed
	// guards, with b: each says when it may be anything but False.
	guards []Guard
	from   origin // with s and n: the field that it comes from
}

// listTerm is a list of strings that the event carries.
type listTerm struct {
	len func(*event.Event) int
	at  func(e *event.Event, i int) (string, bool) // false: null
	// field and whole say that it is a plain list field.
	field event.Field
	whole bool
	from  origin
}

// binding is what a loop variable stands for.
type binding struct {
	konst    *cty.Value
	list     event.Field // the list it runs over
	ancestor bool        // it runs over process.ancestors
}

type compiler struct {
	env      *env
	scope    map[string]binding
	depth    int         // loops around the part being compiled
	unrolled int         // bodies of loops over constants so far
	slow     []hcl.Range // parts without a closure
	ctx      *hcl.EvalContext
}

// compileCondition returns the closure of a checked, inlined expression.
func compileCondition(x hclsyntax.Expression, v *env) *Condition {
	c := &compiler{env: v, scope: make(map[string]binding), ctx: v.consts}
	o := newOracle(x, v)
	t := c.truth(x)
	return &Condition{oracle: o, fn: t.b, slow: c.slow, guards: t.guards}
}

// Condition is a compiled condition.
type Condition struct {
	oracle *oracle
	fn     boolFn
	slow   []hcl.Range
	guards []Guard
}

// Eval reports whether the condition is true of e. A nil Condition is true of
// everything. An error is an *EvalError.
func (c *Condition) Eval(e *event.Event) (bool, error) {
	if c == nil {
		return true, nil
	}
	switch c.fn(e) {
	case True:
		return true, nil
	case False:
		return false, nil
	}
	return c.oracle.truth(e)
}

// Closure is the answer of the closures alone.
func (c *Condition) Closure(e *event.Event) Tri { return c.fn(e) }

// Oracle is the answer of HCL's own evaluation, for differential tests and
// explanations. It is some hundred times slower than Eval.
func (c *Condition) Oracle(e *event.Event) (bool, error) { return c.oracle.truth(e) }

// Guards returns what must hold of an event for the condition to be anything
// but false of it: each of them does, so that any may be chosen. None means
// that the condition is to be evaluated for every event. The caller must not
// change them.
func (c *Condition) Guards() []Guard {
	if c == nil {
		return nil
	}
	return c.guards
}

// Disagreement says how the closures and HCL's own evaluation differ on e, or
// "" where they do not. It quotes no values of the event.
func (c *Condition) Disagreement(e *event.Event) string {
	if c == nil {
		return ""
	}
	got := c.fn(e)
	if got == Failed {
		return "" // Eval asks HCL
	}
	want, err := c.oracle.truth(e)
	switch {
	case err != nil:
		return "compiled it is " + got.String() + ", by HCL an error: " + err.Error()
	case want != (got == True):
		return "compiled it is " + got.String() + ", by HCL " + tri(want).String()
	}
	return ""
}

// Slow returns the places of the parts that have no closure and are evaluated
// through cty.
func (c *Condition) Slow() []hcl.Range { return c.slow }

const slowCost = 20_000

// truth compiles an expression where a true/false value is wanted. What has no
// closure becomes a call of the oracle for just that part.
func (c *compiler) truth(x hclsyntax.Expression) term {
	if t, ok := c.expr(x); ok {
		if t.b != nil {
			return t
		}
		if t.konst != nil && t.konst.Type() == cty.Bool && t.konst.IsKnown() && !t.konst.IsNull() {
			return constTerm(t.konst.True())
		}
	}
	return c.fallback(x)
}

func constTerm(v bool) term {
	t := tri(v)
	out := term{b: func(*event.Event) Tri { return t }}
	if !v {
		out.guards = []Guard{{}}
	}
	return out
}

func (c *compiler) fallback(x hclsyntax.Expression) term {
	c.slow = append(c.slow, x.Range())
	o := newOracle(x, c.env)
	return term{cost: slowCost, fails: true, b: func(e *event.Event) Tri {
		v, err := o.truth(e)
		if err != nil {
			return Failed
		}
		return tri(v)
	}}
}

// expr compiles x, or reports that it has no closure.
func (c *compiler) expr(x hclsyntax.Expression) (term, bool) {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.expr(x.Expression)
	case *hclsyntax.LiteralValueExpr:
		return term{konst: &x.Val}, true
	case *hclsyntax.TemplateWrapExpr:
		return c.expr(x.Wrapped)
	case *hclsyntax.BinaryOpExpr:
		return c.binary(x)
	case *hclsyntax.UnaryOpExpr:
		return c.unary(x)
	case *hclsyntax.ConditionalExpr:
		return c.conditional(x)
	case *hclsyntax.ScopeTraversalExpr:
		return c.traversal(x)
	case *hclsyntax.FunctionCallExpr:
		return c.call(x)
	case *hclsyntax.SplatExpr:
		return c.splat(x)
	}
	return c.fold(x)
}

// fold evaluates an expression that reads only constants.
func (c *compiler) fold(x hclsyntax.Expression) (term, bool) {
	for _, t := range x.Variables() {
		root := t.RootName()
		if b, ok := c.scope[root]; ok {
			if b.konst == nil {
				return term{}, false
			}
		} else if root != "list" && root != "local" {
			return term{}, false
		}
	}
	dynamic := false
	hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok {
			if f := functions[call.Name]; f == nil || f.ofEvent {
				dynamic = true
			}
		}
		return nil
	})
	if dynamic {
		return term{}, false
	}
	v, diags := x.Value(c.ctx)
	if diags.HasErrors() || !v.IsWhollyKnown() {
		return term{}, false // the oracle repeats the error for each event
	}
	return term{konst: &v}, true
}

// constant returns the value of x where it reads only constants.
func (c *compiler) constant(x hclsyntax.Expression) (cty.Value, bool) {
	t, ok := c.fold(x)
	if !ok || t.konst == nil {
		return cty.NilVal, false
	}
	return *t.konst, true
}

func (c *compiler) unary(x *hclsyntax.UnaryOpExpr) (term, bool) {
	if x.Op != hclsyntax.OpLogicalNot {
		return c.fold(x)
	}
	// An operand without a closure falls back alone, if no loop variable is in
	// the way.
	t, ok := c.operand(x.Val)
	if !ok {
		return term{}, false
	}
	f := t.b
	return term{cost: t.cost, fails: t.fails, b: func(e *event.Event) Tri {
		switch f(e) {
		case True:
			return False
		case False:
			return True
		}
		return Failed
	}}, true
}

// operand compiles a true/false operand. Inside a loop nothing may fall back:
// the oracle of a part would not know the loop's variable.
func (c *compiler) operand(x hclsyntax.Expression) (term, bool) {
	if c.depth == 0 {
		return c.truth(x), true
	}
	t, ok := c.expr(x)
	if !ok {
		return term{}, false
	}
	if t.b != nil {
		return t, true
	}
	if t.konst != nil && t.konst.Type() == cty.Bool && !t.konst.IsNull() {
		return constTerm(t.konst.True()), true
	}
	return term{}, false
}

func (c *compiler) conditional(x *hclsyntax.ConditionalExpr) (term, bool) {
	if t, ok := c.fold(x); ok {
		return t, true
	}
	cond, ok1 := c.operand(x.Condition)
	yes, ok2 := c.expr(x.TrueResult)
	no, ok3 := c.expr(x.FalseResult)
	if !ok1 || !ok2 || !ok3 {
		return term{}, false
	}
	t := term{cost: cond.cost + max(yes.cost, no.cost), fails: true}
	switch {
	case yes.isBool() && no.isBool():
		y, n := yes.asBool(), no.asBool()
		t.b = func(e *event.Event) Tri {
			switch cond.b(e) {
			case True:
				return y(e)
			case False:
				return n(e)
			}
			return Failed
		}
	case yes.isText() && no.isText():
		y, n := yes.asText(), no.asText()
		t.s = func(e *event.Event) (string, state) {
			switch cond.b(e) {
			case True:
				return y(e)
			case False:
				return n(e)
			}
			return "", failed
		}
	default:
		return term{}, false
	}
	return t, true
}

func (t *term) isBool() bool {
	return t.b != nil || t.konst != nil && t.konst.Type() == cty.Bool && !t.konst.IsNull()
}

func (t *term) asBool() boolFn {
	if t.b != nil {
		return t.b
	}
	v := tri(t.konst.True())
	return func(*event.Event) Tri { return v }
}

func (t *term) isText() bool {
	return t.s != nil || t.konst != nil && t.konst.Type() == cty.String
}

func (t *term) asText() textFn {
	if t.s != nil {
		return t.s
	}
	if t.konst.IsNull() {
		return func(*event.Event) (string, state) { return "", missing }
	}
	v := t.konst.AsString()
	return func(*event.Event) (string, state) { return v, present }
}

// text returns the value of a constant string.
func (t *term) text() (string, bool) {
	if t.konst == nil || t.konst.Type() != cty.String || t.konst.IsNull() {
		return "", false
	}
	return t.konst.AsString(), true
}

func (t *term) isNull() bool { return t.konst != nil && t.konst.IsNull() }

// number returns the value of a constant number.
func (t *term) number() (*big.Float, bool) {
	if t.konst == nil || t.konst.Type() != cty.Number || t.konst.IsNull() {
		return nil, false
	}
	return t.konst.AsBigFloat(), true
}
