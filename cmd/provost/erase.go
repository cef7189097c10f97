package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// eraseCommand has the daemon erase payloads. It cannot be taken back, so it wants
// to be told which, why, and that it is meant.
func eraseCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	q := client.EraseQuery{}
	f := a.flags
	f.StringVar(&q.Log, "log", "", "of the log with this `ORIGIN`; default: --record is of the newest log of the domain, all else of all its logs")
	one := f.Int64("record", -1, "the record in entry `N`")
	from, to := f.String("from", "", "those sealed at this `TIME` or later"), f.String("to", "", "those sealed before this `TIME`")
	f.BoolVar(&q.All, "all", false, "all records of the domain")
	f.StringVar(&q.Reason, "reason", "", "why, in your words; it is sealed and signed, and cannot be left out")
	yes := f.Bool("yes", false, "it is meant: what is erased cannot be brought back by anybody")
	return func(ctx context.Context, args []string) error {
		q.Domain = args[0]
		choices := 0
		for _, given := range []bool{*one >= 0, *from != "" || *to != "", q.All} {
			if given {
				choices++
			}
		}
		var err error
		if q.From, err = when("from", *from, time.Now()); err != nil {
			return err
		}
		if q.To, err = when("to", *to, time.Now()); err != nil {
			return err
		}
		switch {
		case choices != 1:
			return &usageError{"say which records: --record N, --from and --to, or --all; one of them"}
		case strings.TrimSpace(q.Reason) == "":
			return &usageError{"--reason is missing: say why, it is sealed with the erasure"}
		case !*yes:
			return &usageError{"erased payloads cannot be brought back, from backups neither; say --yes if it is meant"}
		}
		if *one >= 0 {
			n := uint64(*one)
			q.Record = &n
		}
		c := dial()
		defer c.Close()
		e, err := c.Erase(ctx, q)
		if err != nil {
			return err
		}
		return a.show(e, func(w io.Writer) {
			for _, l := range e.Logs {
				fmt.Fprintf(w, "%s: %d records erased, and %d verdicts that quoted them; entry %d tells of it\n", record.Printable([]byte(l.Log)), l.Records, l.Verdicts, l.Entry)
			}
		})
	}
}
