package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/provostd/provost/rules/author"
	"github.com/provostd/provost/rules/policy"
)

func policyCheckCommand(a *app) func(context.Context, []string) error {
	cost := a.flags.Bool("cost", false, "say what conditions cost: what the index asks first, and what is slow")
	return func(_ context.Context, args []string) error {
		dir := args[0]
		if err := bundleDir(dir); err != nil {
			return err
		}
		b, diags := policy.Load(dir)
		if b != nil {
			diags = append(diags, b.Expiring(time.Now())...)
		}
		if *cost && b != nil && !diags.HasErrors() {
			if len(diags) > 0 {
				if err := policy.WriteDiagnostics(a.stderr, diags, policy.Sources(dir, diags), 100, false); err != nil {
					return fmt.Errorf("write diagnostics: %w", err)
				}
			}
			c := author.CostOf(b)
			return a.verdict(c, c.WriteText, false)
		}
		if a.output == "json" {
			out, err := policy.DiagnosticsJSON(diags)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(plainJSON{a.stdout}, "%s\n", out); err != nil {
				return err
			}
		} else if err := policyText(plain{a.stdout}, dir, b, diags.HasErrors(), func(w io.Writer) error {
			return policy.WriteDiagnostics(w, diags, policy.Sources(dir, diags), 100, false)
		}); err != nil {
			return err
		}
		if diags.HasErrors() {
			return errInvalid
		}
		return nil
	}
}

func policyText(w io.Writer, dir string, b *policy.Bundle, broken bool, diags func(io.Writer) error) error {
	if err := diags(w); err != nil {
		return fmt.Errorf("write diagnostics: %w", err)
	}
	if broken {
		_, err := fmt.Fprintf(w, "%s cannot be loaded\n", dir)
		return err
	}
	_, err := fmt.Fprintf(w, "%s: bundle %s %s, %d policies, digest %x\n", dir, b.Name, b.Version, len(b.Policies), b.Digest[:])
	return err
}
