package policytest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// Every bundle in examples/ has tests, they pass, they see every part of every
// condition true and false, and they need every operator. Every policy says what it is for, and what it
// takes for an attack that is none.
func TestExamples(t *testing.T) {
	dirs, err := filepath.Glob("../../examples/policies/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no example bundles: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b, diags := policy.Load(dir)
			if b == nil {
				t.Fatal(diags)
			}
			tests, diags := policy.LoadTests(dir, b)
			for _, d := range diags {
				t.Errorf("%s %s: %s %s", policy.DetailOf(d).Code, d.Subject, d.Summary, d.Detail)
			}
			if tests == nil {
				t.FailNow()
			}
			r, err := Run(context.Background(), b, tests, Options{Coverage: true})
			if err != nil {
				t.Fatal(err)
			}
			if text := failures(r); text != "" {
				t.Error(text)
			}
			for _, p := range r.Coverage.Missing {
				t.Errorf("never %v: %s:%d:%d, %s %s %s: %s", p.Never, p.File, p.Line, p.Column, p.Policy, p.Part, p.Name, p.Text)
			}
			m, err := Mutate(context.Background(), b, tests, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if m.Mutants < len(b.Policies) {
				t.Errorf("%d mutants of %d policies", m.Mutants, len(b.Policies))
			}
			for _, s := range m.Survivors {
				t.Errorf("%s:%d:%d: all tests pass with %q instead of %q", s.File, s.Line, s.Column, s.Is, s.Was)
			}
			for _, p := range b.Policies {
				if !strings.Contains(p.Description, "False positives: ") {
					t.Errorf("policy %s does not say what it takes for an attack that is none", p.Name)
				}
				if len(p.Attack) == 0 {
					t.Errorf("policy %s names no ATT&CK technique", p.Name)
				}
			}
			// What needs more than alerts and a pause stands in a bundle of its own.
			_, err = rules.New(b, rules.Options{Actions: []string{"alert", "pause"}})
			if whole := filepath.Base(dir) == "full"; (err != nil) != whole {
				t.Errorf("with a host that can alert and pause: %v", err)
			}
			if r.Coverage.Points < len(b.Policies) {
				t.Errorf("coverage has %d points for %d policies", r.Coverage.Points, len(b.Policies))
			}
		})
	}
}
