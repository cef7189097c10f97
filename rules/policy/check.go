package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// checker finds the mistakes of one expression before it is compiled. HCL
// itself would find many of them only when an event comes by, and some never.
type checker struct {
	env *env
	rep *report
	on  event.ClassSet // the types the expression is evaluated for
	// vmOnly allows only vm.* (target conditions).
	vmOnly bool
	oracle *oracle
	named  bool // every name is right, so that types can be trusted
	inLoop bool // inside a loop over a list of the event
	bad    bool
	fields map[event.Field]bool
}

// checkCondition reports what is wrong with an inlined condition and returns
// whether it may be compiled.
func checkCondition(x hclsyntax.Expression, v *env, on event.ClassSet, vmOnly bool) bool {
	c := &checker{env: v, rep: v.rep, on: on, vmOnly: vmOnly, fields: make(map[event.Field]bool)}
	c.named = c.names(x)
	c.oracle = newOracle(x, v)
	ctx := c.oracle.unknownContext(0)
	c.walk(x, ctx) // also where names are wrong: all mistakes in one run
	if c.bad {
		return false
	}
	val, diags := x.Value(ctx)
	if diags.HasErrors() {
		c.rep.adopt(CodeType, diags)
		return false
	}
	if val.Type() != cty.Bool || val.IsNull() {
		c.fail(CodeType, x.Range(), "Not a condition",
			"A condition must be true or false, and this is "+describeType(val)+". Compare it with something.")
		return false
	}
	c.decided(x, val)
	return !c.bad
}

func describeType(v cty.Value) string {
	if v.IsNull() {
		return "null"
	}
	if v.Type() == cty.DynamicPseudoType {
		return "of no known type"
	}
	return article(v.Type().FriendlyName())
}

func (c *checker) fail(code Code, rng hcl.Range, summary, detail string) {
	c.bad = true
	c.rep.err(code, rng, summary, detail)
}

func (c *checker) failFix(code Code, rng hcl.Range, fix, summary, detail string) {
	c.bad = true
	c.rep.errFix(code, rng, fix, summary, detail)
}

// names checks every name against the schema, wherever it stands: next to an
// operand that decides, HCL would never complain.
func (c *checker) names(x hclsyntax.Expression) bool {
	ok := true
	for _, t := range x.Variables() {
		root := t.RootName()
		switch root {
		case "list", "local":
			continue // checked when macros were put in place
		case "macro":
			c.fail(CodeUnknownName, t.SourceRange(), "Macro not allowed here", "A macro stands for a condition and cannot be part of a path.")
			ok = false
			continue
		}
		r, p := c.env.resolve(t)
		if p != nil {
			c.failFix(p.code, p.subject, p.fix, p.what, p.detail)
			ok = false
			continue
		}
		if c.vmOnly && root != "vm" {
			c.fail(CodeUnknownField, t.SourceRange(), "Field not allowed here",
				"A target selects VMs before any event is looked at, so its condition may read only vm.*. Move this part to the policy's condition.")
			ok = false
			continue
		}
		on := c.on
		if r.bound > 0 {
			on = r.on
		} else {
			c.fields[r.info.Field] = true
		}
		if !on.Empty() && !r.info.Classes.Intersects(on) {
			c.neverPresent(t, r, on)
			ok = false
		}
	}
	return ok
}

func (c *checker) neverPresent(t hcl.Traversal, r ref, on event.ClassSet) {
	detail := fmt.Sprintf("This reads %s, but no %s event carries it, so it is always missing.", r.info.Name, strings.Join(classNames(on.Classes()), " or "))
	carriers := classNames(r.info.Classes.Classes())
	if len(carriers) > 8 {
		carriers = append(carriers[:8], "...")
	}
	detail += " It is carried by: " + strings.Join(carriers, ", ") + "."
	c.fail(CodeNeverPresent, t.SourceRange(), "Field is never present", detail)
}

func classNames(classes []record.Class) []string {
	out := make([]string, len(classes))
	for i, k := range classes {
		out[i] = k.String()
	}
	return out
}

// decided reports conditions whose result does not depend on the event.
func (c *checker) decided(x hclsyntax.Expression, val cty.Value) {
	if val.IsKnown() {
		if val.False() {
			c.fail(CodeNeverTrue, x.Range(), "Condition is never true", "This condition is false for every event.")
		} else {
			c.rep.warn(CodeAlways, x.Range(), "Condition is always true", "This condition is true for every event. Leave it out if that is meant.")
		}
		return
	}
	classes := c.on.Classes()
	if c.env.scope.some && slices.ContainsFunc(classes, c.possible) {
		classes = slices.DeleteFunc(classes, func(k record.Class) bool { return !c.possible(k) })
	}
	for _, k := range classes {
		v, diags := c.oracle.unknown(k)
		if diags.HasErrors() {
			at := x.Range()
			if diags[0].Subject != nil {
				at = *diags[0].Subject
			}
			c.fail(CodeNeverTrue, at, "Condition cannot be decided",
				fmt.Sprintf("%s is missing from %s events, and what is missing cannot be compared by size: every such event would raise an error. Remove %q from \"on\", or write has(...) && ... first.",
					strings.Join(c.absent(k), ", "), k, k))
			continue
		}
		if v.IsKnown() && v.False() {
			c.fail(CodeNeverTrue, x.Range(), "Condition is never true",
				fmt.Sprintf("This condition reads %s, which %s events don't carry, so it could never match them. Remove %q from \"on\", or read one of: %s.",
					strings.Join(c.absent(k), ", "), k, k, strings.Join(rootsOf(k), ", ")))
		}
	}
}

// possible reports whether the condition can be true of events of class k, or
// an error.
func (c *checker) possible(k record.Class) bool {
	v, diags := c.oracle.unknown(k)
	return diags.HasErrors() || !v.IsKnown() || !v.False()
}

// absent returns the fields which the expression reads and events of class k
// lack.
func (c *checker) absent(k record.Class) []string {
	var all []string
	for f := range c.fields {
		if !f.Info().Classes.Has(k) {
			all = append(all, f.String())
		}
	}
	slices.Sort(all)
	return all
}

func rootsOf(k record.Class) []string {
	var all []string
	for _, f := range event.Fields {
		if f.Classes.Has(k) && !slices.Contains(all, f.Field.Root()) {
			all = append(all, f.Field.Root())
		}
	}
	return all
}

// typeOf is the static type of a part; cty.DynamicPseudoType where HCL does
// not know it, as for null.
func (c *checker) typeOf(x hclsyntax.Expression, ctx *hcl.EvalContext) cty.Type {
	v, diags := x.Value(ctx)
	if diags.HasErrors() {
		return cty.NilType // reported when the whole is evaluated
	}
	return v.Type()
}

func isNullLiteral(x hclsyntax.Expression) bool {
	for {
		p, ok := x.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		x = p.Expression
	}
	l, ok := x.(*hclsyntax.LiteralValueExpr)
	return ok && l.Val.IsNull()
}

func (c *checker) walk(x hclsyntax.Expression, ctx *hcl.EvalContext) {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		c.walk(x.Expression, ctx)
	case *hclsyntax.ScopeTraversalExpr:
		if info := c.fieldOf(x, ctx); info != nil && c.inLoop && isList(info) {
			c.listInLoop(info.Name, x.Range())
		}
	case *hclsyntax.SplatExpr:
		c.walk(x.Source, ctx)
	case *hclsyntax.BinaryOpExpr:
		c.binary(x, ctx)
	case *hclsyntax.UnaryOpExpr:
		c.walk(x.Val, ctx)
		want := x.Op.Type
		c.operand(x.Val, want, ctx)
	case *hclsyntax.ConditionalExpr:
		c.walk(x.Condition, ctx)
		c.walk(x.TrueResult, ctx)
		c.walk(x.FalseResult, ctx)
		c.operand(x.Condition, cty.Bool, ctx)
		if t := c.typeOf(x, ctx); t == cty.Bool && (isNullLiteral(x.TrueResult) || isNullLiteral(x.FalseResult)) {
			c.fail(CodeNull, x.Range(), "Truth value may be null", "Write true or false for both results.")
		}
	case *hclsyntax.FunctionCallExpr:
		for _, a := range x.Args {
			c.walk(a, ctx)
		}
		c.call(x, ctx)
	case *hclsyntax.TupleConsExpr:
		for _, e := range x.Exprs {
			c.walk(e, ctx)
		}
	case *hclsyntax.ForExpr:
		c.forExpr(x, ctx)
	case *hclsyntax.IndexExpr:
		c.fail(CodeNull, x.Range(), "Element may be missing", "Elements cannot be taken by position here. Write argv(n) for an argument, or anytrue([for a in ... : ...]).")
	case *hclsyntax.ObjectConsExpr:
		c.fail(CodeType, x.Range(), "Object not allowed", "Conditions know no objects; write the values where they are used.")
	case *hclsyntax.TemplateExpr:
		for _, p := range x.Parts {
			c.walk(p, ctx)
		}
	case *hclsyntax.TemplateWrapExpr:
		c.walk(x.Wrapped, ctx)
	}
}

// operand demands a type where HCL would convert: "true" is no condition.
func (c *checker) operand(x hclsyntax.Expression, want cty.Type, ctx *hcl.EvalContext) {
	if isNullLiteral(x) {
		c.fail(CodeNull, x.Range(), "Null where a value is needed", "Null is neither true nor false and no number. Use has(...) to ask whether a field is present.")
		return
	}
	t := c.typeOf(x, ctx)
	if t == cty.NilType || t.Equals(want) || t == cty.DynamicPseudoType {
		return
	}
	c.fail(CodeCrossType, x.Range(), "Wrong type of operand",
		fmt.Sprintf("This is a %s where a %s is needed.", t.FriendlyName(), want.FriendlyName()))
}

func (c *checker) binary(x *hclsyntax.BinaryOpExpr, ctx *hcl.EvalContext) {
	if x.Op == hclsyntax.OpLogicalAnd || x.Op == hclsyntax.OpLogicalOr {
		for _, o := range operands(x) {
			c.walk(o, ctx)
			c.operand(o, cty.Bool, ctx)
		}
		return
	}
	c.walk(x.LHS, ctx)
	c.walk(x.RHS, ctx)
	if x.Op == hclsyntax.OpEqual || x.Op == hclsyntax.OpNotEqual {
		c.equality(x, ctx)
		return
	}
	c.operand(x.LHS, cty.Number, ctx)
	c.operand(x.RHS, cty.Number, ctx)
}

func (c *checker) equality(x *hclsyntax.BinaryOpExpr, ctx *hcl.EvalContext) {
	l, r := c.typeOf(x.LHS, ctx), c.typeOf(x.RHS, ctx)
	if l == cty.NilType || r == cty.NilType {
		return
	}
	for _, side := range []struct {
		t cty.Type
		x hclsyntax.Expression
	}{{l, x.LHS}, {r, x.RHS}} {
		if side.t.IsListType() || side.t.IsTupleType() || side.t.IsObjectType() && c.named {
			c.fail(CodeCrossType, side.x.Range(), "Lists cannot be compared", "Use contains(list, value) or intersects(list, list).")
			return
		}
	}
	if l != cty.DynamicPseudoType && r != cty.DynamicPseudoType && !l.Equals(r) {
		outcome := "never be true"
		if x.Op == hclsyntax.OpNotEqual {
			outcome = "never be false"
		}
		c.fail(CodeCrossType, x.Range(), "Comparison can "+outcome,
			fmt.Sprintf("The left side is %s and the right side is %s. HCL does not convert between types for \"==\" and \"!=\".", article(l.FriendlyName()), article(r.FriendlyName())))
		return
	}
	side, other := x.LHS, x.RHS
	f := c.fieldOf(side, ctx)
	if f == nil {
		side, other = other, side
		f = c.fieldOf(side, ctx)
	}
	if f == nil {
		return
	}
	if s, ok := c.constText(other, ctx); ok {
		c.fieldConstant(f, s, other.Range())
	}
	if x.Op == hclsyntax.OpNotEqual && !isNullLiteral(other) && !c.isBound(side) && !c.on.Minus(f.Classes).Empty() {
		c.rep.warn(CodeMissingIsTrue, x.Range(), "Missing field is different",
			fmt.Sprintf("%s is missing from %s events, and a missing field is different from every value, so this is true for them. Add has(%s) if that is not meant.",
				f.Name, strings.Join(classNames(c.on.Minus(f.Classes).Classes()), ", "), f.Name))
	}
}

// fieldOf returns the field that x is, or nil.
func (c *checker) fieldOf(x hclsyntax.Expression, ctx *hcl.EvalContext) *event.Info {
	for {
		p, ok := x.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		x = p.Expression
	}
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if !ok || c.isLoopVariable(t.Traversal.RootName(), ctx) {
		return nil
	}
	r, p := c.env.resolve(t.Traversal)
	if p != nil || r.key != "" {
		return nil
	}
	return r.info
}

// isBound reports whether x is a value of an earlier event.
func (c *checker) isBound(x hclsyntax.Expression) bool {
	vars := x.Variables()
	return len(vars) == 1 && slices.Contains(scopeRoots, vars[0].RootName())
}

func (c *checker) isLoopVariable(name string, ctx *hcl.EvalContext) bool {
	for ; ctx.Parent() != nil; ctx = ctx.Parent() {
		if _, ok := ctx.Variables[name]; ok {
			return true
		}
	}
	return false
}

func (c *checker) constValue(x hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	v, diags := x.Value(ctx)
	return v, !diags.HasErrors() && v.IsWhollyKnown() && !v.IsNull()
}

func (c *checker) constText(x hclsyntax.Expression, ctx *hcl.EvalContext) (string, bool) {
	v, ok := c.constValue(x, ctx)
	if !ok || v.Type() != cty.String {
		return "", false
	}
	return v.AsString(), true
}

// fieldConstant refuses constants that a field can never hold.
func (c *checker) fieldConstant(f *event.Info, s string, rng hcl.Range) {
	if f.Enum != nil && !slices.Contains(f.Enum, s) {
		fix := suggest(s, f.Enum)
		c.failFix(CodeConstant, rng, quoteFix(fix), "Value is never taken",
			fmt.Sprintf("%s is never %q.%s It is one of: %s.", f.Name, s, didYouMean(fix), strings.Join(f.Enum, ", ")))
	}
	switch f.Field {
	case event.EventType:
		if k, err := record.ParseClass(s); err != nil || !event.IsSubject(k) {
			c.fail(CodeConstant, rng, "Value is never taken", fmt.Sprintf("There is no event type %q.", s))
		}
	case event.ProcessHashSHA256, event.ParentHashSHA256:
		if _, err := record.ParseHash(s); err != nil || strings.ToLower(s) != s {
			c.fail(CodeConstant, rng, "Value is never taken", "A SHA-256 digest is 64 lower-case hexadecimal digits.")
		}
	}
	if f.Kind == event.KindAddress {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			c.fail(CodeAddress, rng, "Invalid address", fmt.Sprintf("%q is not an IP address. For a prefix use in_cidr(%s, ...).", s, f.Name))
		case a.Unmap().WithZone("").String() != s:
			c.failFix(CodeAddress, rng, quoteFix(a.Unmap().WithZone("").String()), "Address not in canonical form",
				fmt.Sprintf("Addresses are compared as text; write %q.", a.Unmap().WithZone("")))
		}
	}
}

func quoteFix(s string) string {
	if s == "" {
		return ""
	}
	return `"` + s + `"`
}
