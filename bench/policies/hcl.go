package main

import (
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// texts makes a function of two texts.
func texts(f func(a, b string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "a", Type: cty.String}, {Name: "b", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

// newHCL evaluates the conditions as the library does.
func newHCL(rules []rule) (evaluator, error) {
	patterns := make(map[string]*regexp.Regexp)
	functions := map[string]function.Function{
		"startswith": texts(strings.HasPrefix), "endswith": texts(strings.HasSuffix), "strcontains": texts(strings.Contains),
		"contains": stdlib.ContainsFunc,
		"matches": texts(func(a, b string) bool {
			if patterns[b] == nil {
				patterns[b] = regexp.MustCompile(b)
			}
			return patterns[b].MatchString(a)
		}),
	}
	expressions := make([]hcl.Expression, len(rules))
	for i := range rules {
		x, diags := hclsyntax.ParseExpression([]byte(rules[i].typed(rules[i].hcl)), "rule", hcl.InitialPos)
		if diags.HasErrors() {
			return nil, diags
		}
		expressions[i] = x
	}
	return func(e *sample) (int, error) {
		if e.cache == nil {
			e.cache = &hcl.EvalContext{Variables: object(e.fields), Functions: functions}
		}
		matched := 0
		for _, x := range expressions {
			v, diags := x.Value(e.cache.(*hcl.EvalContext))
			if diags.HasErrors() {
				return matched, diags
			}
			if v.True() {
				matched++
			}
		}
		return matched, nil
	}, nil
}

func object(m map[string]any) map[string]cty.Value {
	out := make(map[string]cty.Value, len(m))
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			out[k] = cty.ObjectVal(object(v))
		case string:
			out[k] = cty.StringVal(v)
		case int64:
			out[k] = cty.NumberIntVal(v)
		}
	}
	return out
}
