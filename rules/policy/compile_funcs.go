package policy

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

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
		return c.textPair(x, t, textOps[x.Name], false)
	}
	switch x.Name {
	case "startswith_i", "endswith_i", "strcontains_i", "equals_i":
		name := x.Name[:len(x.Name)-2]
		return c.textPair(x, textPredicates[name], textOps[name], true)
	case "matches", "matches_i":
		return c.pattern(x, compileRegexp, x.Name == "matches_i", 300)
	case "glob", "glob_i":
		return c.pattern(x, compileGlob, x.Name == "glob_i", 200)
	case "lower":
		return c.textMap(x, lower, origin.lowered)
	case "upper":
		return c.textMap(x, upper, nil)
	case "trimspace":
		return c.textMap(x, trimSpace, origin.cut)
	case "basename":
		return c.textMap(x, baseName, origin.cut)
	case "dirname":
		return c.textMap(x, dirName, nil)
	case "extension":
		return c.textMap(x, event.Extension, origin.cut)
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
	case "between", "hour", "weekday":
		return c.clock(x)
	case "base64_contains":
		return c.base64Contains(x)
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

// textOps are the atoms that the predicates of two texts make.
var textOps = map[string]Op{"startswith": OpPrefix, "endswith": OpSuffix, "strcontains": OpContains, "equals": OpEqual}

func (c *compiler) textPair(x *hclsyntax.FunctionCallExpr, f func(s, t string) bool, op Op, fold bool) (term, bool) {
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
			t := predicate(a, cost, func(s string) bool { return f(s, v) })
			t.guards = a.from.texts(op, v)
			return t, true
		}
		v = lower(v)
		t := predicate(a, cost, func(s string) bool { return f(lower(s), v) })
		t.guards = a.from.lowered().texts(op, v)
		return t, true
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
	t := predicate(a, cost, m.MatchString)
	if g, ok := m.(globMatcher); ok {
		t.guards = a.from.pattern(g.re.String(), false) // which says how it folds
	} else {
		t.guards = a.from.pattern(v.AsString(), fold)
	}
	return t, true
}

// textMap compiles a function from text to text; became, if any, says where
// its result comes from.
func (c *compiler) textMap(x *hclsyntax.FunctionCallExpr, f func(string) string, became func(origin) origin) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	if !ok || a.isNull() {
		return term{}, false
	}
	s := a.asText()
	var o origin
	if became != nil {
		o = became(a.from)
	}
	return term{cost: a.cost + 30, fails: a.fails, from: o, s: func(e *event.Event) (string, state) {
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
		t := predicate(b, 12, stringSet(list))
		t.guards = b.from.texts(OpEqual, list...)
		return t, true
	case a.konst != nil && b.n != nil:
		return containsNumber(*a.konst, b)
	case a.list != nil && b.isText():
		return a.list.containing(b), true
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
	return term{cost: t.cost + 5, fails: t.fails, guards: t.from.numbers(nums...), b: func(e *event.Event) Tri {
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

// containing makes a closure that is true where any element is the text.
func (l *listTerm) containing(t term) term {
	out := l.anyOf(t, func(have, want string) bool { return have == want })
	if want, ok := t.text(); ok {
		out.guards = l.from.texts(OpEqual, want)
	}
	return out
}

func (c *compiler) containsFold(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok1 := c.expr(x.Args[0])
	b, ok2 := c.textArg(x.Args[1])
	if !ok1 || !ok2 || b.isNull() {
		return term{}, false
	}
	if a.list != nil {
		t := a.list.anyOf(b, folded(textPredicates["equals"]))
		if want, ok := b.text(); ok {
			t.guards = a.list.from.lowered().texts(OpEqual, lower(want))
		}
		return t, true
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
	t := predicate(b, 60, func(s string) bool { return has(lower(s)) })
	t.guards = b.from.lowered().texts(OpEqual, low...)
	return t, true
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
	return term{cost: 60, guards: l.from.texts(OpEqual, list...), b: func(e *event.Event) Tri {
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

func (c *compiler) under(x *hclsyntax.FunctionCallExpr) (term, bool) {
	t, ok := c.textPair(x, under, OpUnder, false)
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
	t := predicate(a, 10*len(dirs)+5, func(s string) bool {
		for _, d := range dirs {
			if under(s, d) {
				return true
			}
		}
		return false
	})
	t.guards = a.from.texts(OpUnder, dirs...)
	return t, true
}
