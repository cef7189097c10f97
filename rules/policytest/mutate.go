package policytest

import (
	"context"
	"fmt"
	"slices"

	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// Mutation says which operators the tests do not need: with each of them turned
// around, all tests of the policies it stands in still pass.
type Mutation struct {
	Mutants   int             `json:"mutants"`
	Survivors []policy.Mutant `json:"survivors"`
}

// Mutate turns around one operator after the other, each time in a bundle of its
// own, and runs the tests of the policies that it bears upon. Tests of the bundle
// itself must have passed.
func Mutate(ctx context.Context, b *policy.Bundle, tests *policy.Tests, o Options) (*Mutation, error) {
	out := &Mutation{Survivors: []policy.Mutant{}}
	for _, m := range b.Mutants() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out.Mutants++
		other := b.Mutate(m)
		if other == nil {
			continue // it does not even load
		}
		found, err := kills(b, other, tests, o)
		if err != nil {
			return nil, err
		}
		if !found {
			out.Survivors = append(out.Survivors, m)
		}
	}
	return out, nil
}

// kills reports whether a test fails with the other bundle.
func kills(b, other *policy.Bundle, tests *policy.Tests, o Options) (bool, error) {
	engine, err := rules.New(other, rules.Options{Channels: policy.Channels(other)})
	if err != nil {
		return false, fmt.Errorf("run tests: %w", err)
	}
	r := &runner{bundle: other, engine: engine, tracers: make(map[*policy.Condition]*policy.Tracer)}
	for _, t := range tests.Tests {
		p := engine.Policy(t.Policy.Name)
		if o.Run != nil && !o.Run.MatchString(t.Name) || p == nil || p.Digest == t.Policy.Digest {
			continue
		}
		same := *t
		same.Policy = p
		if len(r.test(&same).Failures) > 0 {
			return true, nil
		}
	}
	return slices.Equal(digests(b), digests(other)), nil // an operator in no policy cannot be missed
}

func digests(b *policy.Bundle) []policy.Digest {
	var all []policy.Digest
	for _, p := range b.Policies {
		all = append(all, p.Digest)
	}
	return all
}
