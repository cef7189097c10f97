package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

func statusCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		return a.show(s, func(w io.Writer) { statusText(w, s) })
	}
}

func statusText(w io.Writer, s *client.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "host\t%s\n", s.Host)
	fmt.Fprintf(t, "daemon\tprovostd %s, pid %d, since %s\n", s.Version, s.Pid, s.Started)
	state := "connected"
	if !s.Libvirt.Connected {
		state = "NOT connected"
	}
	fmt.Fprintf(t, "libvirt\t%s, %s\n", s.Libvirt.URI, state)
	if s.Bundle == nil {
		fmt.Fprintf(t, "policies\tnone\n")
	} else {
		fmt.Fprintf(t, "policies\tbundle %s %s, %d policies, host mode %s, digest %.16s\n",
			s.Bundle.Name, s.Bundle.Version, s.Bundle.Policies, s.Bundle.Mode, s.Bundle.Digest)
	}
	fmt.Fprintf(t, "host log\t%s, %d entries\n", s.HostLog.Origin, s.HostLog.Size)
	fmt.Fprintf(t, "host key\t%s\n", s.VerifierKey)
	witnessesText(t, s.Witnesses)
	fmt.Fprintf(t, "not judged yet\t%d commits\n", s.Backlog)
	fmt.Fprintf(t, "actions under way\t%d\n", s.Enforcements)
	t.Flush()
	fmt.Fprintln(w)
	domainsText(w, s.Domains)
}

// witnessesText says first what an operator must know: whether the quorum is
// reached.
func witnessesText(w io.Writer, all *client.Witnesses) {
	if all == nil {
		fmt.Fprintf(w, "witnesses\tnone\n")
		return
	}
	if all.Missing == "" {
		fmt.Fprintf(w, "witnesses\t%d, the quorum has cosigned %d entries\n", len(all.Witnesses), all.Cosigned)
	} else {
		fmt.Fprintf(w, "witnesses\tSHORTFALL: %s; %d entries are cosigned\n", record.Printable([]byte(all.Missing)), all.Cosigned)
	}
	for _, one := range all.Witnesses {
		state := fmt.Sprintf("%d entries at %s", one.Size, time.Unix(one.Time, 0).UTC().Format(time.RFC3339))
		if one.Time == 0 {
			state = "nothing yet"
		}
		if one.Disputed {
			state = "DISPUTES this log; " + state
		}
		if one.Problem != "" {
			state += ": " + record.Printable([]byte(one.Problem))
		}
		fmt.Fprintf(w, "  %s\t%s\n", record.Printable([]byte(one.Name)), state)
	}
}

func domainListCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, _ []string) error {
		c := dial()
		defer c.Close()
		all, err := c.Domains(ctx)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(d client.Domain) bool { return d.State == client.StateGone })
		return a.show(all, func(w io.Writer) { domainsText(w, all) })
	}
}

func domainsText(w io.Writer, domains []client.Domain) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "DOMAIN\tUUID\tSTATE\tENROLLED\tAGENT\tENTRIES\n")
	for _, d := range domains {
		enrolled, agent, size := "no", d.Agent, uint64(0)
		if d.Enrolled {
			enrolled = "yes"
		}
		if d.Silent {
			agent += ", silent"
		}
		if d.Log != nil {
			size = d.Log.Size
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", record.Printable([]byte(d.Name)), d.UUID, d.State, enrolled, agent, size)
	}
	t.Flush()
	for _, d := range domains {
		for _, h := range d.Holds {
			until := ""
			if h.Until != "" {
				until = " until " + h.Until
			}
			fmt.Fprintf(w, "%s: %s by policy %s since %s%s\n", record.Printable([]byte(d.Name)), h.Action, h.Policy, h.Since, until)
		}
	}
	if len(domains) == 0 {
		fmt.Fprintln(w, "no domains")
	}
}

func domainEnrollCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	return func(ctx context.Context, args []string) error {
		c := dial()
		defer c.Close()
		e, err := c.Enroll(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(e, func(w io.Writer) {
			if len(e.Done) == 0 {
				fmt.Fprintf(w, "%s (%s) is enrolled already\n", record.Printable([]byte(e.Name)), e.UUID)
			}
			for _, d := range e.Done {
				fmt.Fprintf(w, "%s: %s\n", record.Printable([]byte(e.Name)), d)
			}
		})
	}
}

// domainAgentStopCommand has the daemon tell an agent to end. Without a reason
// it does not ask: the reason is what an auditor reads later.
func domainAgentStopCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	reason := a.flags.String("reason", "", "why, in your words; it is sealed and signed, and cannot be left out")
	return func(ctx context.Context, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return &usageError{"--reason is missing: say why, it is sealed with the stop"}
		}
		c := dial()
		defer c.Close()
		answer, err := c.StopAgent(ctx, args[0], *reason)
		if err != nil {
			return err
		}
		name := record.Printable([]byte(answer.Name))
		if err := a.show(answer, func(w io.Writer) {
			fmt.Fprintf(w, "%s: the agent of session %s is told to stop: %s (command %s)\n", name, answer.Session, answer.Status, answer.Command)
		}); err != nil {
			return err
		}
		if answer.Status != client.AnswerDone {
			return fmt.Errorf("the agent of %s goes on: %s: %s", name, answer.Status, record.Printable([]byte(answer.Detail)))
		}
		return nil
	}
}
