package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/introspect/api/client"
)

func exportCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	entries := a.flags.String("entries", "", "`RANGE` of leaves, such as 12 or 12-40 or 12-; default: all")
	since, until := a.flags.String("since", "", "entries sealed at this `TIME` or later, with what tells whether anything else happened"), a.flags.String("until", "", "entries sealed at this `TIME` or earlier, likewise")
	log := a.flags.String("log", "", "of this log of the domain, by its `ORIGIN`; default: the newest")
	lineage := a.flags.Bool("lineage", false, "only what tells of its epochs, for provost tree: where they began and branched, departures, arrivals, forks")
	withhold := a.flags.Bool("withhold", false, "leave out the payloads that verification does not need")
	bare := a.flags.Bool("without-policies", false, "leave out the texts of policies, as for a tenant: they may name what is others'; auditors and operators get them else")
	out := a.flags.String("o", "", "`FILE` to write; must not exist")
	return func(ctx context.Context, args []string) error {
		q := client.ExportQuery{Domain: args[0], Log: *log, To: client.AllEntries, Withhold: *withhold, WithoutPolicies: *bare}
		if err := parseRange(*entries, &q); err != nil {
			return err
		}
		var err error
		if q.Since, err = when("since", *since, time.Now()); err != nil {
			return err
		}
		if q.Until, err = when("until", *until, time.Now()); err != nil {
			return err
		}
		if *entries != "" && *since+*until != "" {
			return &usageError{"choose by --entries, or by --since and --until, not by both"}
		}
		if *lineage && *entries+*since+*until != "" {
			return &usageError{"--lineage chooses the entries itself: leave --entries, --since and --until out"}
		}
		if *out == "" {
			return &usageError{"name the file to write with -o"}
		}
		c := dial()
		defer c.Close()
		if *lineage {
			if err := chooseLineage(ctx, c, &q); err != nil {
				return err
			}
		}
		n, err := writeNew(*out, func(w io.Writer) error { return c.Export(ctx, q, w) })
		if err != nil {
			return err
		}
		texts, err := policiesIn(*out)
		if err != nil {
			return err
		}
		return a.show(map[string]any{"file": *out, "bytes": n, "policies": texts}, func(w io.Writer) {
			fmt.Fprintf(w, "wrote %s, %d bytes\n", *out, n)
			for _, p := range texts {
				if p.Lacks != "" {
					fmt.Fprintf(w, "without the text of policy bundle %s: %s\n", p.Digest, proof.LackText(p.Lacks))
				}
			}
		})
	}
}

// policiesIn says which texts of policies the evidence in a file has, and which lack.
func policiesIn(name string) ([]proof.ReportPolicy, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	all, err := proof.ReadPolicies(f, st.Size(), proof.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}

func parseRange(s string, q *client.ExportQuery) error {
	if s == "" {
		return nil
	}
	from, to, isRange := strings.Cut(s, "-")
	var err error
	if q.From, err = strconv.ParseUint(from, 10, 64); err != nil {
		return &usageError{fmt.Sprintf("--entries is %q, want a range such as 12-40", s)}
	}
	switch {
	case !isRange:
		q.To = q.From
	case to != "":
		if q.To, err = strconv.ParseUint(to, 10, 64); err != nil || q.To < q.From {
			return &usageError{fmt.Sprintf("--entries is %q, want a range such as 12-40", s)}
		}
	}
	return nil
}

// writeNew creates a file and removes it again where it could not be written
// whole.
func writeNew(name string, write func(io.Writer) error) (n int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(name) // best effort: the error to report is the first one
		}
	}()
	if err := write(f); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("sync %s: %w", name, err)
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
