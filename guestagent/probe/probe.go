package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

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

	unpacked  []byte            // the sample that is looked at
	sequences map[uint32]uint64 // largest of each lane
	accounted map[uint32]uint64 // events of each lane that were given to a sink, or told to be undecodable
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
	b, err := unpack(p.unpacked[:0], b)
	if err != nil {
		sink.Lose(uint32(ring)<<16, 0, record.LossReason_LOSS_REASON_UNDECODABLE, 1)
		return
	}
	p.unpacked = b
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
		p.digests.observe(subject{class, h.Time, p.dec.origin}, e, sink)
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
