package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/introspect/api/client"
)

// defaultLimit is how many entries a query shows that does not say.
const defaultLimit = 100

func queryCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	a.asJSON()
	a.asRaw()
	q := client.Query{}
	f := a.flags
	f.StringVar(&q.Domain, "domain", "", "of this `DOMAIN`, all its incarnations; default: all logs of the host")
	f.StringVar(&q.Log, "log", "", "of the log with this `ORIGIN`")
	classes := f.String("class", "", "of these `CLASSES`, separated by commas, such as process.exec,file.*")
	f.StringVar(&q.Path, "path", "", "about this `PATH`; all below it where it ends with a slash; or a pattern with * ? [")
	f.StringVar(&q.Exe, "exe", "", "done by this executable: a `PATH` likewise")
	f.StringVar(&q.Sha256, "sha256", "", "about content with this `DIGEST`")
	f.StringVar(&q.Address, "address", "", "with this `ADDRESS`: 192.0.2.7, 192.0.2.7:443 or 192.0.2.0/24")
	pid := f.Uint64("pid", 0, "done by process `N` of the guest")
	f.Uint64Var(&q.Start, "start", 0, "with --pid: by the one that started at `NS` on the guest's clock")
	f.StringVar(&q.User, "user", "", "a number: done with this user id, real or effective; a `NAME`: of this account (auth.*)")
	f.StringVar(&q.Name, "name", "", "with this DNS `NAME`, or a pattern")
	since, until := f.String("since", "", "sealed at this `TIME` or later"), f.String("until", "", "sealed at this `TIME` or earlier")
	f.BoolVar(&q.Oldest, "oldest", false, "oldest first; default: newest first")
	f.IntVar(&q.Limit, "limit", defaultLimit, "at most `N` entries; 0: all")
	f.StringVar(&q.After, "after", "", "go on where an earlier answer ended: the `TOKEN` that it gave")
	return func(ctx context.Context, _ []string) error {
		if *classes != "" {
			q.Classes = strings.Split(*classes, ",")
		}
		var err error
		if q.Since, err = when("since", *since, time.Now()); err != nil {
			return err
		}
		if q.Until, err = when("until", *until, time.Now()); err != nil {
			return err
		}
		if a.given("pid") && *pid == 0 || a.given("start") && q.Start == 0 {
			return &usageError{"--pid and --start are above zero; leave them out for any process"}
		}
		switch {
		case q.Limit < 0:
			return &usageError{"--limit is below zero"}
		case *pid > 1<<32-1:
			return &usageError{"--pid is no process id"}
		case q.Start != 0 && *pid == 0:
			return &usageError{"--start says which of several processes with one pid is meant: give --pid as well"}
		}
		q.Pid = uint32(*pid)
		c := dial()
		defer c.Close()
		var end client.QueryEnd
		for e, err := range c.Query(ctx, q, &end) {
			if err != nil {
				return err
			}
			if err := a.entry(e); err != nil {
				return err
			}
		}
		return a.queryEnd(&end)
	}
}

// queryEnd says where the answer ended: for programs in its last line.
func (a *app) queryEnd(end *client.QueryEnd) error {
	if a.output == "json" && !a.raw {
		if err := a.encoder().Encode(map[string]any{"end": end}); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		return nil
	}
	if end.Next != "" {
		fmt.Fprintf(plain{a.stderr}, "there may be more: --after %s goes on here\n", end.Next)
	}
	if end.Behind > 0 {
		fmt.Fprintf(a.stderr, "the index is %d commits behind: the newest entries may be missing\n", end.Behind)
	}
	return nil
}

// asJSON declares --json, which is short for --output json.
func (a *app) asJSON() {
	a.flags.BoolFunc("json", "short for --output json", func(s string) error {
		on, err := strconv.ParseBool(s)
		if on {
			a.output = "json"
		}
		return err
	})
}

// layouts are the forms of a time; one without a zone is UTC, as entries are
// shown.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"}

// when reads a time, or a time before now such as 90m, 2h or 7d.
func when(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &usageError{fmt.Sprintf("--%s is %q, want a time such as 2026-11-23T06:00:00Z, or how long ago: 90m, 2h, 7d", flag, s)}
}
