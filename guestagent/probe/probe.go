package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// Mode says where file events come from.
type Mode string

// The modes. Auto is lsm where its hooks fire, else tracepoint.
const (
	ModeAuto       Mode = "auto"
	ModeLSM        Mode = "lsm"
	ModeTracepoint Mode = "tracepoint"
)

// ParseMode reads a mode as a user writes it.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeAuto, ModeLSM, ModeTracepoint:
		return m, nil
	}
	return "", fmt.Errorf("parse mode %q: want %s, %s or %s", s, ModeAuto, ModeLSM, ModeTracepoint)
}

// Config says how to observe.
type Config struct {
	Mode    Mode    // zero value: ModeAuto
	Options Options // classes that are seen only if wanted
	// Allocate is the growth of a process's memory by one call from which on
	// it is told, in bytes. Zero value: none is told.
	Allocate uint64
	// Budget is how many acts upon files, networks and memory a process may do
	// in a second before they are told as sums. Zero value: any number.
	Budget uint64
	// DigestBytes is the size of the largest file whose SHA-256 is told. Zero
	// value: none is read.
	DigestBytes uint64
	// Protect says that acts against this process are refused, as far as the
	// kernel lets the programs refuse anything, until Release.
	Protect bool
	// Check is how often it is proven that the hooks are there and fire. Zero
	// value: at the beginning only.
	Check time.Duration
	// Canary is the command of a child that calls Canary with the arguments
	// behind. Zero value: this process acts, which proves less.
	Canary []string
	Log    *slog.Logger // zero value: no log

	written uint32 // descriptions that are summed up, for tests; zero value: as in the object
}

// Sink takes what the probe made. Its methods are called from one goroutine,
// in order, and must not block: the rings fill meanwhile.
type Sink interface {
	// Observe takes a record. Session and sequence of the header are the
	// sink's to fill; the payload is valid until Observe returns.
	Observe(h record.Header, payload []byte)
	// ObserveHeavy is Observe of a record that is to give way to those of
	// others: its process is beyond its budget.
	ObserveHeavy(h record.Header, payload []byte)
	// Lose says that n events of a lane will never come.
	Lose(lane uint32, class record.Class, reason record.LossReason, n uint64)
	// Flush says that nothing more comes at once.
	Flush()
}

// Probe is a set of attached programs.
type Probe struct {
	cfg      Config
	k        *kernel
	stats    *stats
	rings    *rings
	pace     *pace
	sums     *sums
	taken    taken
	dec      decoder
	digests  *digests
	enc      encoder
	hooks    *record.Hooks
	seeded   bool // learnCommands was called
	holders  *holders
	found    []finding   // before Run, for it to tell
	released atomic.Bool // Release was called
	proven   [types]bool
	classes  map[string]record.Class // what a program tells of, by its name

	sequences map[uint32]uint64 // largest of each lane
	accounted map[uint32]uint64 // events of each lane that were given to a sink, or told to be undecodable
}

// Open loads and attaches the programs and lists what runs. From then on
// events gather in the rings: call Run. It takes root (CAP_BPF, CAP_PERFMON,
// CAP_SYS_ADMIN) and a kernel with BTF.
func Open(cfg Config) (*Probe, error) {
	if cfg.Mode == "" {
		cfg.Mode = ModeAuto
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return nil, fmt.Errorf("open probe: the kernel gives no type information (CONFIG_DEBUG_INFO_BTF), or /sys is not mounted: %w", err)
	}
	if cfg.Mode == ModeTracepoint {
		return open(cfg, ModeTracepoint, "")
	}
	p, err := openAlone(cfg)
	if err == nil {
		return p, nil
	}
	if cfg.Mode == ModeLSM {
		return nil, fmt.Errorf("open probe in mode lsm (mode auto would go on with tracepoints): %w", err)
	}
	cfg.Log.WarnContext(context.Background(), "BPF LSM cannot be used, going on with tracepoints", "error", brief(err))
	return open(cfg, ModeTracepoint, brief(err))
}

// tries is how often the programs are loaded anew because somebody got hold of
// one of their maps. The door leaves no time for that: who does it has ways that
// loading again does not close.
const tries = 3

// openAlone opens in mode lsm, where others are kept out, and begins again
// while somebody got in.
func openAlone(cfg Config) (*Probe, error) {
	var found []finding
	for n := 1; ; n++ {
		p, err := open(cfg, ModeLSM, "")
		if err != nil {
			return nil, err
		}
		held, err := p.holders.look()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open probe: %w", err), p.Close())
		}
		p.found = found
		if len(held) == 0 || !cfg.Protect {
			return p, nil // without protection the checks tell
		}
		what := describeHeld(held)
		found = append(found, finding{tamper: &record.Tamper{Kind: "hold", Hook: progHolders.hook, Detail: what}})
		cfg.Log.WarnContext(context.Background(), "maps were reached for while the programs were loaded", "held", what, "try", n)
		if n == tries {
			p.found = found
			p.qualify(record.ClassAgentTamper, "from the start on, "+what)
			return p, nil
		}
		if err := p.Close(); err != nil {
			return nil, fmt.Errorf("open probe again: %w", err)
		}
	}
}

// qualify adds to the limit of a class in the hooks record.
func (p *Probe) qualify(class record.Class, limit string) {
	for _, h := range p.hooks.Hooks {
		if record.Class(h.Class) == class {
			h.Error = strings.TrimPrefix(h.Error+"; "+limit, "; ")
		}
	}
}

func open(cfg Config, mode Mode, why string) (_ *Probe, err error) {
	if mode == ModeLSM {
		was, err := traceable(functionTracing)
		if err != nil {
			return nil, fmt.Errorf("open probe: %w", err)
		}
		if !was {
			cfg.Log.WarnContext(context.Background(), "function tracing was off and hooks blind: turned on", "switch", functionTracing)
		}
	}
	k, err := newKernel(cfg, mode == ModeTracepoint, mode == ModeLSM && cfg.Protect)
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	p := &Probe{cfg: cfg, k: k, digests: newDigests(cfg.DigestBytes, cfg.Options.Digests), sequences: map[uint32]uint64{}, accounted: map[uint32]uint64{}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.stats, err = newStats(k.maps["stats"]); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.pace, err = newPace(k.maps["pace"]); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.rings, err = newRings(k); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.sums, err = newSums(k); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if err := p.attach(mode, why); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	t := newTable(nil)
	t.lookup = t.fromProc
	p.dec = newDecoder(t, newGroups(k.groupLookup()))
	p.dec.gains = k.links[progCommitting.name] != nil || k.links[progPrepareExec.name] != nil
	// After attaching: what starts from here on is told by an event.
	if err := k.seed(t); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.holders, err = newHolders(k, p.sums); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if err := p.protect(); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	k.spec, k.types = nil, nil // large, and of no use any more
	return p, nil
}

// attach brings up all hooks of a mode and makes the hooks record.
func (p *Probe) attach(mode Mode, why string) error {
	p.hooks = &record.Hooks{Os: "linux", Architecture: runtime.GOARCH, Kernel: release(), Mode: string(mode)}
	for _, c := range backbone(mode) {
		h, err := p.k.cover(c)
		if err != nil {
			return err
		}
		if c.off(p.cfg) {
			h.Name, h.Error = "", switchedOff
		}
		p.hooks.Hooks = append(p.hooks.Hooks, h)
	}
	covers := coversOf(mode)
	var hooks []*record.Hook
	for _, c := range covers {
		if c.off(p.cfg) {
			hooks = append(hooks, &record.Hook{Class: uint32(c.class), Error: switchedOff})
			continue
		}
		h, err := p.k.cover(c)
		if err != nil {
			if mode == ModeLSM && needed(c) {
				return err
			}
			p.cfg.Log.WarnContext(context.Background(), "class of events is not covered", "class", c.class.String(), "error", h.Error)
		}
		if why != "" {
			h.Error = strings.TrimPrefix(h.Error+"; lsm: "+why, "; ")
		}
		p.disclaim(h)
		hooks = append(hooks, h)
	}
	if err := p.verify(mode, covers, hooks); err != nil {
		return err
	}
	p.hooks.Hooks = append(p.hooks.Hooks, hooks...)
	if err := p.meet(slices.Concat(backbone(mode), covers)); err != nil {
		return err
	}
	p.hooks.Hooks = append(p.hooks.Hooks, digestHooks(p.cfg, mode)...)
	for _, c := range uncovered {
		p.hooks.Hooks = append(p.hooks.Hooks, &record.Hook{Class: uint32(c.class), Error: c.why})
	}
	return nil
}

// meet has the canary's child act, and notes what has been seen of both.
func (p *Probe) meet(covers []cover) error {
	p.classes = map[string]record.Class{}
	for _, c := range covers {
		for _, x := range slices.Concat(append([][]program{c.needs, c.extra}, c.anyOf...)...) {
			if _, ok := p.classes[x.name]; !ok {
				p.classes[x.name] = c.class
			}
		}
	}
	seen := p.proven
	if len(p.cfg.Canary) > 0 {
		more, err := p.k.child(context.Background(), p.stats, p.cfg.Canary, p.cfg.Allocate)
		if err != nil {
			return fmt.Errorf("have the canary act: %w", err)
		}
		for t := range seen {
			seen[t] = seen[t] || more[t]
		}
		// From now on the child is what acts.
		p.prove(seen)
		p.proven = more
		return nil
	}
	p.prove(seen)
	return nil
}

// verify proves by a canary that the hooks fire. A class whose hook does not
// is told as not covered.
func (p *Probe) verify(mode Mode, covers []cover, hooks []*record.Hook) error {
	seen, err := canary(p.stats, p.cfg.Allocate)
	if err != nil {
		// Nothing to write to: all that is known is that they are attached.
		for _, h := range hooks {
			h.Error = strings.TrimPrefix(h.Error+"; not proven to fire: "+brief(err), "; ")
		}
		p.cfg.Log.WarnContext(context.Background(), "canary could not act, hooks are not proven to fire", "error", err)
		return nil
	}
	p.proven = seen
	if m := missing(seen); mode == ModeLSM && len(m) > 0 {
		return fmt.Errorf("LSM programs are attached and %d of %d required ones are never called: the kernel was booted without bpf in lsm=",
			len(m), len(required))
	}
	for i, c := range covers {
		if c.event != 0 && hooks[i].Name != "" && !seen[c.event] {
			hooks[i].Error = "attached and never called: " + hooks[i].Name
			hooks[i].Name = ""
		}
	}
	return nil
}

func needed(c cover) bool {
	for _, t := range required {
		if c.event == t {
			return true
		}
	}
	return false
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Hooks says which class of event is covered by what. The caller must not
// change it.
func (p *Probe) Hooks() *record.Hooks { return p.hooks }

// Mode returns the mode in use: lsm or tracepoint.
func (p *Probe) Mode() Mode { return Mode(p.hooks.Mode) }

// Run gives everything the programs see to sink until ctx ends, and then what
// is in the rings still. It returns nil when ctx ended it, and may be called
// again then: what happens in between waits in the rings.
func (p *Probe) Run(ctx context.Context, sink Sink) error {
	p.rings.start()
	stop := context.AfterFunc(ctx, p.rings.stop)
	defer stop()
	if !p.seeded {
		p.seeded = true
		p.learnCommands(ctx)
	}
	defer runtime.KeepAlive(p) // the links detach when they are collected
	var lastTold uint64
	quiet := false
	hashing, cancel := context.WithCancel(ctx)
	p.digests.start(hashing)
	defer func() {
		cancel()
		p.digests.finish(sink)
		sink.Flush()
	}()
	findings, err := p.watch(hashing)
	if err != nil {
		return fmt.Errorf("run probe: %w", err)
	}
	defer func() { cancel(); findings.wait() }()
	for _, f := range p.found {
		p.tell(f, sink)
	}
	p.found = nil
	last := 16 // rounds at the end: what is there, and no race with who makes more
	for {
		ended := ctx.Err() != nil
		n, more, err := p.rings.next(ended, func(ring int, b []byte) { p.observe(ring, b, sink) })
		if err != nil {
			return fmt.Errorf("run probe: %w", err)
		}
		if now := bootTime(); ended || now-lastTold > uint64(idlePoll)/2 {
			lastTold = now
			if err := p.stats.tell(sink); err != nil {
				return fmt.Errorf("run probe: %w", err)
			}
			if err := p.sweepTable(now); err != nil {
				return fmt.Errorf("run probe: %w", err)
			}
			if err := p.takeSums(now, ended && (!more || last == 0)); err != nil {
				return fmt.Errorf("run probe: %w", err)
			}
		}
		p.dec.table.bury(p.rings.told)
		if ended || p.rings.told >= p.taken.time {
			n += p.tellSums(sink)
		}
		n += p.digests.collect(sink) + findings.collect(p, sink)
		if n > 0 || ended {
			sink.Flush()
		}
		switch {
		case ended && (!more || last == 0):
			return nil
		case ended:
			last--
		case more:
		case n > 0 || p.rings.holds():
			quiet = false
			p.pace.until(bootTime() + 2*uint64(busyPoll))
			p.rings.wait(busyPoll)
		case !quiet:
			// From now on the programs wake us: one more look at what they
			// brought before they knew.
			quiet = true
			p.pace.until(0)
		default:
			p.rings.wait(idlePoll)
		}
	}
}

// observe makes a record of one sample.
func (p *Probe) observe(ring int, b []byte, sink Sink) {
	h, err := as[bpf.ProbeEventHead](b)
	if err != nil {
		sink.Lose(uint32(ring)<<16, 0, record.LossReason_LOSS_REASON_UNDECODABLE, 1)
		return
	}
	if bpf.ProbeEventFlag(h.Flags)&bpf.ProbeEventFlagFL_NOTE != 0 {
		if err := p.dec.note(&h, b); err != nil {
			p.cfg.Log.ErrorContext(context.Background(), "note cannot be read", "type", h.Type, "error", err)
		}
		return
	}
	p.accounted[lane(&h)]++
	var payload []byte
	e, err := p.dec.decode(&h, b)
	class := classOf(h.Type)
	if err == nil {
		class = p.dec.class
		p.digests.observe(subject{class, h.Time, p.dec.magic}, e, sink)
		payload, err = p.enc.encode(e)
	}
	if err != nil {
		p.cfg.Log.ErrorContext(context.Background(), "sample cannot be decoded", "type", h.Type, "error", err)
		sink.Lose(lane(&h), class, record.LossReason_LOSS_REASON_UNDECODABLE, 1)
		return
	}
	out := record.Header{Class: class, Lane: lane(&h), LaneSequence: p.sequence(&h), Time: h.Time}
	if bpf.ProbeEventFlag(h.Flags)&bpf.ProbeEventFlagFL_HEAVY != 0 {
		sink.ObserveHeavy(out, payload)
		return
	}
	sink.Observe(out, payload)
}

// sequence completes the lower half of a sequence, which is what a sample
// carries: a lane's samples come in the order of their times and so nearly in
// that of their numbers.
func (p *Probe) sequence(h *bpf.ProbeEventHead) uint64 {
	near := p.sequences[lane(h)]
	s := near + uint64(int64(int32(h.Seq-uint32(near))))
	p.sequences[lane(h)] = max(s, near)
	return s
}

// Close detaches everything. Run must have returned.
func (p *Probe) Close() error {
	var errs []error
	if p.rings != nil {
		errs = append(errs, p.rings.Close())
	}
	if p.sums != nil {
		errs = append(errs, p.sums.Close())
	}
	errs = append(errs, p.k.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close probe: %w", err)
	}
	return nil
}
