package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/policytest"
)

// policyTestCommand runs the tests beside a bundle. Exit code 3: a test fails,
// or does not cover what it was asked to.
func policyTestCommand(a *app) func(context.Context, []string) error {
	a.asJSON()
	pattern := a.flags.String("run", "", "only tests whose names this `REGEXP` finds")
	coverage := a.flags.Bool("coverage", false, "say which parts of conditions the tests never saw true or false; exit code 3 where there are any")
	mutate := a.flags.Bool("mutate", false, "turn every operator of the conditions around, one at a time, and say for which the tests still pass; exit code 3 where there are any")
	verbose := a.flags.Bool("v", false, "name the tests that pass, too")
	return func(ctx context.Context, args []string) error {
		o := policytest.Options{Coverage: *coverage}
		if *pattern != "" {
			re, err := regexp.Compile(*pattern)
			if err != nil {
				return &usageError{fmt.Sprintf("--run: %v", err)}
			}
			o.Run = re
		}
		b, err := a.loadBundle(args[0])
		if err != nil {
			return err
		}
		tests, diags := policy.LoadTests(args[0], b)
		if tests == nil || len(diags) > 0 {
			if err := policy.WriteDiagnostics(plain{a.stderr}, diags, policy.Sources(args[0], diags), 100, false); err != nil {
				return fmt.Errorf("write diagnostics: %w", err)
			}
		}
		if tests == nil {
			return errInvalid
		}
		report, err := policytest.Run(ctx, b, tests, o)
		if err != nil {
			return err
		}
		if len(report.Tests) == 0 && *pattern != "" {
			return &usageError{fmt.Sprintf("--run %q finds none of the tests in %s", *pattern, args[0])}
		}
		if len(report.Tests) == 0 {
			fmt.Fprintf(plain{a.stderr}, "%s has no tests: write them in files named *%s beside the policies\n", args[0], policy.TestSuffix)
		}
		if *mutate && report.Failed == 0 {
			if report.Mutation, err = policytest.Mutate(ctx, b, tests, o); err != nil {
				return err
			}
		}
		if a.output == "json" {
			enc := a.encoder()
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			err = enc.Encode(report)
		} else {
			err = reportText(plain{a.stdout}, report, *verbose)
		}
		if err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		if !report.OK() {
			return errInvalid
		}
		return nil
	}
}

func reportText(w io.Writer, r *policytest.Report, verbose bool) error {
	var b strings.Builder
	for _, t := range r.Tests {
		if t.Passed {
			if verbose {
				fmt.Fprintf(&b, "pass  %s: %s\n", t.Policy, t.Name)
			}
			continue
		}
		fmt.Fprintf(&b, "FAIL  %s: %s\n", t.Policy, t.Name)
		for _, f := range t.Failures {
			text := strings.ReplaceAll(strings.TrimRight(f.Text, "\n"), "\n", "\n        ")
			fmt.Fprintf(&b, "      %s:%d: %s\n", f.File, f.Line, text)
		}
	}
	if c := r.Coverage; c != nil {
		for _, p := range c.Missing {
			b.WriteString(missingText(p))
		}
		fmt.Fprintf(&b, "coverage: %d of %d (%d %%)\n", c.Covered, c.Points, c.Percent())
	}
	if m := r.Mutation; m != nil {
		for _, s := range m.Survivors {
			fmt.Fprintf(&b, "not needed: %s:%d:%d: all tests pass with %q instead of %q\n", s.File, s.Line, s.Column, s.Is, s.Was)
		}
		fmt.Fprintf(&b, "mutants: %d of %d found\n", m.Mutants-len(m.Survivors), m.Mutants)
	}
	fmt.Fprintf(&b, "%d passed, %d failed\n", r.Passed, r.Failed)
	_, err := io.WriteString(w, b.String())
	return err
}

// missingText says what was never seen of one part.
func missingText(p *policytest.Point) string {
	what := p.Part
	if p.Name != "" {
		what += fmt.Sprintf(" %q", p.Name)
	}
	if p.Policy != "" {
		what = p.Policy + ", " + what
	}
	if p.File == "" {
		return fmt.Sprintf("never %s: %s\n", strings.Join(p.Never, " or "), what)
	}
	return fmt.Sprintf("never %s: %s:%d:%d, %s: %s\n", strings.Join(p.Never, " or "), p.File, p.Line, p.Column, what, p.Text)
}
