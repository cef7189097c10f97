package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/provostd/provost/introspect/api/client"
)

func lineageCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	a.asJSON()
	q := client.LineageQuery{}
	f := a.flags
	f.StringVar(&q.Domain, "domain", "", "in this `DOMAIN`; only an address can do without")
	f.Uint64Var(&q.Start, "start", 0, "of a process: the one that started at `NS` on the guest's clock; default: the newest with this id")
	f.StringVar(&q.Direction, "direction", "back", "`WAY`: back (what led to it), forward (what came of it) or both")
	f.IntVar(&q.Depth, "depth", 0, "go `N` steps from it; default 4")
	f.IntVar(&q.Nodes, "nodes", 0, "show `N` processes, files and addresses at most; default 200")
	f.IntVar(&q.Events, "events", 0, "read `N` entries at most of each; default 2000")
	since, until := f.String("since", "", "by entries sealed at this `TIME` or later"), f.String("until", "", "by entries sealed at this `TIME` or earlier")
	format := f.String("format", "tree", "`FORM` of the text: tree, dot (Graphviz) or prov (W3C PROV-JSON)")
	return func(ctx context.Context, args []string) error {
		if a.given("start") && q.Start == 0 {
			return &usageError{"--start is above zero; leave it out for the newest process with this id"}
		}
		if err := lineageTarget(args[0], &q); err != nil {
			return err
		}
		var err error
		if q.Since, err = when("since", *since, time.Now()); err != nil {
			return err
		}
		if q.Until, err = when("until", *until, time.Now()); err != nil {
			return err
		}
		switch *format {
		case "tree", "dot", "prov":
		default:
			return &usageError{fmt.Sprintf("--format is %q, want tree, dot or prov", *format)}
		}
		if q.Depth < 0 || q.Nodes < 0 || q.Events < 0 {
			return &usageError{"--depth, --nodes and --events are above zero"}
		}
		c := dial()
		defer c.Close()
		g, err := c.Lineage(ctx, q)
		if err != nil {
			return err
		}
		switch {
		case *format == "dot":
			return g.WriteDOT(plain{a.stdout})
		case *format == "prov":
			return g.WritePROV(plainJSON{a.stdout})
		case a.output == "text":
			return g.WriteText(plain{a.stdout})
		}
		return a.show(g, nil)
	}
}

// lineageTarget tells a path, a process id and an address apart.
func lineageTarget(s string, q *client.LineageQuery) error {
	_, noPrefix := netip.ParsePrefix(s)
	_, noAddr := netip.ParseAddr(s)
	_, noPort := netip.ParseAddrPort(s)
	switch n, err := strconv.ParseUint(s, 10, 32); {
	case err == nil && n > 0:
		q.Pid = uint32(n)
	case noPrefix == nil || noAddr == nil || noPort == nil:
		q.Address = s
	case s != "" && s[0] == '/' || len(s) > 6 && s[:6] == "memfd:":
		q.Path = s
	default:
		return &usageError{fmt.Sprintf("%q is no path from the root, no process id and no address", s)}
	}
	if q.Domain == "" && q.Address == "" {
		return &usageError{"a path or a process is one domain's: name it with --domain"}
	}
	if q.Start != 0 && q.Pid == 0 {
		return &usageError{"--start is of a process"}
	}
	return nil
}
