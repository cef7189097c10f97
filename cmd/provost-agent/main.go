// Command provost-agent runs in a guest, as root: it observes with eBPF what
// changes the guest, signs it, and sends it to the host over virtio-serial.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/probe"
	"github.com/provostd/provost/guestagent/wire"
)

// version is set by the linker.
var version = "devel"

func main() {
	if len(os.Args) > 1 && os.Args[1] == probe.CanaryArg {
		probe.Canary(os.Args[2:])
		return
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 ended as asked, 1 failed, 2 bad usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "provost-agent:", err)
		return 2
	}
	if s.showVersion {
		fmt.Fprintln(stdout, "provost-agent", version)
		return 0
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: s.logLevel}))
	if err := serve(ctx, s, log); err != nil {
		log.ErrorContext(ctx, "agent ended", "error", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, s settings, log *slog.Logger) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	goingDown := watchInit("/proc/1/exe")
	signals := make(chan os.Signal, 1) // full: one is waiting already
	signal.Notify(signals, endings...)
	defer signal.Stop(signals)
	debug.SetGCPercent(loadingPercent)
	p, err := probe.Open(probe.Config{Mode: s.mode, Protect: s.protect, Check: s.check, Canary: []string{"/proc/self/exe", probe.CanaryArg},
		Options: s.options, Allocate: s.allocate, Budget: s.budget, DigestBytes: s.digestBytes, Log: log})
	if err != nil {
		return err
	}
	var kill func(pid uint32, start uint64) error
	if s.allowKill {
		kill = probe.Kill
		p.Hooks().Commands = []string{wire.KindKill.String()}
	}
	a, err := guestagent.New(guestagent.Config{
		Open:       func() (guestagent.Port, error) { return guestagent.OpenPort(s.port) },
		Source:     source(p),
		Hooks:      p.Hooks(),
		Version:    version,
		BootID:     boot,
		QueueBytes: s.queueBytes,
		SpoolBytes: s.spoolBytes, SpoolDirectory: s.spoolDir,
		Protector: protector(p, s.protect),
		GoingDown: goingDown,
		Kill:      kill,
		Log:       log,
	})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	if err := settle(); err != nil {
		log.WarnContext(ctx, "memory that loading took is kept", "error", err)
	}
	log.InfoContext(ctx, "observing", "mode", string(p.Mode()), "version", version, "session", fmt.Sprintf("%016x", a.Session()))
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { obey(watching, signals, signalPause, a.Terminate) })
	err = a.Run(ctx)
	stop()
	wg.Wait()
	// The kernel waits for every task at each program that is detached: with
	// many programs that is long behind the last record.
	log.InfoContext(ctx, "nothing more is sent, detaching")
	return errors.Join(err, p.Close())
}

// source observes, and gives account of what it leaves behind.
func source(p *probe.Probe) guestagent.Source {
	return func(ctx context.Context, a *guestagent.Agent) error {
		if err := p.Run(ctx, a); err != nil {
			return err
		}
		return p.Finish(a)
	}
}

// protector returns p where it is wanted to protect: whether it can, it says
// itself, and the hooks record too.
func protector(p *probe.Probe, wanted bool) guestagent.Protector {
	if !wanted {
		return nil
	}
	return p
}

func bootID() ([16]byte, error) {
	var id [16]byte
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read boot id: %w", err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("read boot id: %q is no UUID", b)
	}
	return [16]byte(raw), nil
}
