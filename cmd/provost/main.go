// Command provost is the operator's and the auditor's command line. It links
// neither libvirt nor the store: whatever touches a live host goes through the
// daemon's socket, and verification needs nothing but files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// version is set by the build.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes, documented in docs/cli.md.
const (
	exitOK      = 0
	exitFailed  = 1 // the command could not do its work
	exitUsage   = 2 // it was called wrongly
	exitInvalid = 3 // it did its work, and what it looked at is not valid
)

// app is one call: what its command declares, and where it writes.
type app struct {
	stdout, stderr io.Writer
	flags          *flag.FlagSet
	output         string
	raw            bool    // entries are printed as they came
	remote         *remote // nil: the command asks no daemon
}

// command is one subcommand. declare adds flags and returns what is run behind
// their parsing.
type command struct {
	name, args, short string
	nargs             [2]int // fewest and most arguments
	declare           func(a *app) func(ctx context.Context, args []string) error
}

var commands = []command{
	{"status", "", "show what the daemon does", [2]int{0, 0}, statusCommand},
	{"domain list", "", "list domains, their agents and their logs", [2]int{0, 0}, domainListCommand},
	{"domain chain", "DOMAIN", "show all logs of a domain and how they hang together", [2]int{1, 1}, domainChainCommand},
	{"domain enroll", "DOMAIN", "give a domain the channel for its guest agent", [2]int{1, 1}, domainEnrollCommand},
	{"domain agent-stop", "DOMAIN", "have the guest agent of a domain end; the reason is sealed", [2]int{1, 1}, domainAgentStopCommand},
	{"release", "DOMAIN", "end what policies have done to a domain that lasts; the reason is sealed", [2]int{1, 1}, releaseCommand},
	{"tail", "[DOMAIN]", "show sealed entries; -f goes on with new ones", [2]int{0, 1}, tailCommand},
	{"query", "", "find sealed entries by what they say", [2]int{0, 0}, queryCommand},
	{"lineage", "PATH|PID|ADDRESS", "show what led to something, and what came of it", [2]int{1, 1}, lineageCommand},
	{"erase", "DOMAIN", "erase payloads of its records for good; the erasure is sealed", [2]int{1, 1}, eraseCommand},
	{"approve", "", "sign an approval of what policies would report, and hand it in", [2]int{0, 0}, approveCommand},
	{"approvals list", "", "list approvals", [2]int{0, 0}, approvalsListCommand},
	{"approvals show", "ID", "show an approval, its statement, and how often it was used", [2]int{1, 1}, approvalsShowCommand},
	{"approvals revoke", "ID", "sign a revocation of an approval, and hand it in", [2]int{1, 1}, approvalsRevokeCommand},
	{"alerts list", "", "list the host's alert channels, what waits at them, and how they do", [2]int{0, 0}, alertsListCommand},
	{"alerts test", "CHANNEL", "send a test alert by a channel", [2]int{1, 1}, alertsTestCommand},
	{"export", "DOMAIN", "write an evidence bundle", [2]int{1, 1}, exportCommand},
	{"verify", "FILE|DIR|URL...", "verify evidence, the archive of a shard, or whole logs in a directory or at a URL; several bundles also against each other", [2]int{1, 1000}, verifyCommand},
	{"tree", "FILE...", "draw the epochs of domains from evidence bundles, over hosts and incarnations", [2]int{1, 1000}, treeCommand},
	{"policy check", "DIR", "check a policy bundle", [2]int{1, 1}, policyCheckCommand},
	{"policy test", "DIR", "run the tests beside a policy bundle", [2]int{1, 1}, policyTestCommand},
	{"policy explain", "POLICY ENTRY", "say why a policy did or did not match an entry", [2]int{2, 2}, policyExplainCommand},
	{"policy fmt", "DIR|FILE...", "bring policy and test files into their canonical form", [2]int{1, 1000}, policyFmtCommand},
	{"policy diff", "OLD NEW", "show what differs between two bundles in meaning", [2]int{2, 2}, policyDiffCommand},
	{"policy docs", "DIR", "write a catalogue of a bundle in Markdown", [2]int{1, 1}, policyDocsCommand},
	{"policy lsp", "", "serve an editor as language server for policies, on standard input and output", [2]int{0, 0}, policyLSPCommand},
	{"policy convert sigma", "FILE|DIR", "make a policy bundle of Sigma rules", [2]int{1, 1}, policyConvertSigmaCommand},
	{"policy active", "", "show which policies are in force, in which mode for which domain", [2]int{0, 0}, policyActiveCommand},
	{"policy apply", "DIR", "check a bundle and bring it in force on a running daemon", [2]int{1, 1}, policyApplyCommand},
	{"policy replay", "DIR", "judge recorded entries by a bundle, beside the one in force", [2]int{1, 1}, policyReplayCommand},
	{"policy rollback", "", "bring the bundle in force that was before", [2]int{0, 0}, policyRollbackCommand},
	{"version", "", "print the version", [2]int{0, 0}, versionCommand},
}

// usageError is a call that cannot be carried out as it is.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

// errInvalid says that what was looked at is not valid. It has been shown.
var errInvalid = errors.New("not valid")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, rest := find(args)
	if c == nil {
		return noCommand(args, stdout, stderr)
	}
	a := newApp(c, stdout, stderr)
	do := c.declare(a)
	positional, err := parse(a.flags, rest)
	if errors.Is(err, flag.ErrHelp) {
		a.help(c)
		return exitOK
	}
	if err == nil {
		err = c.check(a, positional)
		if err == nil && a.remote != nil {
			err = a.remote.connect()
		}
	} else {
		err = &usageError{err.Error()}
	}
	if err == nil {
		err = do(ctx, positional)
	}
	return a.exit(c, err)
}

func newApp(c *command, stdout, stderr io.Writer) *app {
	a := &app{stdout: stdout, stderr: stderr, flags: flag.NewFlagSet("provost "+c.name, flag.ContinueOnError)}
	a.flags.SetOutput(io.Discard)
	a.flags.StringVar(&a.output, "output", "text", "text or json")
	return a
}

// find returns the command that args begin with, and what follows it.
func find(args []string) (*command, []string) {
	for i := range commands {
		words := strings.Fields(commands[i].name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return &commands[i], args[len(words):]
		}
	}
	return nil, nil
}

// parse takes flags before, between and behind the arguments.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var positional []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return positional, nil
		}
		positional = append(positional, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// given reports whether a flag was given, be it with the value it has without.
func (a *app) given(name string) (found bool) {
	a.flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (c *command) check(a *app, args []string) error {
	if a.output != "text" && a.output != "json" {
		return &usageError{fmt.Sprintf("--output is %q, want text or json", a.output)}
	}
	if len(args) < c.nargs[0] || len(args) > c.nargs[1] {
		return &usageError{fmt.Sprintf("%d arguments, want: provost %s", len(args), strings.TrimSpace(c.name+" "+c.args))}
	}
	return nil
}

// exit reports an error and chooses the code.
func (a *app) exit(c *command, err error) int {
	var wrong *usageError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(plain{a.stderr}, "provost %s: %s\nTry: provost %s -h\n", c.name, said(err), c.name)
		return exitUsage
	case errors.Is(err, errInvalid):
		return exitInvalid
	}
	fmt.Fprintf(plain{a.stderr}, "provost %s: %s\n", c.name, said(err))
	return exitFailed
}

// classes are the words by which programs tell errors apart. People are told the rest.
var classes = regexp.MustCompile(`: (?:reject|retry|fatal)(: |; |\n|$)`)

func said(err error) string { return classes.ReplaceAllString(err.Error(), "$1") }

// show prints v as JSON where that was asked for, and text otherwise.
func (a *app) show(v any, text func(io.Writer)) error {
	if a.output == "text" {
		text(plain{a.stdout})
		return nil
	}
	enc := a.encoder()
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func versionCommand(a *app) func(context.Context, []string) error {
	return func(context.Context, []string) error {
		return a.show(map[string]string{"version": version}, func(w io.Writer) { fmt.Fprintln(w, "provost", version) })
	}
}
