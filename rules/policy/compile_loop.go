package policy

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// maxUnroll bounds the bodies that loops over constant lists make of one
// condition.
const maxUnroll = 10_000

// bools compiles anytrue (neutral False) and alltrue (neutral True). An error
// of any element is an error of the whole, for HCL evaluates all of them
// before it looks.
func (c *compiler) bools(x *hclsyntax.FunctionCallExpr, neutral Tri) (term, bool) {
	arg := x.Args[0]
	for {
		p, ok := arg.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		arg = p.Expression
	}
	switch arg := arg.(type) {
	case *hclsyntax.TupleConsExpr:
		return c.every(arg.Exprs, neutral)
	case *hclsyntax.ForExpr:
		return c.loop(arg, neutral)
	}
	return term{}, false
}

func (c *compiler) every(xs []hclsyntax.Expression, neutral Tri) (term, bool) {
	out := term{}
	fns := make([]boolFn, 0, len(xs))
	guards := make([][]Guard, 0, len(xs))
	for _, x := range xs {
		t, ok := c.operand(x)
		if !ok {
			return term{}, false
		}
		fns, guards = append(fns, t.b), append(guards, t.guards)
		out.cost += t.cost
		out.fails = out.fails || t.fails
	}
	out.guards = everyGuards(guards, neutral, out.fails)
	out.b = everyFn(fns, neutral)
	return out, true
}

// everyGuards: where an error of one decides whatever the others say, all of
// them being true is not the only way to be anything but false.
func everyGuards(guards [][]Guard, neutral Tri, fails bool) []Guard {
	switch {
	case len(guards) == 0:
		return nil
	case neutral == True && !fails:
		return allOf(guards...)
	}
	return anyOf(guards...)
}

func everyFn(fns []boolFn, neutral Tri) boolFn {
	return func(e *event.Event) Tri {
		answer := neutral
		for _, f := range fns {
			switch v := f(e); v {
			case Failed:
				return Failed
			case neutral:
			default:
				answer = v
			}
		}
		return answer
	}
}

func (c *compiler) loop(x *hclsyntax.ForExpr, neutral Tri) (term, bool) {
	if x.KeyVar != "" || x.KeyExpr != nil || x.Group {
		return term{}, false
	}
	if v, ok := c.constant(x.CollExpr); ok {
		return c.unroll(x, v, neutral)
	}
	src, ok := x.CollExpr.(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return term{}, false
	}
	for _, b := range c.scope {
		if b.konst == nil {
			return term{}, false // Event.Iter holds one position
		}
	}
	if _, shadowed := c.scope[src.Traversal.RootName()]; shadowed {
		return term{}, false
	}
	r, p := resolve(src.Traversal)
	if p != nil {
		return term{}, false
	}
	b := binding{list: r.info.Field, ancestor: r.info.Kind == event.KindProcesses}
	if !b.ancestor && r.info.Kind != event.KindStrings {
		return term{}, false
	}
	c.depth++
	body, cond, ok := c.body(x, b)
	c.depth--
	if !ok {
		return term{}, false
	}
	size := func(e *event.Event) int { return len(e.Strings(b.list)) }
	if b.ancestor {
		size = func(e *event.Event) int { return len(e.Ancestors()) }
	}
	return loopTerm(size, body, cond, neutral), true
}

// body compiles what a loop does with each element.
func (c *compiler) body(x *hclsyntax.ForExpr, b binding) (body, cond term, ok bool) {
	old, shadowed := c.scope[x.ValVar]
	oldCtx := c.ctx
	c.scope[x.ValVar] = b
	c.ctx = c.ctx.NewChild()
	c.ctx.Variables = map[string]cty.Value{x.ValVar: cty.DynamicVal}
	if b.konst != nil {
		c.ctx.Variables[x.ValVar] = *b.konst
	}
	defer func() {
		c.ctx = oldCtx
		delete(c.scope, x.ValVar)
		if shadowed {
			c.scope[x.ValVar] = old
		}
	}()
	if body, ok = c.operand(x.ValExpr); !ok {
		return body, cond, false
	}
	if x.CondExpr != nil {
		// HCL tries the filter with an unknown element first, so one that can
		// fail may fail even for an empty list: leave that to the oracle.
		cond, ok = c.operand(x.CondExpr)
		ok = ok && !cond.fails
	}
	return body, cond, ok
}

func loopTerm(size func(*event.Event) int, body, cond term, neutral Tri) term {
	early := !body.fails
	var guards []Guard
	if neutral == False { // of some element both must hold
		guards = allOf(body.guards, cond.guards)
	}
	return term{guards: guards, cost: 40 + 4*(body.cost+cond.cost), fails: !early, b: func(e *event.Event) Tri {
		answer := neutral
		for i := range size(e) {
			e.Iter = i
			if cond.b != nil && cond.b(e) != True {
				continue
			}
			switch v := body.b(e); v {
			case Failed:
				return Failed
			case neutral:
			default:
				if early {
					return v
				}
				answer = v
			}
		}
		return answer
	}}
}

// unroll compiles a loop over a constant list, once for each element.
func (c *compiler) unroll(x *hclsyntax.ForExpr, list cty.Value, neutral Tri) (term, bool) {
	if list.IsNull() || !list.CanIterateElements() || c.unrolled+list.LengthInt() > maxUnroll {
		return term{}, false
	}
	c.unrolled += list.LengthInt()
	// A part that falls back would lose the loop's variable.
	c.depth++
	defer func() { c.depth-- }()
	out := term{}
	var fns []boolFn
	var guards [][]Guard
	for it := list.ElementIterator(); it.Next(); {
		_, v := it.Element()
		body, cond, ok := c.body(x, binding{konst: &v})
		if !ok {
			return term{}, false
		}
		f := body.b
		if cond.b != nil {
			g := cond.b
			h := f
			f = func(e *event.Event) Tri {
				if g(e) != True {
					return neutral
				}
				return h(e)
			}
		}
		switch {
		case cond.b == nil:
			guards = append(guards, body.guards)
		case neutral == False:
			guards = append(guards, allOf(body.guards, cond.guards))
		default:
			guards = append(guards, nil)
		}
		fns = append(fns, f)
		out.cost += body.cost + cond.cost
		out.fails = out.fails || body.fails || cond.fails
	}
	out.guards = everyGuards(guards, neutral, out.fails)
	out.b = everyFn(fns, neutral)
	return out, true
}
