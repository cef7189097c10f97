package policy

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

func isPrivatePredicate(a netip.Addr) bool  { return isPrivate(a) }
func isExternalPredicate(a netip.Addr) bool { return isExternal(a) }

// address compiles a predicate of an address field, without making its text.
func (c *compiler) address(x *hclsyntax.FunctionCallExpr, f func(netip.Addr) bool) (term, bool) {
	a, ok := c.expr(x.Args[0])
	if !ok || !a.isIP {
		return term{}, false
	}
	field := a.addr
	return term{cost: 15, addr: field, b: func(e *event.Event) Tri {
		addr, ok := e.Addr(field)
		return tri(ok && f(addr))
	}}, true
}

func (c *compiler) inCIDR(x *hclsyntax.FunctionCallExpr) (term, bool) {
	v, ok := c.constant(x.Args[1])
	if !ok {
		return term{}, false
	}
	texts, err := constTexts(v)
	if err != nil {
		return term{}, false
	}
	set, err := makeRanges(texts)
	if err != nil {
		return term{}, false
	}
	t, ok := c.address(x, set.has)
	if ok {
		t.guards = from(t.addr).prefixes(texts)
	}
	return t, ok
}

func (c *compiler) portIn(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok1 := c.expr(x.Args[0])
	v, ok2 := c.constant(x.Args[1])
	if !ok1 || !ok2 || a.n == nil {
		return term{}, false
	}
	set, err := constPorts(v)
	if err != nil {
		return term{}, false
	}
	f := a.n
	return term{cost: a.cost + 5, fails: a.fails, guards: a.from.ports(set), b: func(e *event.Event) Tri {
		n, st := f(e)
		if st == failed {
			return Failed
		}
		return tri(st == present && inPorts(set, n))
	}}, true
}

func (c *compiler) has(x *hclsyntax.FunctionCallExpr) (term, bool) {
	t, ok := x.Args[0].(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return term{}, false
	}
	if _, isVar := c.scope[t.Traversal.RootName()]; isVar {
		a, ok := c.expr(t)
		if !ok || a.s == nil {
			return term{}, false
		}
		s := a.s
		return term{cost: 3, b: func(e *event.Event) Tri { _, st := s(e); return tri(st == present) }}, true
	}
	r, p := c.env.resolve(t.Traversal)
	if p != nil {
		return term{}, false
	}
	if i := r.bound - 1; i >= 0 {
		return term{cost: 1, b: func(e *event.Event) Tri { return tri(e.BoundAt(i).Present) }}, true
	}
	if r.key != "" {
		return term{cost: 20, b: func(e *event.Event) Tri { _, ok := e.Metadata(r.key); return tri(ok) }}, true
	}
	f := r.info.Field
	return term{cost: 1, b: func(e *event.Event) Tri { return tri(e.Has(f)) }}, true
}

func (c *compiler) argv(x *hclsyntax.FunctionCallExpr) (term, bool) {
	v, ok := c.constant(x.Args[0])
	if !ok || v.IsNull() || v.Type() != cty.Number {
		return term{}, false
	}
	n, ok := wholeUint(v.AsBigFloat())
	if !ok {
		return term{}, false
	}
	return term{cost: 4, from: from(event.ProcessArgs), s: func(e *event.Event) (string, state) {
		if args := e.Strings(event.ProcessArgs); n < uint64(len(args)) {
			return args[n], present
		}
		return "", missing
	}}, true
}

func (c *compiler) hasArg(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	if !ok || a.isNull() {
		return term{}, false
	}
	list, _ := fieldTerm(ref{info: event.ProcessArgs.Info()})
	return list.list.containing(a), true
}
