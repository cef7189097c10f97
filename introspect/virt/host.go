package virt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Config says which libvirt to listen to. Only Sink is required.
type Config struct {
	// URI of libvirt. Zero value "qemu:///system".
	URI string
	// Sink takes the observations, one at a time, in order. It may block. An error of class
	// record.ErrRetry has the same observation offered again; any other error ends Run.
	Sink func(ctx context.Context, o Observation) error
	// Log: zero value discards.
	Log *slog.Logger
	// Now stamps observations. Zero value time.Now.
	Now func() time.Time
	// RunDir is where libvirt keeps the pid files of its QEMUs. Zero value "/run/libvirt/qemu".
	RunDir string
	// ConfigDir is where libvirt keeps the persistent configurations. Zero value "/etc/libvirt/qemu".
	ConfigDir string
	// SaveDir is where libvirt keeps managed saves. Zero value "/var/lib/libvirt/qemu/save".
	SaveDir string
	// AuditLog is the kernel's audit log, where libvirt says for whom it acts. Zero value: none is read.
	AuditLog string
	// SweepEvery is the time between looks at every domain. Zero value 60 s.
	SweepEvery time.Duration
	// Known and Since are what an earlier run of the daemon has last known, and when it last
	// listened. With Since set the first connection reports a gap that begins there.
	Known []Known
	Since time.Time
	// KeepAliveInterval is the time between probes of the connection, in whole seconds. Zero value 5 s.
	KeepAliveInterval time.Duration
	// KeepAliveCount is the number of probes without answer after which the connection counts as
	// lost. Zero value 3.
	KeepAliveCount uint
	// ConnectTimeout bounds one attempt to connect. Zero value 10 s.
	ConnectTimeout time.Duration
	// CallTimeout bounds one call to libvirt. Zero value 10 s.
	CallTimeout time.Duration
	// SnapshotTimeout bounds the reading of the facts of an event, and so how long one stuck domain
	// holds back the observations behind it. Zero value 5 s.
	SnapshotTimeout time.Duration
	// ReconnectMax bounds the growing pause between attempts to connect. Zero value 5 s.
	ReconnectMax time.Duration
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.KeepAliveInterval, 5*time.Second)
	set(&c.ConnectTimeout, 10*time.Second)
	set(&c.CallTimeout, 10*time.Second)
	set(&c.SnapshotTimeout, 5*time.Second)
	set(&c.ReconnectMax, 5*time.Second)
	set(&c.SweepEvery, time.Minute)
	if c.URI == "" {
		c.URI = "qemu:///system"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RunDir == "" {
		c.RunDir = "/run/libvirt/qemu"
	}
	if c.ConfigDir == "" {
		c.ConfigDir = "/etc/libvirt/qemu"
	}
	if c.SaveDir == "" {
		c.SaveDir = "/var/lib/libvirt/qemu/save"
	}
	if c.KeepAliveCount == 0 {
		c.KeepAliveCount = 3
	}
}

// Host is one libvirt host. Its methods may be called from several goroutines; operations work
// while Run runs and is connected.
type Host struct {
	cfg   Config
	stats *Stats
	queue *queue
	calls *calls

	attempt *attempt   // a connection being made; owned by Run
	gap     *Gap       // the open gap; owned by Run
	reboots rebootTime // owned by the event thread
	causes  causes     // owned by the event thread
	limits  *limits
	sweeper *sweeper
	auditor *auditor

	snapshots sync.Map // domain.UUID: a snapshot of it is being taken

	mu      sync.Mutex // guards what follows
	running bool
	link    *link
	known   map[domain.UUID]Known
	changed chan struct{} // closed and replaced when link changes
}

// New returns a Host that is not connected. It starts nothing.
func New(cfg Config) (*Host, error) {
	if cfg.Sink == nil {
		return nil, errors.New("make libvirt adapter: Config.Sink is required: observations must go somewhere")
	}
	if cfg.KeepAliveInterval < 0 || cfg.KeepAliveInterval%time.Second != 0 {
		return nil, fmt.Errorf("make libvirt adapter: KeepAliveInterval %v: libvirt counts whole seconds", cfg.KeepAliveInterval)
	}
	cfg.defaults()
	h := &Host{cfg: cfg, stats: &Stats{}, known: map[domain.UUID]Known{}, changed: make(chan struct{}), reboots: rebootTime{}, causes: causes{}}
	h.queue, h.calls, h.limits = newQueue(h.stats), newCalls(h.stats), newLimits(h.stats)
	h.sweeper = newSweeper(h)
	h.auditor = &auditor{h: h, path: cfg.AuditLog}
	for _, k := range cfg.Known {
		h.known[k.UUID] = k
	}
	return h, nil
}

// Stats are the adapter's counters.
func (h *Host) Stats() *Stats { return h.stats }

// Known is what is remembered of every domain now, for a later Config.Known.
func (h *Host) Known() []Known {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Known, 0, len(h.known))
	for _, k := range h.known {
		out = append(out, k)
	}
	return out
}

// WaitConnected waits until operations can be made.
func (h *Host) WaitConnected(ctx context.Context) error {
	for {
		h.mu.Lock()
		ok, ch := h.link != nil, h.changed
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for libvirt: %w: %w", ErrDisconnected, ctx.Err())
		case <-ch:
		}
	}
}

// Run connects, listens and delivers until ctx ends, and connects again whenever the connection
// breaks. It returns nil after ctx has ended, or the error of the sink. What is queued and not yet
// delivered then is told again, as differences, by the resync of the next run (Config.Known). Run
// may be called once.
func (h *Host) Run(ctx context.Context) error {
	h.mu.Lock()
	if h.running {
		h.mu.Unlock()
		return errors.New("run libvirt adapter: it runs or has run already")
	}
	h.running = true
	h.mu.Unlock()
	if err := enterLoop(h.stats); err != nil {
		return fmt.Errorf("run libvirt adapter: %w", err)
	}
	defer leaveLoop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	delivered := make(chan error, 1)
	go func() {
		delivered <- h.deliver(ctx)
		cancel() // without a sink there is no use in listening
	}()
	var aside sync.WaitGroup
	aside.Go(func() { h.sweeper.run(ctx) })
	aside.Go(func() { h.auditor.run(ctx) })
	h.stayConnected(ctx)
	err := <-delivered
	aside.Wait()
	h.abandon()
	h.waitForCalls()
	return err
}

// stayConnected listens on one connection after the other until ctx ends.
func (h *Host) stayConnected(ctx context.Context) {
	delay := 100 * time.Millisecond
	if !h.cfg.Since.IsZero() {
		h.gap = &Gap{From: h.cfg.Since, Cause: "daemon-restart"}
	}
	for ctx.Err() == nil {
		conn, err := h.connect(ctx)
		if err == nil {
			h.stats.Connections.Add(1)
			begin := h.cfg.Now()
			cause, detail := h.listen(ctx, conn)
			if ctx.Err() != nil {
				return
			}
			if h.cfg.Now().Sub(begin) > h.cfg.ReconnectMax {
				delay = 100 * time.Millisecond // it had worked for a while
			}
			h.beginGap(ctx, cause, detail)
		} else if ctx.Err() == nil {
			h.stats.ConnectErrors.Add(1)
			if h.gap == nil || h.gap.Cause == "daemon-restart" {
				h.beginGap(ctx, "connect", err.Error())
			}
		}
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
		delay = min(delay*2, h.cfg.ReconnectMax)
	}
}

// beginGap tells that events are no longer heard (I4). A gap that is open already goes on: what
// counts is when it began.
func (h *Host) beginGap(ctx context.Context, cause, detail string) {
	now := h.cfg.Now()
	from := now
	if h.gap != nil {
		from = h.gap.From
	}
	if h.gap == nil || h.gap.Cause == "daemon-restart" {
		h.stats.Gaps.Add(1)
		h.cfg.Log.WarnContext(ctx, "libvirt is not heard", "uri", h.cfg.URI, "cause", cause, "detail", detail)
		g := Gap{From: from, Cause: cause, Detail: detail}
		h.gap = &g
		told := g
		h.queue.put(pending{obs: Observation{Kind: KindGapBegin, Type: "vm.gap", Word: "gap-begin", Reason: cause,
			Event: -1, Detail: -1, Time: now, Gap: &told}})
	}
}

// deliver hands observations to the sink, in order.
func (h *Host) deliver(ctx context.Context) error {
	for {
		p, err := h.queue.next(ctx)
		if err != nil {
			return nil // ctx has ended
		}
		if p.facts != nil {
			select {
			case f := <-p.facts:
				p.obs.Snapshot, p.obs.SnapshotErr = f.snap, f.err
			case <-ctx.Done():
				return nil
			}
			if p.obs.SnapshotErr != nil {
				h.stats.SnapshotErrors.Add(1)
			}
		}
		h.remember(&p.obs)
		for {
			err := h.cfg.Sink(ctx, p.obs)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, record.ErrRetry) {
				return fmt.Errorf("deliver libvirt observation %d: %w", p.obs.Number, err)
			}
			h.stats.SinkRetries.Add(1)
			t := time.NewTimer(50 * time.Millisecond)
			select {
			case <-ctx.Done():
				t.Stop()
				return nil
			case <-t.C:
			}
		}
		h.stats.QueueLength.Add(-1)
		h.stats.Delivered.Add(1)
		h.auditor.saw(&p.obs)
		h.sweeper.follow(&p.obs) // only now: what it finds is newer than what was delivered
	}
}

// remember keeps what is known of the domain for the next resync.
func (h *Host) remember(o *Observation) {
	if o.Domain.UUID.IsZero() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := o.Domain.UUID
	if o.Snapshot != nil {
		h.known[id] = o.Snapshot.Known()
		return
	}
	k, ok := h.known[id]
	switch {
	case o.Kind != KindLifecycle:
		return
	case o.Word == "undefine" && o.Reason == "removed", o.Word == "stop" && ok && !k.Persistent:
		// No snapshot: the domain is gone.
		delete(h.known, id)
		return
	case !ok:
		k = Known{Domain: o.Domain}
	}
	k.Name, k.ID = o.Domain.Name, o.Domain.ID
	switch o.Word {
	case "start", "resume":
		k.State = domain.Running
	case "pause":
		k.State = domain.Paused
	case "pmsuspend":
		k.State = domain.PMSuspended
	case "stop":
		k.State, k.QEMU, k.ID = domain.Shutoff, Process{}, -1
	}
	h.known[id] = k
}

// waitForCalls refuses further calls and waits for those still under way. A call stuck in libvirt cannot be ended; after
// a while it is left behind, which is said.
func (h *Host) waitForCalls() {
	select {
	case <-h.calls.close():
	case <-time.After(h.cfg.CallTimeout):
		h.cfg.Log.WarnContext(context.Background(), "calls to libvirt have not come back", "calls", h.stats.CallsRunning.Load())
	}
}
