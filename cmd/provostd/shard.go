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

	"github.com/provostd/provost/introspect/daemon"
)

// Commands on the shards of VM logs.

func listShards(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer) error {
	all, err := daemon.Shards(ctx, cfg, log)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LOG\tENTRIES\tSTATE")
	for _, l := range all {
		state := "open"
		if l.Closed != nil {
			state = fmt.Sprintf("closed by entry %d", *l.Closed)
		}
		if l.Dropped != nil {
			state = fmt.Sprintf("dropped, see entry %d of the host log", *l.Dropped)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", l.Origin, l.Size, state)
	}
	return w.Flush()
}

func exportShard(fs *flag.FlagSet) action {
	withhold := fs.Bool("withhold", false, "leave out the payloads that verification does not need")
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, args []string) error {
		a, err := daemon.ExportShard(ctx, cfg, log, caller(), args[0], args[1], *withhold)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "wrote %s, %d bytes: %d entries of %s, root %s\nSHA-256 %s\n", a.File, a.Bytes, a.Size, a.Log, a.Root, a.SHA256)
		if a.Withheld {
			_, err = fmt.Fprintf(stdout, "payloads are left out but for the %d that verification needs\n", a.Payloads)
			return err
		}
		_, err = fmt.Fprintf(stdout, "it holds %d payloads in clear, which no erasure reaches: keep it as you keep them\n", a.Payloads)
		return err
	}
}

func dropShard(fs *flag.FlagSet) action {
	archive := fs.String("archive", "", "archive of the log, a `FILE` that shard export wrote")
	reason := fs.String("reason", "", "why, for the host log: `TEXT`")
	who := fs.String("requester", "", "who wants it, for the host log: `NAME`; who calls is sealed too")
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, args []string) error {
		if *archive == "" || strings.TrimSpace(*reason) == "" {
			return errors.New("name the archive with -archive and the reason with -reason: what goes does not come back")
		}
		d, err := daemon.DropShard(ctx, cfg, log, caller(), args[0], *archive, *reason, *who)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "dropped %s with %d entries, see entry %d of the host log\nthe archive with SHA-256 %s is the only one that has it now: keep copies\n", d.Log, d.Size, d.Entry, d.SHA256)
		return err
	}
}
