package policytest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/provostd/provost/rules/policy"
)

// Every bundle in examples/ has tests, they pass, and they see every part of
// every condition true and false. Every policy says what it is for, and what it
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
			if r.Coverage.Points < len(b.Policies) {
				t.Errorf("coverage has %d points for %d policies", r.Coverage.Points, len(b.Policies))
			}
		})
	}
}
