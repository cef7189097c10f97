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
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/hcl/v2"

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

const help = `usage: provostd [flags] [COMMAND [flags] [ARGUMENT]]

commands:
  run           keep the chains of this host's domains (default)
  init          create keys and ledger of a host that has none
  check         check the configuration and the policies, and end
  fsck          check every row of the ledger while no daemon runs
  backup        copy the ledger to a directory, beside a running daemon or without one
  restore       put a backup in the place of a ledger that is gone
  rotate-keys   replace the key of the VM logs and destroy the old one
  shard list    list the VM logs, and which are closed
  shard export  write the archive of a closed VM log to a file
  shard drop    take away a closed VM log that an archive has
  token create  make a token of a reader, and print it
  token list    list the tokens
  token revoke  take a token away, by its id or name
  hook          what libvirt's hook for QEMU runs: NAME OPERATION SUB EXTRA, the domain's XML on standard input
  version       print the version

flags:
`

// action does what a command is for.
type action func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, args []string) error

// command is a subcommand: how many arguments it takes, and what declares its
// flags and returns what does it.
type command struct {
	args  int
	raw   bool // takes arguments only, which may look like flags
	setup func(*flag.FlagSet) action
}

// plain is a command without flags and arguments.
func plain(f func(context.Context, *daemon.Config, *slog.Logger, io.Writer) error) command {
	return command{setup: func(*flag.FlagSet) action {
		return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer, _ []string) error {
			return f(ctx, cfg, log, stdout)
		}
	}}
}

var commands = map[string]command{
	"run": plain(runDaemon), "init": plain(initHost), "check": plain(check), "rotate-keys": plain(rotateKeys),
	"fsck": {setup: fsck}, "backup": {args: 1, setup: backup}, "restore": {args: 1, setup: restore},
	"hook":       {args: 4, raw: true, setup: hook},
	"shard list": plain(listShards), "shard export": {args: 2, setup: exportShard}, "shard drop": {args: 1, setup: dropShard},
	"token create": {setup: createToken}, "token list": plain(listTokens), "token revoke": {args: 1, setup: func(*flag.FlagSet) action { return revokeToken }},
}

// errFound is the error of a command that did its work and found what it
// looked at not to be sound.
var errFound = errors.New("the ledger is not sound")

// errPolicies is likewise, of policies in a backup.
var errPolicies = errors.New("the backup is not sound")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("provostd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	config := fs.String("config", "/etc/provost/provostd.hcl", "configuration `FILE`")
	fs.Usage = func() { usage(fs, stderr) }
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	name, rest := "run", fs.Args()
	if len(rest) > 0 {
		name, rest = rest[0], rest[1:]
	}
	if (name == "token" || name == "shard") && len(rest) > 0 {
		name, rest = name+" "+rest[0], rest[1:]
	}
	if name == "version" && len(rest) == 0 {
		fmt.Fprintln(stdout, "provostd", version)
		return 0
	}
	c, ok := commands[name]
	if !ok {
		fmt.Fprintf(stderr, "provostd: there is no command %q\nTry: provostd -h\n", name)
		return 2
	}
	own := flag.NewFlagSet("provostd "+name, flag.ContinueOnError)
	own.SetOutput(stderr)
	act := c.setup(own)
	if c.raw {
		rest = append([]string{"--"}, rest...)
	}
	if err := own.Parse(rest); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if own.NArg() != c.args {
		fmt.Fprintf(stderr, "provostd: the command %s takes %d arguments, there are %d: %q\nTry: provostd -h\n", name, c.args, own.NArg(), own.Args())
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
	err := act(ctx, cfg, log, stdout, own.Args())
	if err != nil {
		report(stderr, err)
	}
	switch {
	case errors.Is(err, errFound), errors.Is(err, errPolicies):
		return 3
	case err != nil:
		return 1
	}
	return 0
}

// usage prints the help, with the flags of every command that has some.
func usage(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, help)
	fs.PrintDefaults()
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		own := flag.NewFlagSet(name, flag.ContinueOnError)
		own.SetOutput(w)
		commands[name].setup(own)
		any := false
		own.VisitAll(func(*flag.Flag) { any = true })
		if any {
			fmt.Fprintf(w, "\nflags of %s:\n", name)
			own.PrintDefaults()
		}
	}
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
	// Programs that the daemon starts have nothing to tell systemd.
	systemd, err := daemon.OpenSupervisor(os.Getenv, log)
	if err = errors.Join(err, os.Unsetenv("NOTIFY_SOCKET")); err != nil {
		return err
	}
	d, err := daemon.New(cfg, version, log)
	if err != nil {
		return errors.Join(err, systemd.Close())
	}
	hangups := make(chan os.Signal, 1) // one that waits stands for all that follow
	signal.Notify(hangups, syscall.SIGHUP)
	ended := make(chan struct{})
	var reloads, watch sync.WaitGroup
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // beyond a stop, which takes its time
	defer unwatch()
	err = d.Run(ctx, func() {
		reloads.Go(func() { reloadOn(ctx, hangups, ended, d, log) })
		log.InfoContext(ctx, "ready", "version", version, "host", cfg.HostID, "socket", cfg.API.Socket, "listen", cfg.API.Listen, "listeners", len(cfg.Listeners))
		systemd.Ready()
		watch.Go(func() { systemd.Watch(watching, d.Stopping(), d) })
	})
	signal.Stop(hangups)
	close(ended)
	reloads.Wait()
	err = errors.Join(err, d.Close())
	unwatch()
	watch.Wait()
	return errors.Join(err, systemd.Close())
}

// reloadOn has certificates, tokens, policies and approvers read at each SIGHUP, until the daemon
// has ended.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, ended <-chan struct{}, d *daemon.Daemon, log *slog.Logger) {
	for {
		select {
		case <-ended:
			return
		case <-hangups:
			if err := d.Reload(ctx); err == nil { // a failure is logged where it is found
				log.InfoContext(ctx, "certificates, tokens, policies and approvers are read")
			}
		}
	}
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
	if err := errors.Join(daemon.CheckWitnesses(cfg), daemon.CheckListeners(cfg), daemon.CheckAlerts(cfg)); err != nil {
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
	if err := daemon.CheckPolicies(cfg, b); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "configuration is valid; bundle %s %s has %d policies\n", b.Name, b.Version, len(b.Policies))
	return err
}

func rotateKeys(ctx context.Context, cfg *daemon.Config, log *slog.Logger, stdout io.Writer) error {
	e, err := daemon.RotateKeys(ctx, cfg, log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "key %d of the VM logs is %s, certified in entry %d of the host log; the one before it is destroyed\n", e.Number, e.Key, e.Index)
	return err
}
