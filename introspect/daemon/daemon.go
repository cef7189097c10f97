package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/enforce"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/notify"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules/policy"
)

// Daemon is one provostd, built and not yet running.
type Daemon struct {
	cfg     *Config
	version string
	log     *slog.Logger
	started time.Time

	store     *chain.Store
	index     *index.Index
	keys      *keys.Keys
	policies  *policies
	host      *virt.Host
	sessions  *guest.Sessions
	registry  *introspect.Registry
	judge     *introspect.Judge
	approvals *introspect.Approvals
	enforcer  *enforce.Enforcer
	notifier  *notify.Notifier
	guards    *guards
	metrics   *metrics
	door      *access.Stats
	sealer    *access.Sealer
	reloads   []reloader    // what is read anew; listen adds to it
	stopping  chan struct{} // closed when Run begins to stop
}

// PolicyError says that the policy bundle does not load. The daemon does not
// start with policies other than those it was given (invariant I10).
type PolicyError struct {
	Dir   string
	Diags hcl.Diagnostics
}

func (e *PolicyError) Error() string {
	return fmt.Sprintf("policies in %s do not load: provost policy check %s explains", e.Dir, e.Dir)
}

// Init creates keys and ledger of a host that has none. It refuses to touch
// what is there: beginning a history is a deliberate act.
func Init(cfg *Config, log *slog.Logger) error {
	for _, d := range []string{cfg.StateDir, filepath.Dir(cfg.Anchor)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	k, err := keys.Create(cfg.keysDir())
	if errors.Is(err, fs.ErrExist) {
		// An earlier start may have died between the two steps.
		k, err = keys.Open(cfg.keysDir())
	}
	if err != nil {
		return fmt.Errorf("create keys: %w", err)
	}
	s, err := chain.Create(cfg.chain(k, log))
	if err != nil {
		return fmt.Errorf("create ledger: %w", err)
	}
	return s.Close()
}

func (c *Config) keysDir() string { return filepath.Join(c.StateDir, "keys") }

func (c *Config) chain(k *keys.Keys, log *slog.Logger) chain.Config {
	return chain.Config{
		Dir: filepath.Join(c.StateDir, "ledger"), Anchor: c.Anchor, PayloadKeys: c.PayloadKeys, HostID: c.HostID, Keys: k, Log: log,
		CheckpointEvery: c.Checkpoints.vm, HostEvery: c.Checkpoints.host, WitnessEvery: c.Checkpoints.quote,
		Retention: c.Retention.keep, DomainRetention: c.Retention.domains,
	}
}

// Initialised reports whether the host has a ledger.
func Initialised(cfg *Config) bool {
	_, err := os.Stat(filepath.Join(cfg.StateDir, "ledger"))
	return err == nil
}

// New opens the ledger and builds every part. Nothing runs before Run.
func New(cfg *Config, version string, log *slog.Logger) (_ *Daemon, err error) {
	d := &Daemon{cfg: cfg, version: version, log: log, started: time.Now(), metrics: newMetrics(version), stopping: make(chan struct{})}
	if d.keys, err = keys.Open(cfg.keysDir()); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	if d.policies, err = openPolicies(cfg, log); err != nil {
		return nil, err
	}
	ledger := cfg.chain(d.keys, log)
	if ledger.Witnesses, ledger.Quorum, err = cfg.witnesses(); err != nil {
		return nil, err
	}
	if d.store, err = chain.Open(ledger); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.store.Close())
		}
	}()
	if d.index, err = index.Open(index.Config{Store: d.store, Dir: filepath.Join(cfg.StateDir, "index"), Log: log}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.index.Close())
		}
	}()
	stats := &guest.Stats{}
	d.sessions = guest.New(guest.Config{
		Store: d.store, Log: log, Now: time.Now, Stats: stats, Commands: d.keys,
		Room: func(ctx context.Context, l *chain.Log, sealed <-chan struct{}) error {
			return d.judge.Room(ctx, l, sealed)
		},
		RecordsPerSecond: cfg.Guest.RecordsPerSecond, BytesPerSecond: cfg.Guest.BytesPerSecond,
		SilentAfter: cfg.Guest.silentAfter, BootGrace: cfg.Guest.bootGrace, Heartbeat: cfg.Guest.heartbeat, Duty: cfg.duty,
	})
	d.registry, err = introspect.NewRegistry(introspect.RegistryConfig{
		Store: d.store, Sessions: d.sessions, HostID: cfg.HostID, Software: "provostd " + version,
		Activation: d.policies.activation, Log: log, ShardEntries: cfg.Shards.Entries, ImageRate: cfg.Libvirt.ImageRate, ShardAge: cfg.Shards.age,
		Inspect: func(ctx context.Context, id domain.UUID) (virt.Snapshot, error) { return d.host.Inspect(ctx, id) },
		Mark:    func(ctx context.Context, id domain.UUID, m *virt.Mark) error { return d.host.SetMark(ctx, id, m) },
		Reverted: func(ctx context.Context, id domain.UUID) (*virt.Image, error) {
			return d.host.CurrentSnapshot(ctx, id)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("build registry: %w", err)
	}
	d.host, err = virt.New(virt.Config{
		URI: cfg.Libvirt.URI, RunDir: cfg.Libvirt.RunDir, ConfigDir: cfg.Libvirt.ConfigDir, SaveDir: cfg.Libvirt.SaveDir,
		SweepEvery: cfg.Libvirt.sweepEvery, AuditLog: cfg.Libvirt.AuditLog, Sink: d.observe, Log: log, Now: time.Now,
		Known: d.registry.Known(), Since: d.lastSealed(),
	})
	if err != nil {
		return nil, fmt.Errorf("build libvirt adapter: %w", err)
	}
	d.approvals, err = introspect.NewApprovals(introspect.ApprovalsConfig{
		Store: d.store, Registry: d.registry, HostID: cfg.HostID, Roots: cfg.approvers, Now: time.Now, Log: log,
		Policies: func() []*policy.Policy { e, _ := d.policies.current(); return e.Bundle().Policies },
	})
	if err != nil {
		return nil, err
	}
	d.reloads = []reloader{approverReload{d}}
	d.judge = introspect.NewJudge(introspect.JudgeConfig{Store: d.store, Engine: d.policies.judge, Log: log, Count: d.metrics.triggered})
	if d.notifier, err = openNotifier(d); err != nil {
		return nil, err
	}
	if d.guards, err = openGuards(d); err != nil {
		return nil, err
	}
	acts := enforce.Config{
		Settings: cfg.Enforcement.settings(), Store: d.store, Actor: d.host, Alert: d.alert, Kill: d.kill, Current: d.registry.Current, Log: log, Now: time.Now, Count: d.metrics.acted,
		Seal: d.registry.SealFor, Running: d.registry.Running, Limit: d.policies.limit, Second: d.second,
	}
	if d.guards != nil {
		acts.Guard = d.guards.guard
	}
	if d.enforcer, err = enforce.New(acts); err != nil {
		return nil, err
	}
	d.metrics.guest(stats)
	d.metrics.libvirt(d.host.Stats())
	d.metrics.images(d.registry.ImageStats())
	d.metrics.ledger(d.store, d.judge, d.enforcer)
	d.metrics.index(d.index)
	d.metrics.witnesses(d.store)
	d.door, d.sealer = &access.Stats{}, &access.Sealer{Store: d.store}
	d.metrics.access(d.door, d.sealer)
	d.metrics.retention(d.store.RetentionStats())
	d.metrics.alerts(d.notifier)
	return d, nil
}

// observe seals what libvirt tells, and has taps looked at that may have come by it.
func (d *Daemon) observe(ctx context.Context, o virt.Observation) error {
	defer d.guards.kick()
	return d.registry.Observe(ctx, o)
}

// lastSealed is when an earlier run was surely still listening: the newest
// wall time in the ledger, or zero for a new one.
func (d *Daemon) lastSealed() time.Time {
	if len(d.store.Logs()) < 2 {
		return time.Time{} // no domain was ever seen: nothing was missed
	}
	var newest int64
	for _, l := range d.store.Logs() {
		newest = max(newest, l.Head().Wall)
	}
	return time.Unix(0, newest)
}

// Close gives the index and the ledger back. It must follow Run.
func (d *Daemon) Close() error {
	return errors.Join(d.guards.close(), d.index.Close(), d.store.Close())
}

// part is something that runs. Parts stop in the reverse order of their start,
// each after the ones that feed it.
type part struct {
	name string
	run  func(context.Context) error
}

// Stopping is closed when Run begins to stop its parts, for whatever cause.
func (d *Daemon) Stopping() <-chan struct{} { return d.stopping }

// Run runs the daemon until ctx ends or a part fails. It may be called once. ready is called when it
// listens.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	servers, err := d.listen()
	if err != nil {
		return err
	}
	parts := []part{
		{"ledger", d.store.Run},
		{"index", d.index.Run},
		{"keys", d.rotateKeys},
		{"alerts", d.notifier.Run},
		{"enforcer", d.enforcer.Run},
		{"judge", d.judge.Run},
		{"sessions", d.sessions.Run},
		{"registry", d.registry.Run},
		{"images", d.registry.RunImages},
		{"libvirt", d.host.Run},
		{"packet filter", d.guards.run},
		{"listeners", servers.run},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stops := make([]func() error, 0, len(parts))
	for _, p := range parts {
		stops = append(stops, start(ctx, cancel, p))
		if p.name == "ledger" {
			err := d.sealStart(ctx)
			if err == nil {
				err = d.approvals.SealRoots(ctx)
			}
			if err != nil {
				cancel(err)
				break
			}
		}
	}
	if ctx.Err() == nil {
		ready()
	}
	<-ctx.Done()
	failure := context.Cause(ctx)
	if errors.Is(failure, context.Canceled) {
		failure = nil
	}
	close(d.stopping)
	d.log.Info("stopping", "cause", fmt.Sprint(failure))
	for i := len(stops) - 1; i >= 0; i-- {
		if i == 0 && failure == nil {
			failure = d.seal(context.Background(), record.ClassHostStop, "stop")
		}
		failure = errors.Join(failure, stops[i]())
	}
	return failure
}

// start runs a part in a goroutine and returns what stops and waits for it. A
// part that ends by itself ends the daemon.
func start(ctx context.Context, fail context.CancelCauseFunc, p part) func() error {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		err = p.run(own)
		if own.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			err = fmt.Errorf("%s: %w", p.name, err)
			fail(err)
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		if err == nil || errors.Is(err, context.Canceled) || errors.Is(context.Cause(ctx), err) {
			return nil
		}
		return err
	}
}

// sealStart seals that the daemon begins, with which configuration and which policies.
func (d *Daemon) sealStart(ctx context.Context) error {
	if err := d.seal(ctx, record.ClassHostStart, "start"); err != nil {
		return err
	}
	e, _ := d.policies.current()
	_, err := d.sealPolicies(ctx, e, "at the start of the daemon")
	return err
}

func (d *Daemon) seal(ctx context.Context, c record.Class, what string) error {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %+v %+v %+v %+v %s", d.cfg.HostID, *d.cfg.Libvirt, *d.cfg.API, *d.cfg.Guest, d.cfg.Domains, d.cfg.Mode))
	for _, l := range d.cfg.Listeners {
		sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v", l))
	}
	for _, i := range d.cfg.Identities {
		sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v", i))
	}
	for _, w := range d.cfg.Witnesses {
		sum = sha256.Sum256(fmt.Appendf(sum[:], " %s %s %s %s", w.Name, w.URL, w.Key, d.cfg.Witnessing.Policy))
	}
	sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v %+v", d.cfg.Retention.keep, d.cfg.Retention.domains)) // fmt prints maps in order
	sum = sha256.Sum256(fmt.Appendf(sum[:], " %s", d.cfg.approvers.Text()))
	sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v", *d.cfg.Enforcement))
	for _, c := range d.cfg.AlertChannels {
		sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v", c)) // of secrets it names files
	}
	if d.cfg.Egress != nil {
		sum = sha256.Sum256(fmt.Appendf(sum[:], " %+v", *d.cfg.Egress))
	}
	m := &record.Daemon{What: what, Version: d.version, Pid: uint32(os.Getpid()), Session: d.store.RunID(), ConfigurationSha256: sum[:]}
	if b := d.policies.bundle(); b != nil {
		m.Detail = "policy bundle " + b.Name + " " + b.Version + " " + hex.EncodeToString(b.Digest[:])
	}
	e, err := d.store.Draft(record.OriginHost, c, m)
	if err != nil {
		return err
	}
	if _, err := d.store.Append(ctx, chain.Batch{Log: d.store.HostLog(), Entries: []chain.Entry{e}}); err != nil {
		return fmt.Errorf("seal %s: %w", c, err)
	}
	return nil
}
