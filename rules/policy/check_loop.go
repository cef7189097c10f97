package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

func (c *checker) forExpr(x *hclsyntax.ForExpr, ctx *hcl.EvalContext) {
	c.walk(x.CollExpr, ctx)
	if x.KeyExpr != nil {
		c.fail(CodeType, x.Range(), "Object not allowed", "Only lists can be made here: [for a in ... : ...].")
		return
	}
	t := c.typeOf(x.CollExpr, ctx)
	if t == cty.NilType {
		return
	}
	elem := cty.DynamicPseudoType
	switch {
	case t.IsListType():
		elem = t.ElementType()
	case t.IsTupleType():
		if types := t.TupleElementTypes(); len(types) > 0 {
			elem = types[0]
			for _, other := range types {
				if !other.Equals(elem) {
					c.fail(CodeType, x.CollExpr.Range(), "List of mixed types", "All elements must have the same type.")
					return
				}
			}
		}
	default:
		c.fail(CodeType, x.CollExpr.Range(), "Not a list", "Only lists can be run over, and this is a "+t.FriendlyName()+".")
		return
	}
	child := ctx.NewChild()
	child.Variables = map[string]cty.Value{x.ValVar: cty.UnknownVal(elem)}
	if x.KeyVar != "" {
		child.Variables[x.KeyVar] = cty.UnknownVal(cty.Number)
	}
	for _, name := range []string{x.ValVar, x.KeyVar} {
		if _, taken := schema.children[name]; taken || name == "list" || name == "local" || name == "macro" || slices.Contains(scopeRoots, name) {
			c.fail(CodeDuplicate, x.Range(), "Name is taken", "The loop variable \""+name+"\" hides the fields "+name+".*. Choose another name.")
			return
		}
	}
	outer := c.inLoop
	defer func() { c.inLoop = outer }()
	if v, diags := x.CollExpr.Value(ctx); diags.HasErrors() || !v.IsWhollyKnown() {
		c.inLoop = true
	}
	for _, part := range []hclsyntax.Expression{x.ValExpr, x.CondExpr} {
		if part == nil || !c.loopNames(x.ValVar, elem, part) {
			continue
		}
		c.walk(part, child)
		if _, diags := part.Value(child); diags.HasErrors() && c.named {
			c.bad = true
			c.rep.adopt(CodeType, diags)
		}
	}
	if x.CondExpr != nil {
		c.operand(x.CondExpr, cty.Bool, child)
	}
}

// loopNames checks what a loop's body reads of the loop's variable.
func (c *checker) loopNames(name string, elem cty.Type, body hclsyntax.Expression) bool {
	ok := true
	for _, t := range body.Variables() {
		if t.RootName() != name {
			continue
		}
		if !elem.IsObjectType() {
			continue // a text: HCL refuses what follows it
		}
		names := keys(elem.AttributeTypes())
		attr, given := secondName(t)
		if !given || !elem.HasAttribute(attr) {
			ok = false
			fix := suggest(attr, names)
			detail := fmt.Sprintf("Each element has: %s.", strings.Join(names, ", "))
			if given {
				detail = fmt.Sprintf("An element has no %q.%s It has: %s.", attr, didYouMean(fix), strings.Join(names, ", "))
			}
			if fix != "" {
				fix = name + "." + fix
			}
			c.failFix(CodeUnknownField, t.SourceRange(), fix, "Unknown field", detail)
		}
	}
	return ok
}

func isList(f *event.Info) bool {
	return f.Kind == event.KindStrings || f.Kind == event.KindProcesses
}

// listInLoop refuses what would take time quadratic in what a guest sends: it
// decides how long its lists are (I8).
func (c *checker) listInLoop(what string, rng hcl.Range) {
	c.fail(CodeTooComplex, rng, "List inside a loop",
		"Inside a loop over a list of the event, no list of the event may be looked through again: a guest could make that take arbitrarily long. Write "+what+" outside the loop, or loop over a constant list.")
}
