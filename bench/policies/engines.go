package main

import (
	"context"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

func newCEL(rules []rule) (evaluator, error) {
	var vars []cel.EnvOption
	for _, root := range []string{"event", "process", "user", "file", "destination"} {
		vars = append(vars, cel.Variable(root, cel.MapType(cel.StringType, cel.DynType)))
	}
	env, err := cel.NewEnv(vars...)
	if err != nil {
		return nil, err
	}
	programs := make([]cel.Program, len(rules))
	for i := range rules {
		tree, issues := env.Compile(rules[i].typed(rules[i].cel))
		if issues.Err() != nil {
			return nil, issues.Err()
		}
		if programs[i], err = env.Program(tree, cel.EvalOptions(cel.OptOptimize)); err != nil {
			return nil, err
		}
	}
	return func(e *sample) (int, error) {
		matched := 0
		for _, p := range programs {
			v, _, err := p.Eval(e.fields)
			if err != nil {
				return matched, err
			}
			if v.Value() == true {
				matched++
			}
		}
		return matched, nil
	}, nil
}

func newExpr(rules []rule) (evaluator, error) {
	programs := make([]*vm.Program, len(rules))
	for i := range rules {
		var err error
		if programs[i], err = expr.Compile(rules[i].typed(rules[i].expr), expr.Env(values{}), expr.AsBool()); err != nil {
			return nil, err
		}
	}
	var machine vm.VM
	return func(e *sample) (int, error) {
		if e.cache == nil {
			e.cache = e.record // boxed once
		}
		matched := 0
		for _, p := range programs {
			v, err := machine.Run(p, e.cache)
			if err != nil {
				return matched, err
			}
			if v == true {
				matched++
			}
		}
		return matched, nil
	}, nil
}

// newOPA writes one rule with many bodies, which OPA indexes.
func newOPA(rules []rule) (evaluator, error) {
	var b strings.Builder
	b.WriteString("package policies\n\n")
	for i, r := range rules {
		fmt.Fprintf(&b, "matched contains %d if { input.event.type == %q; %s }\n", i, r.on, r.opa)
	}
	ctx := context.Background()
	query, err := rego.New(rego.Query("data.policies.matched"), rego.Module("policies.rego", b.String())).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	return func(e *sample) (int, error) {
		if e.cache == nil {
			v, err := ast.InterfaceToValue(e.fields)
			if err != nil {
				return 0, err
			}
			e.cache = v
		}
		set, err := query.Eval(ctx, rego.EvalParsedInput(e.cache.(ast.Value)))
		if err != nil {
			return 0, err
		}
		return len(set[0].Expressions[0].Value.([]any)), nil
	}, nil
}
