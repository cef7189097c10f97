package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// domainChainCommand shows the logs of a domain. A break is exit code 3: what
// was looked at is not whole.
func domainChainCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, args []string) error {
		c := dial()
		defer c.Close()
		chain, err := c.Chain(ctx, args[0])
		if err != nil {
			return err
		}
		if err := a.show(chain, func(w io.Writer) { chainText(w, chain) }); err != nil {
			return err
		}
		if !chain.Whole {
			return errInvalid
		}
		return nil
	}
}

func chainText(w io.Writer, c *client.Chain) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "INCARNATION\tSHARD\tBEGUN\tCAUSE\tENTRIES\tLINK\tQUOTES\n")
	for _, l := range c.Links {
		quotes := "-"
		if q := l.Previous; q != nil {
			quotes = fmt.Sprintf("%s at %d entries", record.Printable([]byte(q.Log)), q.Size)
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%d\t%s\t%s\n", l.Log.Incarnation, l.Log.Shard, cmp.Or(l.Begun, "-"), record.Printable([]byte(l.Cause)), l.Log.Size, l.State, quotes)
		if l.Problem != "" {
			fmt.Fprintf(t, "  %s\n", record.Printable([]byte(l.Problem)))
		}
	}
	t.Flush()
	if !c.Whole {
		fmt.Fprintln(w, "BROKEN: a link does not hold")
	}
}
