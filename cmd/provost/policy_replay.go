package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/replay"
)

func policyReplayCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	since := a.flags.String("since", "1d", "count what was sealed at this `TIME` or later, or so long ago, such as 14d")
	domain := a.flags.String("domain", "", "only the logs of this domain, by name or UUID")
	most := a.flags.Int64("max-actions", -1, "exit code 3 where the bundle would have wanted more than `N` actions, alerts among them")
	shown := a.flags.Bool("progress", false, "show progress on standard error also where that is no terminal")
	return func(ctx context.Context, args []string) error {
		q := client.ReplayQuery{Domain: *domain}
		var err error
		if q.Since, err = when("since", *since, time.Now()); err != nil {
			return err
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
		tell := a.progress(*shown)
		done, err := c.ReplayPolicies(ctx, files, q, func(n, total uint64) {
			if tell != nil {
				tell("the ledger", n, total)
			}
		})
		if err != nil {
			return err
		}
		if done.Report == nil {
			var diags []policy.JSONDiagnostic
			if json.Unmarshal(done.Diagnostics, &diags) == nil {
				writeDiagnostics(plain{a.stderr}, diags)
			}
			return fmt.Errorf("the daemon did not replay it: %s", done.Reason)
		}
		var r replay.TrialReport
		if err := json.Unmarshal(done.Report, &r); err != nil {
			return fmt.Errorf("read answer of provostd: %w", err)
		}
		over := *most >= 0 && r.Wanted > uint64(*most)
		return a.verdict(&r, func(w io.Writer) error {
			err := r.WriteText(w)
			if over {
				fmt.Fprintf(w, "\nthat is more than the %d actions allowed\n", *most)
			}
			return err
		}, over)
	}
}
