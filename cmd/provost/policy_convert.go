package main

import (
	"context"
	"fmt"
	"io"

	"github.com/provostd/provost/rules/sigma"
)

func policyConvertSigmaCommand(a *app) func(context.Context, []string) error {
	out := a.flags.String("o", "", "directory to make with the bundle; default: the policies go to standard output and the report to standard error")
	var opts sigma.Options
	a.flags.BoolVar(&opts.Cased, "cased", false, "compare names and paths of files and programs with regard to case")
	a.flags.StringVar(&opts.Bundle, "bundle", "sigma", "name of the bundle")
	a.flags.StringVar(&opts.Version, "bundle-version", "1", "version of the bundle")
	a.flags.StringVar(&opts.Origin, "origin", "https://github.com/SigmaHQ/sigma", "where the rules are from, for their attribution")
	return func(_ context.Context, args []string) error {
		sources, err := sigma.Read(args[0])
		if err != nil {
			return err
		}
		res, err := sigma.Convert(sources, opts)
		if err != nil {
			return err
		}
		report := a.stdout
		switch {
		case *out == "":
			report = a.stderr
			for _, f := range res.Files {
				if _, err := a.stdout.Write(f.Data); err != nil {
					return fmt.Errorf("write output: %w", err)
				}
			}
		case len(res.Files) > 0:
			if err := res.Write(*out); err != nil {
				return err
			}
		}
		to := *a
		to.stdout = report
		if err := to.show(res.Rules, func(w io.Writer) { convertText(w, res, *out) }); err != nil {
			return err
		}
		if len(res.Files) == 0 {
			return errInvalid
		}
		return nil
	}
}

func convertText(w io.Writer, res *sigma.Result, out string) {
	policies := 0
	for _, r := range res.Rules {
		policies += len(r.Policies)
		switch {
		case r.Reason != "":
			fmt.Fprintf(w, "not converted  %s: %s\n", r.Source, r.Reason)
		default:
			for _, n := range r.Notes {
				fmt.Fprintf(w, "note           %s: %s\n", r.Source, n)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d rules converted to %d policies", res.Converted(), len(res.Rules), policies)
	if out != "" && len(res.Files) > 0 {
		fmt.Fprintf(w, " in %s", out)
	}
	fmt.Fprintln(w)
}
