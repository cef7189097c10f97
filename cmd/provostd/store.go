package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/daemon"
)

// Commands on the ledger itself.

func fsck(fs *flag.FlagSet) action {
	mend := fs.Bool("repair", false, "mend what is wrong: rebuild what follows from other rows, fence off evidence that is damaged")
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, _ []string) error {
		if *mend {
			r, err := daemon.Repair(ctx, cfg, log)
			return printRepair(stdout, r, err)
		}
		r, err := daemon.Fsck(ctx, cfg, log)
		if err != nil {
			return err
		}
		if err := printReport(stdout, r); err != nil {
			return err
		}
		p, err := daemon.CheckPolicyTexts(cfg, r)
		if err != nil {
			return err
		}
		return printTexts(stdout, p, cfg.PolicyBundles())
	}
}

// printReport prints what fsck found. A ledger with findings is an error.
func printReport(w io.Writer, r *chain.Report) error {
	fmt.Fprintf(w, "%d logs, %d entries, %d payloads, %d tiles, %d checkpoints, %d commits, %d frame statements checked\n",
		r.Logs, r.Entries, r.Payloads, r.Tiles, r.Checkpoints, r.Commits, r.Frames)
	if r.Dropped > 0 {
		fmt.Fprintf(w, "%d entries are in logs that were dropped: archives have them\n", r.Dropped)
	}
	if r.Fenced > 0 {
		fmt.Fprintf(w, "%d entries are fenced off as damaged\n", r.Fenced)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s\n", f)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "  and %d more\n", r.More)
	}
	if !r.OK() {
		return fmt.Errorf("keep this report and a copy of the store; provostd fsck -repair mends what can be mended: %w", errFound)
	}
	_, err := fmt.Fprintln(w, "nothing is wrong")
	return err
}

// printTexts says of which policies the text lacks, which is no damage of the ledger:
// nothing that was sealed is lost with it.
func printTexts(w io.Writer, p *daemon.PolicyTexts, dir string) error {
	for _, b := range p.Lacking {
		if _, err := fmt.Fprintf(w, "policy bundle %s, which entry %d of %s names, is not kept in %s: verdicts under it cannot be evaluated again; put its directory back from a backup\n", b.Digest, b.Index, b.Log, dir); err != nil {
			return err
		}
	}
	for _, digest := range p.Unnamed {
		if _, err := fmt.Fprintf(w, "policy bundle %s is kept in %s and named by no entry here any more; evidence and archives that were given away may name it\n", digest, dir); err != nil {
			return err
		}
	}
	return nil
}

// printRepair prints what a repair found and did. It is an error where evidence
// was lost, or where nothing could be done.
func printRepair(w io.Writer, r *chain.Repaired, err error) error {
	if r == nil {
		return err
	}
	if r.Broken != nil {
		fmt.Fprintf(w, "the ledger cannot be read as it is: %v\n", r.Broken)
	} else if r.Kept == "" && err == nil {
		return printReport(w, r.Before)
	} else {
		fmt.Fprintf(w, "%d findings before the repair\n", len(r.Before.Findings)+r.Before.More)
	}
	if err != nil {
		return errors.Join(err, errFound)
	}
	for _, d := range r.Done {
		fmt.Fprintf(w, "  %s\n", record.Text(record.ClassDamage, d))
	}
	fmt.Fprintf(w, "mended; what was done is sealed in the host log; the damaged ledger is kept in %s\n", r.Kept)
	if err := printReport(w, r.After); err != nil || !r.Fenced() {
		return err
	}
	return fmt.Errorf("rows of evidence were lost, see above; the rest is whole: %w", errFound)
}

func backup(fs *flag.FlagSet) action {
	keys := fs.String("payload-keys", "", "copy the keys of the payloads to directory `DIR`, on a disk of its own; without them no payload of the backup can be read")
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, args []string) error {
		b, err := daemon.Backup(ctx, cfg, log, version, args[0], *keys)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "copied %d logs with %d entries to %s: %d files, %d bytes; host log at size %d, root %s\n",
			b.Logs, b.Entries, b.Dir, b.Files, b.Bytes, b.Size, b.Root)
		if b.PayloadKeys != "" {
			fmt.Fprintf(stdout, "copied the keys of the payloads to %s: whoever has both can read all of them; encrypt one of the two, and keep them apart\n", b.PayloadKeys)
		}
		if b.Linked {
			fmt.Fprintf(stdout, "%s is on the disk of the ledger and shares files with it: copy it to another disk\n", b.Dir)
		}
		return nil
	}
}

func restore(fs *flag.FlagSet) action {
	keys := fs.String("payload-keys", "", "put the copy of the payload keys in `DIR` in their place, where they are gone too")
	accept := fs.Bool("accept-rollback", false, "give up what was published after the backup; needs -reason")
	reason := fs.String("reason", "", "why, for the host log: `TEXT`")
	who := fs.String("requester", "", "who restores, for the host log: `NAME`; default: the user who calls")
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, args []string) error {
		o := chain.RestoreOptions{Dir: args[0], PayloadKeys: *keys, AcceptRollback: *accept, Reason: *reason, Requester: *who}
		if o.Requester == "" {
			o.Requester = caller()
		}
		r, p, err := daemon.Restore(ctx, cfg, log, o)
		if err != nil {
			if r != nil && r.Report != nil && !r.Report.OK() {
				return errors.Join(printReport(stdout, r.Report), err)
			}
			return err
		}
		text := restored(r)
		if r.Report != nil && r.Report.NoKey > 0 {
			text += fmt.Sprintf("%d payloads cannot be read: their keys are not there, or were destroyed by an erasure behind the backup\n", r.Report.NoKey)
		}
		if p.Bundles+p.There > 0 {
			text += fmt.Sprintf("%d policy bundles restored, %d were kept here already\n", p.Bundles, p.There)
		}
		for _, d := range p.Damaged {
			text += fmt.Sprintf("not restored: policy bundle %s\n", d)
		}
		if _, err := fmt.Fprint(stdout, text); err != nil || len(p.Damaged) == 0 {
			return err
		}
		return fmt.Errorf("the ledger is restored, but %d policy bundles of the backup are damaged: verdicts under them cannot be evaluated again: %w", len(p.Damaged), errPolicies)
	}
}

// restored says what a restore has brought back and what not.
func restored(r *chain.Restored) string {
	switch r.State {
	case chain.RestoreComplete:
		return fmt.Sprintf("restored, host log at size %d: nothing that was published is lost\n", r.Size)
	case chain.RestoreUnknown:
		return fmt.Sprintf("restored, host log at size %d: what was published after it is not known\n", r.Size)
	}
	return fmt.Sprintf("restored, host log at size %d: %d published entries are given up, which is sealed; witnesses that have seen them must be told\n", r.Size, r.Lost)
}

// caller names who runs this program.
func caller() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username + " (" + name + ")"
	}
	return name
}
