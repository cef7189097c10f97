package guest

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

// Config is what the sessions need. Zero durations and quotas mean the
// defaults named beside them.
type Config struct {
	Store *chain.Store
	Log   *slog.Logger
	Now   func() time.Time

	Heartbeat    time.Duration // interval of heartbeats, 2 s
	SilentAfter  time.Duration // no sign of life for this long is sealed, 10 s
	BootGrace    time.Duration // the same for an agent not yet heard of, 120 s
	HelloRepeat  time.Duration // a Hello read and not answered is repeated, 2 s
	WriteTimeout time.Duration // a guest that does not read, 10 s
	// CommandTimeout is how long a command is good for, 20 s.
	CommandTimeout time.Duration
	// Duty is what the agent of one domain owes. Nil: the same times for all, and
	// whatever coverage the guest allows.
	Duty     func(domain.UUID) Duty
	RetryMin time.Duration // between connections, 250 ms
	RetryMax time.Duration // the same after misbehaviour, 30 s

	RecordsPerSecond int // quota of a domain, 20,000
	BytesPerSecond   int // quota of a domain, 16 MiB
	MaxRefusals      int // refused frames before a connection ends, 8

	// Room waits until policies have judged most of what was sent for a log (invariant
	// I8). sealed is closed when all of that is sealed; nil: it is. Nil: nobody waits.
	Room func(ctx context.Context, l *chain.Log, sealed <-chan struct{}) error

	// Commands signs what agents are told to do. Nil: they are told nothing.
	Commands CommandKey

	Stats *Stats
}

// Stats counts what the sessions do, over all domains.
type Stats struct {
	Handshakes, Frames, Records, Acks, Duplicates   atomic.Uint64
	Refused, Misbehaved, Garbage, Gaps, Unexplained atomic.Uint64
	Rollbacks, Silences, Throttled, Dropped         atomic.Uint64
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.Heartbeat, wire.HeartbeatEvery)
	set(&c.SilentAfter, 10*time.Second)
	set(&c.BootGrace, 120*time.Second)
	set(&c.HelloRepeat, 2*time.Second)
	set(&c.WriteTimeout, 10*time.Second)
	set(&c.CommandTimeout, 20*time.Second)
	set(&c.RetryMin, 250*time.Millisecond)
	set(&c.RetryMax, 30*time.Second)
	if c.RecordsPerSecond <= 0 {
		c.RecordsPerSecond = 20_000
	}
	if c.BytesPerSecond <= 0 {
		c.BytesPerSecond = 16 << 20
	}
	if c.MaxRefusals <= 0 {
		c.MaxRefusals = 8
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Stats == nil {
		c.Stats = &Stats{}
	}
}

// Domain is what a session must know of a running domain. It is replaced
// whole, never changed.
type Domain struct {
	UUID        domain.UUID
	Name        string
	Socket      string // from the live XML
	QEMU        QEMU
	Log         *chain.Log
	Incarnation uint64
	Epoch       [16]byte
	ParentEpoch [16]byte
	// From is the log that the memory of the parent epoch was sealed in, where it is
	// not of this incarnation: the agent's session goes on from there.
	From         string
	GenerationID [16]byte
	Paused       bool
}

// same reports whether a session of d can go on for n: the same socket of the
// same process, into the same log.
func (d *Domain) same(n *Domain) bool {
	return d.Socket == n.Socket && d.QEMU == n.QEMU && d.Log == n.Log && d.Name == n.Name
}

// Status is what a session says of itself.
type Status struct {
	UUID    domain.UUID
	State   string // connecting, waiting for the agent, connected, disconnected, stopped
	Session uint64
	Frame   uint64
	Silent  bool
	// WentBack is the epoch in which the agent's memory was found to be an earlier one
	// of its own, though nothing says that it was taken back. Zero: in none.
	WentBack [16]byte
}

// Sessions runs one session for each domain it is told of. Its methods may be
// called from several goroutines.
type Sessions struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	running map[domain.UUID]*running
	ctx     context.Context // set by Run; nil before and after
	failed  chan error      // cap 1: the first failure of the ledger
	owners  *owners         // set by Run
	wg      sync.WaitGroup
}

type running struct {
	session *session
	stop    context.CancelFunc
	done    chan struct{}
}

// New returns Sessions that serve nobody until Run.
func New(cfg Config) *Sessions {
	cfg.defaults()
	return &Sessions{cfg: cfg, running: map[domain.UUID]*running{}, failed: make(chan error, 1)}
}

// Run serves the domains until ctx ends or the ledger fails, and waits for
// every session.
func (s *Sessions) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	known, err := readOwners(s.cfg.Store)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.ctx, s.owners = ctx, known
	for _, r := range s.running {
		s.start(r)
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	cancel()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// Set starts the session of a domain, or tells a running one what changed. A
// session whose socket, process or log is another one is ended first.
func (s *Sessions) Set(d *Domain) {
	s.mu.Lock()
	r := s.running[d.UUID]
	if r != nil && r.session.dom.Load().same(d) {
		old := r.session.dom.Swap(d)
		s.mu.Unlock()
		if old.Paused != d.Paused {
			r.session.pauses.Add(1)
		}
		if old.Paused && !d.Paused {
			r.session.alive.restart(s.cfg.Now())
		}
		if old.Epoch != d.Epoch {
			select {
			case r.session.rehi <- struct{}{}:
			default: // it will see the newest epoch anyway
			}
		}
		return
	}
	s.mu.Unlock()
	s.Remove(d.UUID)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &running{session: s.newSession(d)}
	s.running[d.UUID] = n
	if s.ctx != nil {
		s.start(n)
	}
}

// burstShare is which part of a second's quota a domain may use at once. A whole
// second's at once keeps the processors busy for so long that its neighbours feel
// it (invariant I8); a guest that has more to say waits in between, as its agent's
// queue is made for.
const burstShare = 10

func (s *Sessions) newSession(d *Domain) *session {
	n := &session{
		cfg: &s.cfg, log: s.cfg.Log.With("domain", d.Name, "uuid", d.UUID.String()), rehi: make(chan struct{}, 1), ended: make(chan struct{}),
		records:   rate.NewLimiter(rate.Limit(s.cfg.RecordsPerSecond), max(s.cfg.RecordsPerSecond/burstShare, wire.MaxRecords)),
		greetings: rate.NewLimiter(1, 8),
		bytes:     rate.NewLimiter(rate.Limit(s.cfg.BytesPerSecond), max(s.cfg.BytesPerSecond/burstShare, wire.MaxBody)),
	}
	if s.cfg.Duty != nil {
		n.duty = s.cfg.Duty(d.UUID)
	}
	for _, t := range []struct{ own, all *time.Duration }{{&n.duty.SilentAfter, &s.cfg.SilentAfter}, {&n.duty.BootGrace, &s.cfg.BootGrace}} {
		if *t.own <= 0 {
			*t.own = *t.all
		}
	}
	n.made = s.cfg.Now()
	n.dom.Store(d)
	n.alive.restart(s.cfg.Now())
	n.note("connecting")
	return n
}

// start runs a session; s.mu is held.
func (s *Sessions) start(r *running) {
	ctx, cancel := context.WithCancel(s.ctx)
	r.stop, r.done = cancel, make(chan struct{})
	r.session.owners = s.owners
	s.wg.Go(func() {
		defer close(r.done)
		var wg sync.WaitGroup
		wg.Go(func() { s.report(r.session.watch(ctx)) })
		s.report(r.session.serve(ctx))
		close(r.session.ended)
		cancel()
		wg.Wait()
	})
}

func (s *Sessions) report(err error) {
	if err != nil {
		select {
		case s.failed <- err:
		default: // one failure ends the process already
		}
	}
}

// Remove ends the session of a domain and waits for it.
func (s *Sessions) Remove(id domain.UUID) {
	s.mu.Lock()
	r := s.running[id]
	delete(s.running, id)
	s.mu.Unlock()
	if r != nil && r.stop != nil {
		r.stop()
		<-r.done
	}
}

// Status returns what every session says of itself, by domain.
func (s *Sessions) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.running))
	for _, r := range s.running {
		st := *r.session.status.Load()
		st.Silent = r.session.alive.isSilent()
		if e := r.session.wentBack.Load(); e != nil {
			st.WentBack = *e
		}
		if r.session.alive.isStopped() {
			st.State = "stopped"
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.UUID.String(), b.UUID.String()) })
	return all
}

func (s *session) note(state string) {
	s.status.Store(&Status{UUID: s.dom.Load().UUID, State: state, Session: s.prog.Session, Frame: s.prog.Frame})
}
