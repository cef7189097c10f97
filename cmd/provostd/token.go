package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/daemon"
)

// Tokens are made, listed and revoked in their file, whether a daemon runs or
// not: one that does notices with the next request.

// createToken prints the token alone, so that it can be taken from there. What
// is to be known about it goes where errors go.
func createToken(fs *flag.FlagSet) action {
	name := fs.String("name", "", "`NAME` of who holds it, as disclosures name them")
	role := fs.String("role", "", "`ROLE`: operator, auditor or tenant")
	life := fs.Duration("expires", 90*24*time.Hour, "how long it is good for, a `DURATION`")
	var domains []string
	fs.Func("domain", "`UUID` of a domain that a tenant sees; once for each", func(s string) error { domains = append(domains, s); return nil })
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, _ []string) error {
		text, t, err := access.CreateToken(cfg.API.Tokens, *name, *role, domains, time.Now(), *life)
		if err != nil {
			return err
		}
		log.InfoContext(ctx, "token created; this is the only time that it is shown", "id", t.ID, "name", t.Name, "role", t.Role, "expires", t.Expires)
		if _, err := fmt.Fprintln(stdout, text); err != nil {
			// Nobody has seen it, so nobody shall have it.
			_, rerr := access.RevokeToken(cfg.API.Tokens, t.ID)
			return errors.Join(fmt.Errorf("show the token: %w", err), rerr)
		}
		return nil
	}
}

func listTokens(_ context.Context, cfg *daemon.Config, _ *slog.Logger, stdout io.Writer) error {
	all, err := access.ListTokens(cfg.API.Tokens)
	if err != nil {
		return err
	}
	now := time.Now()
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tROLE\tCREATED\tEXPIRES\tDOMAINS")
	for _, t := range all {
		expires := t.Expires.Format(time.RFC3339)
		if !now.Before(t.Expires) {
			expires += " (expired)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Role, t.Created.Format(time.RFC3339), expires, strings.Join(t.Domains, ","))
	}
	return w.Flush()
}

func revokeToken(_ context.Context, cfg *daemon.Config, _ *slog.Logger, stdout io.Writer, args []string) error {
	gone, err := access.RevokeToken(cfg.API.Tokens, args[0])
	for _, t := range gone {
		_, werr := fmt.Fprintf(stdout, "token %s of %s is revoked\n", t.ID, t.Name)
		err = errors.Join(err, werr)
	}
	return err
}
