package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/policy"
)

// policyActiveCommand shows which policies are in force.
func policyActiveCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		p, err := c.Policies(ctx)
		if err != nil {
			return err
		}
		return a.show(p, func(w io.Writer) {
			fmt.Fprintln(w, bundleLine(p.Bundle))
			for _, one := range p.Policies {
				fmt.Fprintf(w, "  %-8s %-14s %-40s %s\n", one.Mode, one.Severity, one.Name, strings.Join(one.Actions, ", "))
			}
			writeDomains(w, p.Domains)
			if len(p.Previous) > 0 {
				fmt.Fprintf(w, "before it: %s\n", strings.Join(p.Previous, ", "))
			}
		})
	}
}

func policyApplyCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	q := client.ApplyQuery{}
	a.flags.BoolVar(&q.DryRun, "dry-run", false, "have the daemon look at the bundle and change nothing")
	most := a.flags.Int64("max-actions", -1, "refuse the bundle if it would have wanted more than `N` actions since --since, alerts among them")
	since := a.flags.String("since", "1d", "for --max-actions: replay what was sealed at this `TIME` or later, or so long ago")
	return func(ctx context.Context, args []string) error {
		if *most >= 0 {
			n := uint64(*most)
			q.MaxActions = &n
			var err error
			if q.Since, err = when("since", *since, time.Now()); err != nil {
				return err
			}
		}
		b, err := a.loadBundle(args[0])
		if err != nil {
			return err
		}
		files, err := bundleFiles(args[0], b)
		if err != nil {
			return err
		}
		c := dial()
		defer c.Close()
		done, err := c.ApplyPolicies(ctx, files, q)
		if err != nil {
			return err
		}
		return a.applied(done, done.Applied || q.DryRun && done.Reason == "")
	}
}

func policyRollbackCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		done, err := c.RollBackPolicies(ctx)
		if err != nil {
			return err
		}
		return a.applied(done, done.Applied)
	}
}

// bundleFiles are the files that are sent: those that give the bundle its meaning,
// and its tests.
func bundleFiles(dir string, b *policy.Bundle) (map[string][]byte, error) {
	files := maps.Clone(b.Files)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), policy.TestSuffix) || e.IsDir() {
			continue
		}
		if files[e.Name()], err = readSmall(filepath.Join(dir, e.Name()), policy.MaxFileSize, false); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// applied shows what became of a bundle; good says that it is what was asked for.
func (a *app) applied(done *client.Applied, good bool) error {
	if err := a.show(done, func(w io.Writer) {
		var diags []policy.JSONDiagnostic
		if json.Unmarshal(done.Diagnostics, &diags) == nil {
			writeDiagnostics(w, diags)
		}
		if !done.Applied {
			fmt.Fprintf(w, "nothing was changed: %s\n", cmp.Or(done.Reason, "it was a trial, and the bundle can come in force"))
			return
		}
		fmt.Fprintf(w, "in force: %s; entry %d of the host log\n", bundleLine(done.Bundle), done.Entry)
		fmt.Fprintf(w, "before:   %s\n", bundleLine(done.Was))
		fmt.Fprintf(w, "tests:    %d passed\n", done.Tests)
		writeDomains(w, done.Domains)
	}); err != nil {
		return err
	}
	if !good {
		return errInvalid
	}
	return nil
}

func writeDiagnostics(w io.Writer, all []policy.JSONDiagnostic) {
	for _, d := range all {
		at := d.File
		if d.Start != nil {
			at = fmt.Sprintf("%s:%d", d.File, d.Start.Line)
		}
		fmt.Fprintf(w, "%s %s: %s [%s]: %s\n", at, d.Severity, d.Summary, d.Code, d.Detail)
	}
}

func bundleLine(b *client.Bundle) string {
	if b == nil {
		return "no policies"
	}
	return fmt.Sprintf("bundle %s %s, %d policies, at most %s, digest %s", b.Name, b.Version, b.Policies, b.Mode, b.Digest)
}

// writeDomains shows the modes on each domain.
func writeDomains(w io.Writer, all []client.DomainPolicies) {
	for _, d := range all {
		var modes []string
		for _, m := range []string{"enforce", "audit", "off"} {
			if n := d.Modes[m]; n > 0 {
				modes = append(modes, fmt.Sprintf("%d %s", n, m))
			}
		}
		since := ""
		if d.Entry != nil {
			since = fmt.Sprintf(", since entry %d", *d.Entry)
		}
		fmt.Fprintf(w, "%s %s: %s%s\n", d.UUID, d.Name, strings.Join(modes, ", "), since)
		for _, name := range slices.Sorted(maps.Keys(d.Other)) {
			fmt.Fprintf(w, "  %-8s %s\n", d.Other[name], name)
		}
	}
}
