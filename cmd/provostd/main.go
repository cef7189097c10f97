// Command provostd is the daemon of a KVM host: it keeps the provenance chains
// of the host's domains and acts on them by policy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/daemon"
	"github.com/provostd/provost/rules/policy"
)

// version is set by the build.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const help = `usage: provostd [flags] [COMMAND]

commands:
  run          keep the chains of this host's domains (default)
  init         create keys and ledger of a host that has none
  check        check the configuration and the policies, and end
  fsck         check every row of the ledger while no daemon runs
  rotate-keys  replace the key of the VM logs and destroy the old one
  version      print the version

flags:
`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("provostd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	config := fs.String("config", "/etc/provost/provostd.hcl", "configuration `FILE`")
	fs.Usage = func() { fmt.Fprint(stderr, help); fs.PrintDefaults() }
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	command := "run"
	if fs.NArg() > 0 {
		command = fs.Arg(0)
	}
	if fs.NArg() > 1 {
		fmt.Fprintf(stderr, "provostd: %q follows the command %s, which takes no arguments\n", fs.Arg(1), command)
		return 2
	}
	if command == "version" {
		fmt.Fprintln(stdout, "provostd", version)
		return 0
	}
	act, ok := map[string]func(context.Context, *daemon.Config, *slog.Logger, io.Writer) error{
		"run": runDaemon, "init": initHost, "check": check, "fsck": fsck, "rotate-keys": rotateKeys,
	}[command]
	if !ok {
		fmt.Fprintf(stderr, "provostd: there is no command %q\nTry: provostd -h\n", command)
		return 2
	}
	cfg, files, diags := daemon.ReadConfig(*config)
	if len(diags) > 0 {
		show(stderr, diags, files)
	}
	if diags.HasErrors() {
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level(cfg.LogLevel)}))
	if err := act(ctx, cfg, log, stdout); err != nil {
		report(stderr, err)
		return 1
	}
	return 0
}

// show prints diagnostics of the configuration.
func show(w io.Writer, diags hcl.Diagnostics, files map[string]*hcl.File) {
	sources := map[string][]byte{}
	for name, f := range files {
		if f != nil {
			sources[name] = f.Bytes
		}
	}
	if err := policy.WriteDiagnostics(w, diags, sources, 100, false); err != nil {
		fmt.Fprintln(w, diags.Error())
	}
}

// report prints why a command failed; policies that do not load with every
// diagnostic.
func report(w io.Writer, err error) {
	var p *daemon.PolicyError
	if errors.As(err, &p) {
		if werr := policy.WriteDiagnostics(w, p.Diags, policy.Sources(p.Dir, p.Diags), 100, false); werr != nil {
			fmt.Fprintln(w, p.Diags.Error())
		}
	}
	fmt.Fprintf(w, "provostd: %v\n", err)
}

func level(word string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(word)); err != nil {
		return slog.LevelInfo // the configuration has been checked
	}
	return l
}

func runDaemon(ctx context.Context, cfg *daemon.Config, log *slog.Logger, _ io.Writer) error {
	if !daemon.Initialised(cfg) {
		return fmt.Errorf("there is no ledger in %s; provostd init begins one", cfg.StateDir)
	}
	d, err := daemon.New(cfg, version, log)
	if err != nil {
		return err
	}
	err = d.Run(ctx, func() {
		log.InfoContext(ctx, "ready", "version", version, "host", cfg.HostID, "socket", cfg.API.Socket, "listen", cfg.API.Listen)
		notifyReady(log)
	})
	return errors.Join(err, d.Close())
}

func initHost(_ context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer) error {
	if err := daemon.Init(cfg, log); err != nil {
		return err
	}
	key, err := daemon.VerifierKey(cfg)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "created keys and ledger in %s\nverifier key of the host log, give it to your auditors:\n%s\n", cfg.StateDir, key)
	return err
}

func check(_ context.Context, cfg *daemon.Config, _ *slog.Logger, stdout io.Writer) error {
	if err := daemon.CheckWitnesses(cfg); err != nil {
		return err
	}
	if cfg.Policies == "" {
		_, err := fmt.Fprintln(stdout, "configuration is valid; there are no policies")
		return err
	}
	b, diags := policy.Load(cfg.Policies)
	if diags.HasErrors() {
		return &daemon.PolicyError{Dir: cfg.Policies, Diags: diags}
	}
	_, err := fmt.Fprintf(stdout, "configuration is valid; bundle %s %s has %d policies\n", b.Name, b.Version, len(b.Policies))
	return err
}

func fsck(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer) error {
	r, err := daemon.Fsck(ctx, cfg, log)
	if err != nil {
		return err
	}
	return printReport(stdout, r)
}

func rotateKeys(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer) error {
	e, err := daemon.RotateKeys(ctx, cfg, log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "key %d of the VM logs is %s, certified in entry %d of the host log; the one before it is destroyed\n", e.Number, e.Key, e.Index)
	return err
}

// printReport prints what fsck found. A ledger with findings is an error.
func printReport(w io.Writer, r *chain.Report) error {
	fmt.Fprintf(w, "%d logs, %d entries, %d payloads, %d tiles, %d checkpoints, %d commits, %d frame statements checked\n",
		r.Logs, r.Entries, r.Payloads, r.Tiles, r.Checkpoints, r.Commits, r.Frames)
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s\n", f)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "  and %d more\n", r.More)
	}
	if !r.OK() {
		return errors.New("the ledger is damaged; keep this report and a copy of the store, and do not run the daemon on it")
	}
	_, err := fmt.Fprintln(w, "nothing is wrong")
	return err
}
