package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/approval"
)

// releaseCommand has the daemon end what holds a domain. Where a policy wants a second
// person, it makes the statement that this one signs.
func releaseCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	q := client.ReleaseRequest{}
	f := a.flags
	f.StringVar(&q.Action, "action", "", "only this `KIND`: pause, network or quarantine; default: all that holds it")
	f.StringVar(&q.Reason, "reason", "", "why, in your words; it is sealed and signed, and cannot be left out")
	f.BoolVar(&q.DryRun, "dry-run", false, "only show what would end")
	by := f.String("requested-by", "", "`NAME` of who wants it and so cannot sign it; default: who calls")
	lasts := f.Duration("for", time.Hour, "the statement is good for this `DURATION`")
	how := declareSigning(f)
	return func(ctx context.Context, args []string) error {
		if strings.TrimSpace(q.Reason) == "" && !q.DryRun {
			return &usageError{"--reason is missing: say why, it is sealed with the release"}
		}
		c := dial()
		defer c.Close()
		plan, err := c.Release(ctx, args[0], client.ReleaseRequest{Action: q.Action, DryRun: true})
		if err != nil {
			return err
		}
		if q.DryRun {
			return a.show(plan, func(w io.Writer) { releasedText(w, plan) })
		}
		statement, err := how.release(plan, q.Reason, *by, *lasts)
		if err != nil {
			return err
		}
		if how.print {
			if statement == nil {
				return &usageError{"nothing is to be signed: no second person is wanted"}
			}
			_, err := a.stdout.Write(statement)
			return err
		}
		if statement != nil {
			if q.Statement, q.Signatures, err = how.sign(ctx, a, statement); err != nil {
				return err
			}
		}
		r, err := c.Release(ctx, args[0], q)
		if err != nil {
			return err
		}
		return a.show(r, func(w io.Writer) { releasedText(w, r) })
	}
}

// release makes or reads the statement that a second person signs; nil: none is wanted.
func (s *signing) release(plan *client.Released, reason, by string, lasts time.Duration) ([]byte, error) {
	if s.statement != "" {
		b, err := readSmall(s.statement, approval.MaxStatement, false)
		if err != nil {
			return nil, fmt.Errorf("read statement: %w", err)
		}
		_, err = approval.ParseRelease(b)
		return b, err
	}
	var holds []string
	for _, h := range plan.Holds {
		if h.Second {
			holds = append(holds, approval.HoldName(h.Log, h.Verdict, h.Index))
		}
	}
	if len(holds) == 0 {
		return nil, nil
	}
	slices.Sort(holds)
	if by == "" {
		by = caller()
	}
	now := time.Now()
	st := &approval.Release{Type: approval.ReleaseType, Host: plan.Host, Group: plan.Group, VM: plan.UUID, Holds: holds, RequestedBy: by, Reason: reason,
		NotAfter: approval.At(now.Add(lasts)), Issued: approval.At(now), Nonce: random()}
	return st.Encode()
}

func releasedText(w io.Writer, r *client.Released) {
	word := "released"
	if r.DryRun {
		word = "would end"
	}
	for _, h := range r.Holds {
		second := ""
		if h.Second {
			second = "; a second person of group " + r.Group + " must sign"
		}
		fmt.Fprintf(w, "%s: %s %s of policy %s since %s (verdict %d of %s)%s\n", record.Printable([]byte(r.Name)), word, h.Action, h.Policy, h.Since, h.Verdict, h.Log, second)
	}
	if r.StateBefore != "" {
		fmt.Fprintf(w, "  %s -> %s\n", r.StateBefore, r.StateAfter)
	}
	for _, n := range r.Interfaces {
		fmt.Fprintf(w, "  interface %s is %s\n", record.Printable([]byte(n.Key)), n.Live)
	}
	if r.Detail != "" {
		fmt.Fprintf(w, "  %s\n", record.Printable([]byte(r.Detail)))
	}
}
