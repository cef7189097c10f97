package policy

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// maxUnroll bounds the bodies that loops over constant lists make of one
// condition.
const maxUnroll = 10_000

// call compiles a function call whose arguments the checker has accepted.
func (c *compiler) call(x *hclsyntax.FunctionCallExpr) (term, bool) {
	f := functions[x.Name]
	if f == nil || len(x.Args) != len(f.params) {
		return term{}, false
	}
	if t, ok := c.fold(x); ok {
		return t, true
	}
	if t, ok := textPredicates[x.Name]; ok {
		return c.textPair(x, t, false)
	}
	switch x.Name {
	case "startswith_i", "endswith_i", "strcontains_i", "equals_i":
		return c.textPair(x, textPredicates[x.Name[:len(x.Name)-2]], true)
	case "matches", "matches_i":
		return c.pattern(x, compileRegexp, x.Name == "matches_i", 300)
	case "glob", "glob_i":
		return c.pattern(x, compileGlob, x.Name == "glob_i", 200)
	case "lower":
		return c.textMap(x, lower)
	case "upper":
		return c.textMap(x, upper)
	case "trimspace":
		return c.textMap(x, trimSpace)
	case "basename":
		return c.textMap(x, baseName)
	case "dirname":
		return c.textMap(x, dirName)
	case "extension":
		return c.textMap(x, event.Extension)
	case "length":
		return c.length(x)
	case "entropy":
		return c.entropy(x)
	case "contains":
		return c.contains(x)
	case "contains_i":
		return c.containsFold(x)
	case "intersects":
		return c.intersects(x)
	case "anytrue":
		return c.bools(x, False)
	case "alltrue":
		return c.bools(x, True)
	case "under":
		return c.under(x)
	case "under_any":
		return c.underAny(x)
	case "in_cidr":
		return c.inCIDR(x)
	case "is_private":
		return c.address(x, isPrivatePredicate)
	case "is_external":
		return c.address(x, isExternalPredicate)
	case "port_in":
		return c.portIn(x)
	case "has":
		return c.has(x)
	case "argv":
		return c.argv(x)
	case "has_arg":
		return c.hasArg(x)
	}
	return term{}, false
}

func (c *compiler) textArg(x hclsyntax.Expression) (term, bool) {
	t, ok := c.expr(x)
	return t, ok && (t.isText() || t.isNull())
}

// predicate makes a closure that is false of a missing text.
func predicate(t term, cost int, f func(string) bool) term {
	s := t.asText()
	return term{cost: t.cost + cost, fails: t.fails, b: func(e *event.Event) Tri {
		v, st := s(e)
		switch st {
		case present:
			return tri(f(v))
		case missing:
			return False
		}
		return Failed
	}}
}

func constFalse() term {
	return term{b: func(*event.Event) Tri { return False }}
}

func (c *compiler) textPair(x *hclsyntax.FunctionCallExpr, f func(s, t string) bool, fold bool) (term, bool) {
	a, ok1 := c.textArg(x.Args[0])
	b, ok2 := c.textArg(x.Args[1])
	if !ok1 || !ok2 {
		return term{}, false
	}
	if a.isNull() || b.isNull() {
		return term{}, false // rare: the oracle knows
	}
	cost := 5
	if fold {
		cost = 60
	}
	if v, ok := b.text(); ok {
		if !fold {
			return predicate(a, cost, func(s string) bool { return f(s, v) }), true
		}
		v = lower(v)
		return predicate(a, cost, func(s string) bool { return f(lower(s), v) }), true
	}
	if fold {
		f = folded(f)
	}
	s, t := a.asText(), b.asText()
	return term{cost: a.cost + b.cost + cost, fails: a.fails || b.fails, b: func(e *event.Event) Tri {
		v, st := s(e)
		w, su := t(e)
		if st == failed || su == failed {
			return Failed
		}
		return tri(st == present && su == present && f(v, w))
	}}, true
}

func (c *compiler) pattern(x *hclsyntax.FunctionCallExpr, compile func(string, bool) (matcher, error), fold bool, cost int) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	v, isConst := c.constant(x.Args[1])
	if !ok || a.isNull() || !isConst || v.IsNull() || v.Type() != cty.String {
		return term{}, false
	}
	m, err := compile(v.AsString(), fold)
	if err != nil {
		return term{}, false // the checker has reported it
	}
	return predicate(a, cost, m.MatchString), true
}

func (c *compiler) textMap(x *hclsyntax.FunctionCallExpr, f func(string) string) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	if !ok || a.isNull() {
		return term{}, false
	}
	s := a.asText()
	return term{cost: a.cost + 30, fails: a.fails, s: func(e *event.Event) (string, state) {
		v, st := s(e)
		if st != present {
			return "", st
		}
		return f(v), present
	}}, true
}

func (c *compiler) length(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.expr(x.Args[0])
	if !ok {
		return term{}, false
	}
	switch {
	case a.list != nil:
		f := a.list.len
		return term{cost: 5, n: func(e *event.Event) (uint64, state) { return uint64(f(e)), present }}, true
	case a.s != nil:
		s := a.s
		return term{cost: a.cost + 20, fails: a.fails, n: func(e *event.Event) (uint64, state) {
			v, st := s(e)
			if st == failed {
				return 0, failed
			}
			return runeCount(v), present
		}}, true
	}
	return term{}, false
}

func (c *compiler) entropy(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	if !ok || a.s == nil {
		return term{}, false
	}
	s := a.s
	return term{cost: a.cost + 500, fails: a.fails, f: func(e *event.Event) (float64, state) {
		v, st := s(e)
		if st == failed {
			return 0, failed
		}
		return entropy(v), present
	}}, true
}

// stringSet is a constant set of strings. Small ones are searched, which is
// quicker than hashing.
func stringSet(list []string) func(string) bool {
	if len(list) <= 4 {
		return func(s string) bool { return contains(list, s) }
	}
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return func(s string) bool { _, ok := set[s]; return ok }
}

func (c *compiler) contains(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok1 := c.expr(x.Args[0])
	b, ok2 := c.expr(x.Args[1])
	if !ok1 || !ok2 || b.isNull() {
		return term{}, false
	}
	switch {
	case a.konst != nil && b.s != nil:
		list, err := constTexts(*a.konst)
		if err != nil || a.konst.Type() == cty.String {
			return term{}, false
		}
		return predicate(b, 12, stringSet(list)), true
	case a.konst != nil && b.n != nil:
		return containsNumber(*a.konst, b)
	case a.list != nil && b.isText():
		return a.list.anyOf(b, func(have, want string) bool { return have == want }), true
	}
	return term{}, false
}

func containsNumber(list cty.Value, t term) (term, bool) {
	var nums []uint64
	for _, v := range elements(list) {
		if v.Type() != cty.Number {
			return term{}, false
		}
		if n, ok := wholeUint(v.AsBigFloat()); ok {
			nums = append(nums, n)
		}
	}
	f := t.n
	return term{cost: t.cost + 5, fails: t.fails, b: func(e *event.Event) Tri {
		n, st := f(e)
		if st == failed {
			return Failed
		}
		if st == present {
			for _, m := range nums {
				if m == n {
					return True
				}
			}
		}
		return False
	}}, true
}

// anyOf makes a closure that is true where same holds for any element.
func (l *listTerm) anyOf(t term, same func(have, want string) bool) term {
	s := t.asText()
	return term{cost: t.cost + 30, fails: t.fails, b: func(e *event.Event) Tri {
		want, st := s(e)
		switch st {
		case failed:
			return Failed
		case missing:
			return False
		}
		for i := range l.len(e) {
			if have, ok := l.at(e, i); ok && same(have, want) {
				return True
			}
		}
		return False
	}}
}

func (c *compiler) containsFold(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok1 := c.expr(x.Args[0])
	b, ok2 := c.textArg(x.Args[1])
	if !ok1 || !ok2 || b.isNull() {
		return term{}, false
	}
	if a.list != nil {
		return a.list.anyOf(b, folded(textPredicates["equals"])), true
	}
	if a.konst == nil || b.s == nil {
		return term{}, false
	}
	list, err := constTexts(*a.konst)
	if err != nil {
		return term{}, false
	}
	low := make([]string, len(list))
	for i, s := range list {
		low[i] = lower(s)
	}
	has := stringSet(low)
	return predicate(b, 60, func(s string) bool { return has(lower(s)) }), true
}

func (c *compiler) intersects(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok1 := c.expr(x.Args[0])
	b, ok2 := c.expr(x.Args[1])
	if !ok1 || !ok2 {
		return term{}, false
	}
	if a.list == nil {
		a, b = b, a
	}
	if a.list != nil && b.list != nil {
		return intersectLists(a.list, b.list), true
	}
	if a.list == nil || b.konst == nil {
		return term{}, false
	}
	list, err := constTexts(*b.konst)
	if err != nil {
		return term{}, false
	}
	has, l := stringSet(list), a.list
	return term{cost: 60, b: func(e *event.Event) Tri {
		for i := range l.len(e) {
			if s, ok := l.at(e, i); ok && has(s) {
				return True
			}
		}
		return False
	}}, true
}

// intersectLists compares two lists of the event by a set: a guest decides
// how long both are.
func intersectLists(a, b *listTerm) term {
	return term{cost: 2_000, b: func(e *event.Event) Tri {
		if a.len(e) == 0 || b.len(e) == 0 {
			return False
		}
		set := make(map[string]struct{}, a.len(e))
		for i := range a.len(e) {
			if s, ok := a.at(e, i); ok {
				set[s] = struct{}{}
			}
		}
		for i := range b.len(e) {
			if s, ok := b.at(e, i); ok {
				if _, both := set[s]; both {
					return True
				}
			}
		}
		return False
	}}
}

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
	for _, x := range xs {
		t, ok := c.operand(x)
		if !ok {
			return term{}, false
		}
		fns = append(fns, t.b)
		out.cost += t.cost
		out.fails = out.fails || t.fails
	}
	out.b = everyFn(fns, neutral)
	return out, true
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
	return term{cost: 40 + 4*(body.cost+cond.cost), fails: !early, b: func(e *event.Event) Tri {
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
		fns = append(fns, f)
		out.cost += body.cost + cond.cost
		out.fails = out.fails || body.fails || cond.fails
	}
	out.b = everyFn(fns, neutral)
	return out, true
}

func (c *compiler) under(x *hclsyntax.FunctionCallExpr) (term, bool) {
	t, ok := c.textPair(x, under, false)
	t.cost += 10
	return t, ok
}

func (c *compiler) underAny(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	v, isConst := c.constant(x.Args[1])
	if !ok || a.isNull() || !isConst {
		return term{}, false
	}
	dirs, err := constTexts(v)
	if err != nil {
		return term{}, false
	}
	return predicate(a, 10*len(dirs)+5, func(s string) bool {
		for _, d := range dirs {
			if under(s, d) {
				return true
			}
		}
		return false
	}), true
}
