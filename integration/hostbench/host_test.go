package hostbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// host is the daemon's path from channels to verdicts, on a store of its own.
type host struct {
	dir      string
	store    *chain.Store
	index    *index.Index
	judge    *introspect.Judge
	sessions *guest.Sessions
	engine   *rules.Engine
	sender   *sender
	stops    []func() error // in order of start
}

const hostID = "bench.host"

var epoch = [16]byte{0xbe}

// newHost starts a store, an index, a judge with a bundle and sessions.
func newHost(t testing.TB, bundle fstest.MapFS, quota guest.Config) *host {
	t.Helper()
	h := &host{dir: t.TempDir()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, diags := policy.LoadFS(bundle)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var err error
	h.engine, err = rules.New(b, rules.Options{})
	must(err)
	k, err := keys.Create(filepath.Join(h.dir, "keys"))
	must(err)
	log := slog.New(slog.DiscardHandler)
	h.store, err = chain.Create(chain.Config{Dir: filepath.Join(h.dir, "ledger"), Anchor: filepath.Join(h.dir, "anchor"), HostID: hostID, Keys: k, Log: log})
	must(err)
	h.index, err = index.Open(index.Config{Store: h.store, Dir: filepath.Join(h.dir, "index"), Log: log})
	must(err)
	h.judge = introspect.NewJudge(introspect.JudgeConfig{Store: h.store, Engine: func(a *record.BundleActivation) (*rules.Engine, error) { return h.engine.For(a) }, Log: log})
	quota.Store, quota.Log = h.store, log
	h.sessions = guest.New(quota)
	h.start(h.store.Run)
	h.start(h.index.Run)
	h.start(h.judge.Run)
	h.start(h.sessions.Run)
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// start runs a part until close.
func (h *host) start(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	h.stops = append(h.stops, func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

func (h *host) close() error {
	var err error
	for i := len(h.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, h.stops[i]())
	}
	if h.sender != nil {
		err = errors.Join(err, h.sender.close())
	}
	return errors.Join(err, h.index.Close(), h.store.Close())
}

// guests makes n guests with the given frames each, connects them and returns
// their logs.
func (h *host) guests(ctx context.Context, frames, events []int) ([]*chain.Log, error) {
	plan := &senderPlan{Epoch: epoch, Frames: frames, Events: events}
	for i := range frames {
		plan.Domains = append(plan.Domains, domainOf(i))
		plan.Sockets = append(plan.Sockets, filepath.Join(h.dir, fmt.Sprint("s", i)))
	}
	var err error
	if h.sender, err = startSender(plan); err != nil {
		return nil, err
	}
	pid := h.sender.cmd.Process.Pid
	start, err := guest.ProcessStart(pid)
	if err != nil {
		return nil, err
	}
	var logs []*chain.Log
	for i := range frames {
		id := domain.UUID(plan.Domains[i])
		l, err := h.newLog(ctx, id)
		if err != nil {
			return nil, err
		}
		logs = append(logs, l)
		h.sessions.Set(&guest.Domain{UUID: id, Name: fmt.Sprint("vm", i), Socket: plan.Sockets[i], QEMU: guest.QEMU{Pid: pid, Start: start}, Log: l, Incarnation: 1, Epoch: epoch})
	}
	return logs, h.sender.tell(nil, "greet")
}

func domainOf(i int) (u [16]byte) {
	u[0], u[15] = 0xd0, byte(i)
	return u
}

// newLog makes the log of a domain, judged by the host's bundle.
func (h *host) newLog(ctx context.Context, id domain.UUID) (*chain.Log, error) {
	l, err := h.store.CreateLog(ctx, proof.VMOrigin(hostID, id.String(), 1), &record.Genesis{DomainName: id.String(), Cause: "define"})
	if err != nil {
		return nil, err
	}
	e, err := h.store.Draft(record.OriginHost, record.ClassPolicyLoaded, h.engine.ActivationFor(id.String()))
	if err != nil {
		return nil, err
	}
	_, err = h.store.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{e}})
	return l, err
}

// caughtUp waits until the judge has judged everything that is sealed and the
// index holds it.
func (h *host) caughtUp(ctx context.Context, entries uint64) error {
	for {
		if _, judged, _ := h.judge.Judged(); judged >= entries {
			break
		}
		select {
		case <-ctx.Done():
			_, judged, _ := h.judge.Judged()
			return fmt.Errorf("wait for the judge: %w: %d of %d entries", ctx.Err(), judged, entries)
		case <-time.After(time.Millisecond):
		}
	}
	return h.index.Wait(ctx)
}

// peakMemory returns the largest resident set since it was last called, in bytes.
func peakMemory() (uint64, error) {
	var kib uint64
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(b[indexOf(b, "VmHWM:"):]), "VmHWM: %d kB", &kib); err != nil {
		return 0, fmt.Errorf("read peak memory: %w", err)
	}
	return kib << 10, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}
