package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/provostd/provost/chain/record"
)

func alertsListCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		all, err := c.AlertChannels(ctx)
		if err != nil {
			return err
		}
		return a.show(all, func(w io.Writer) {
			if len(all) == 0 {
				fmt.Fprintln(w, "no alert channels: alerts go to the log of the daemon only")
				return
			}
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintf(t, "CHANNEL\tTYPE\tWAITING\tDELIVERED\tGIVEN UP\tREFUSED\tLAST ATTEMPT\n")
			for _, c := range all {
				last := c.Last
				switch {
				case last == "":
					last = "none yet"
				case c.Problem != "":
					last += ": " + record.Printable([]byte(c.Problem))
				}
				fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", record.Printable([]byte(c.Name)), record.Printable([]byte(c.Type)), c.Waiting, c.Delivered, c.GivenUp, c.Refused, last)
			}
			t.Flush()
		})
	}
}

func alertsTestCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, args []string) error {
		c := dial()
		defer c.Close()
		t, err := c.TestAlert(ctx, args[0])
		if err != nil {
			return err
		}
		detail := record.Printable([]byte(t.Detail))
		if err := a.show(t, func(w io.Writer) {
			if t.Delivered {
				fmt.Fprintf(w, "%s: delivered: %s\n", record.Printable([]byte(t.Channel)), detail)
			}
		}); err != nil {
			return err
		}
		if !t.Delivered {
			return fmt.Errorf("channel %s does not deliver: %s", record.Printable([]byte(t.Channel)), detail)
		}
		return nil
	}
}
