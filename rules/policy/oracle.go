package policy

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// oracle evaluates one expression through cty, as HCL defines it.
type oracle struct {
	expr    hclsyntax.Expression
	env     *env
	roots   []string              // of fields it reads
	keys    []string              // of vm.metadata it reads
	bound   map[string]*boundTree // what it reads of the scope, by root
	ofEvent bool                  // it calls functions of the event
}

// newOracle finds out what x reads. Its names have been checked.
func newOracle(x hclsyntax.Expression, v *env) *oracle {
	o := &oracle{expr: x, env: v}
	roots, keySet := make(map[string]bool), make(map[string]bool)
	for _, t := range x.Variables() {
		root := t.RootName()
		if root == "list" || root == "local" {
			continue
		}
		r, p := v.resolve(t)
		if p == nil && r.bound > 0 {
			o.bind(root, t, r)
			continue
		}
		roots[root] = true
		if p == nil && r.key != "" {
			keySet[r.key] = true
		}
	}
	o.roots, o.keys = keys(roots), keys(keySet)
	hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if c, ok := n.(*hclsyntax.FunctionCallExpr); ok && functions[c.Name] != nil && functions[c.Name].ofEvent {
			o.ofEvent = true
		}
		return nil
	})
	return o
}

func (o *oracle) bind(root string, t hcl.Traversal, r ref) {
	if o.bound == nil {
		o.bound = make(map[string]*boundTree)
	}
	if o.bound[root] == nil {
		o.bound[root] = &boundTree{}
	}
	o.bound[root].add(t, r)
}

func (o *oracle) context(get source, object func(root string, b *branch) cty.Value, bound boundSource) *hcl.EvalContext {
	ctx := &hcl.EvalContext{Variables: make(map[string]cty.Value, len(o.roots)+2), Functions: pureFunctions}
	ctx.Variables["list"] = o.env.listVal
	ctx.Variables["local"] = cty.ObjectVal(o.env.localV)
	for _, r := range o.roots {
		if b := schema.children[r]; b != nil {
			ctx.Variables[r] = object(r, b)
		}
	}
	for root, tree := range o.bound {
		ctx.Variables[root] = tree.object(bound)
	}
	if o.ofEvent {
		ctx.Functions = o.functions(get)
	}
	return ctx
}

func (o *oracle) functions(get source) map[string]function.Function {
	return eventFunctions(get(event.ProcessArgs.Info()))
}

// of evaluates the expression for an event.
func (o *oracle) of(e *event.Event) (cty.Value, hcl.Diagnostics) {
	get := eventSource(e)
	meta := func(k string) cty.Value {
		if s, ok := e.Metadata(k); ok {
			return cty.StringVal(s)
		}
		return cty.NullVal(cty.String)
	}
	return o.expr.Value(o.context(get, func(_ string, b *branch) cty.Value { return b.object(get, meta, o.keys) }, eventBound(e)))
}

// unknown evaluates it for any event of class c; 0 for one that carries every
// field.
func (o *oracle) unknown(c record.Class) (cty.Value, hcl.Diagnostics) {
	return o.expr.Value(o.unknownContext(c))
}

func (o *oracle) unknownContext(c record.Class) *hcl.EvalContext {
	get := unknownSource(c)
	return o.context(get, func(root string, b *branch) cty.Value {
		if len(o.keys) > 0 { // of vm.metadata, which no table has
			return b.object(get, func(string) cty.Value { return cty.UnknownVal(cty.String) }, o.keys)
		}
		k := unknownKey{root, c}
		if v, ok := unknownObjects.Load(k); ok {
			return v.(cty.Value)
		}
		v := b.object(get, nil, nil)
		unknownObjects.Store(k, v)
		return v
	}, unknownBound)
}

// unknownObjects holds what all conditions are checked with: the fields of
// every root and event type, which are many and always the same.
var unknownObjects sync.Map // of cty.Value by unknownKey

type unknownKey struct {
	root  string
	class record.Class
}

// truth is the oracle's answer to a condition.
func (o *oracle) truth(e *event.Event) (bool, error) {
	v, diags := o.of(e)
	if diags.HasErrors() {
		return false, &EvalError{Diags: diags}
	}
	if v.IsNull() || !v.IsKnown() || v.Type() != cty.Bool {
		rng := o.expr.Range()
		return false, &EvalError{Diags: hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "No truth value",
			Detail: "The condition is neither true nor false.", Subject: &rng,
		}}}
	}
	return v.True(), nil
}

// EvalError says that a condition could not be decided for an event. It is
// never to be taken for "no match".
type EvalError struct{ Diags hcl.Diagnostics }

// Error describes the first problem in one line. It quotes no values of the
// event, which may be personal data.
func (e *EvalError) Error() string {
	var all []string
	for _, d := range e.Diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		s := d.Summary + ": " + strings.TrimSuffix(d.Detail, ".")
		if d.Subject != nil {
			s = fmt.Sprintf("%s:%d,%d: %s", d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column, s)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return "the condition could not be decided"
	}
	if len(all) > 1 {
		return fmt.Sprintf("%s (and %d more)", all[0], len(all)-1)
	}
	return all[0]
}

func keys[V any](m map[string]V) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}
