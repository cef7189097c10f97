package policy

import (
	"math"
	"math/big"
	"sort"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

func (c *compiler) binary(x *hclsyntax.BinaryOpExpr) (term, bool) {
	switch x.Op {
	case hclsyntax.OpLogicalAnd:
		return c.junction(x, True)
	case hclsyntax.OpLogicalOr:
		return c.junction(x, False)
	case hclsyntax.OpEqual:
		return c.equality(x, false)
	case hclsyntax.OpNotEqual:
		return c.equality(x, true)
	case hclsyntax.OpLessThan, hclsyntax.OpLessThanOrEqual, hclsyntax.OpGreaterThan, hclsyntax.OpGreaterThanOrEqual:
		return c.ordering(x)
	}
	return c.fold(x) // arithmetic on fields has no closure
}

// operands returns the operands of a chain of one operator: HCL nests
// "a && b && c" to the left, however long it is.
func operands(x *hclsyntax.BinaryOpExpr) []hclsyntax.Expression {
	var all []hclsyntax.Expression
	stack := []hclsyntax.Expression{x}
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		inner := top
		for {
			p, ok := inner.(*hclsyntax.ParenthesesExpr)
			if !ok {
				break
			}
			inner = p.Expression
		}
		if b, ok := inner.(*hclsyntax.BinaryOpExpr); ok && b.Op == x.Op {
			stack = append(stack, b.RHS, b.LHS)
			continue
		}
		all = append(all, top)
	}
	return all
}

// junction compiles a chain of && (neutral True) or || (neutral False). The
// first operand that is not neutral decides, wherever it stands and whatever
// the others say: so the cheap ones go first. Failed is the answer only where
// none decides.
func (c *compiler) junction(x *hclsyntax.BinaryOpExpr, neutral Tri) (term, bool) {
	var terms []term
	for _, o := range operands(x) {
		t, ok := c.operand(o)
		if !ok {
			return term{}, false
		}
		terms = append(terms, t)
	}
	sort.SliceStable(terms, func(i, j int) bool { return terms[i].cost < terms[j].cost })
	out := term{cost: terms[0].cost + 1}
	fns := make([]boolFn, len(terms))
	guards := make([][]Guard, len(terms))
	for i, t := range terms {
		fns[i], guards[i] = t.b, t.guards
		out.fails = out.fails || t.fails
	}
	if neutral == True {
		out.guards = allOf(guards...)
	} else {
		out.guards = anyOf(guards...)
	}
	deciding := True - neutral
	if len(fns) == 2 {
		a, b := fns[0], fns[1]
		out.b = func(e *event.Event) Tri {
			x := a(e)
			if x == deciding {
				return deciding
			}
			if y := b(e); y != neutral {
				return y
			}
			return x
		}
		return out, true
	}
	out.b = func(e *event.Event) Tri {
		answer := neutral
		for _, f := range fns {
			switch f(e) {
			case deciding:
				return deciding
			case Failed:
				answer = Failed
			}
		}
		return answer
	}
	return out, true
}

func (c *compiler) equality(x *hclsyntax.BinaryOpExpr, negate bool) (term, bool) {
	l, ok1 := c.expr(x.LHS)
	r, ok2 := c.expr(x.RHS)
	if !ok1 || !ok2 {
		return term{}, false
	}
	if l.konst != nil {
		l, r = r, l
	}
	if l.konst != nil {
		return c.fold(x)
	}
	t, ok := equalTerm(l, r)
	if !ok {
		return term{}, false
	}
	if negate {
		t.guards = nil
		f := t.b
		t.b = func(e *event.Event) Tri {
			if v := f(e); v != Failed {
				return True - v
			}
			return Failed
		}
	}
	return t, true
}

// equalTerm compiles l == r, where l is not constant. Two missing values are
// equal, a missing and a present one are not.
func equalTerm(l, r term) (term, bool) {
	out := term{cost: l.cost + r.cost + 3, fails: l.fails || r.fails}
	switch {
	case r.isNull():
		switch {
		case l.s != nil:
			f := l.s
			out.b = func(e *event.Event) Tri { _, st := f(e); return isMissing(st) }
		case l.n != nil:
			f := l.n
			out.b = func(e *event.Event) Tri { _, st := f(e); return isMissing(st) }
		default:
			return term{}, false
		}
	case l.s != nil && r.isText():
		if want, ok := r.text(); ok {
			out.guards = l.from.texts(OpEqual, want)
			f := l.s
			out.b = func(e *event.Event) Tri {
				s, st := f(e)
				if st == failed {
					return Failed
				}
				return tri(st == present && s == want)
			}
			break
		}
		f, g := l.s, r.asText()
		out.b = func(e *event.Event) Tri {
			a, sa := f(e)
			b, sb := g(e)
			if sa == failed || sb == failed {
				return Failed
			}
			return tri(sa == sb && a == b)
		}
	case l.n != nil && r.konst != nil:
		v, ok := r.number()
		if !ok {
			return term{}, false
		}
		want, possible := wholeUint(v)
		if possible {
			out.guards = l.from.numbers(want)
		}
		f := l.n
		out.b = func(e *event.Event) Tri {
			n, st := f(e)
			if st == failed {
				return Failed
			}
			return tri(possible && st == present && n == want)
		}
	case l.n != nil && r.n != nil:
		f, g := l.n, r.n
		out.b = func(e *event.Event) Tri {
			a, sa := f(e)
			b, sb := g(e)
			if sa == failed || sb == failed {
				return Failed
			}
			return tri(sa == sb && (sa == missing || a == b))
		}
	case l.b != nil && r.isBool():
		f, g := l.b, r.asBool()
		out.b = func(e *event.Event) Tri {
			a, b := f(e), g(e)
			if a == Failed || b == Failed {
				return Failed
			}
			return tri(a == b)
		}
	default:
		return term{}, false
	}
	return out, true
}

func isMissing(st state) Tri {
	if st == failed {
		return Failed
	}
	return tri(st == missing)
}

// ordering compiles < <= > >=. A missing number is an error, as in HCL.
func (c *compiler) ordering(x *hclsyntax.BinaryOpExpr) (term, bool) {
	l, ok1 := c.expr(x.LHS)
	r, ok2 := c.expr(x.RHS)
	if !ok1 || !ok2 {
		return term{}, false
	}
	op := x.Op
	if l.konst != nil {
		if r.konst != nil {
			return c.fold(x)
		}
		l, r, op = r, l, mirrored(op)
	}
	out := term{cost: l.cost + r.cost + 3, fails: true}
	v, isConst := r.number()
	switch {
	case l.n != nil && isConst:
		out.b = compareUint(l.n, op, v)
	case l.f != nil && isConst:
		out.b = compareFloat(l.f, op, v)
	case l.n != nil && r.n != nil:
		f, g := l.n, r.n
		out.b = func(e *event.Event) Tri {
			a, sa := f(e)
			b, sb := g(e)
			if sa != present || sb != present {
				return Failed
			}
			switch op {
			case hclsyntax.OpLessThan:
				return tri(a < b)
			case hclsyntax.OpLessThanOrEqual:
				return tri(a <= b)
			case hclsyntax.OpGreaterThan:
				return tri(a > b)
			}
			return tri(a >= b)
		}
	default:
		return term{}, false
	}
	return out, true
}

func mirrored(op *hclsyntax.Operation) *hclsyntax.Operation {
	switch op {
	case hclsyntax.OpLessThan:
		return hclsyntax.OpGreaterThan
	case hclsyntax.OpLessThanOrEqual:
		return hclsyntax.OpGreaterThanOrEqual
	case hclsyntax.OpGreaterThan:
		return hclsyntax.OpLessThan
	}
	return hclsyntax.OpLessThanOrEqual
}

// compareUint compares whole numbers with any constant, exactly: it finds the
// least n for which "n >= v" ("n > v") holds.
func compareUint(f numFn, op *hclsyntax.Operation, v *big.Float) boolFn {
	strict := op == hclsyntax.OpGreaterThan || op == hclsyntax.OpLessThanOrEqual
	least, reachable := leastUint(v, strict)
	wantAbove := op == hclsyntax.OpGreaterThan || op == hclsyntax.OpGreaterThanOrEqual
	return func(e *event.Event) Tri {
		n, st := f(e)
		if st != present {
			return Failed
		}
		return tri((reachable && n >= least) == wantAbove)
	}
}

func leastUint(v *big.Float, strict bool) (uint64, bool) {
	if v.Sign() < 0 {
		return 0, true
	}
	if v.IsInf() {
		return 0, false
	}
	whole, accuracy := v.Int(nil) // towards zero
	if strict || accuracy != big.Exact {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Uint64(), whole.IsUint64()
}

func compareFloat(f floatFn, op *hclsyntax.Operation, v *big.Float) boolFn {
	below, above := floatBounds(v)
	return func(e *event.Event) Tri {
		n, st := f(e)
		if st != present {
			return Failed
		}
		switch op {
		case hclsyntax.OpLessThan:
			return tri(n < above)
		case hclsyntax.OpLessThanOrEqual:
			return tri(n <= below)
		case hclsyntax.OpGreaterThan:
			return tri(n > below)
		}
		return tri(n >= above)
	}
}

// floatBounds returns the nearest float64 values not above and not below v.
func floatBounds(v *big.Float) (below, above float64) {
	f, accuracy := v.Float64()
	switch accuracy {
	case big.Below:
		return f, math.Nextafter(f, math.Inf(1))
	case big.Above:
		return math.Nextafter(f, math.Inf(-1)), f
	}
	return f, f
}
