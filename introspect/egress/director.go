package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Guarded is what a Director has to know of a domain that runs.
type Guarded struct {
	ID       domain.UUID
	Devices  []Device // its taps
	Untapped []string // interfaces that cannot be guarded, by kind and address
	Policies []Policy
}

// DirectorConfig is what a Director needs.
type DirectorConfig struct {
	Guard *Guard
	// Running lists the domains that run.
	Running func() []domain.UUID
	// Read reads what is to be guarded of one, and by what.
	Read func(ctx context.Context, id domain.UUID) (*Guarded, error)
	// Seal seals findings in the log of a domain; false: it has none any more.
	Seal func(ctx context.Context, id domain.UUID, class record.Class, all []*record.Event) (bool, error)
	// Entries calls each for every entry that is sealed from now on, until ctx ends:
	// with them the flows that taps see are compared. Nil: none are.
	Entries func(ctx context.Context, each func(id domain.UUID, class record.Class, origin record.Origin, payload []byte)) error
	Now     func() time.Time
	Log     *slog.Logger
}

// Director keeps the taps of all domains guarded by the policies about them, and
// seals what the taps tell. It compares what is with what should be, each few seconds
// and whenever it is told that something has changed: no event that is missed leaves a
// tap open for longer than that.
type Director struct {
	cfg    DirectorConfig
	events chan told
	kick   chan struct{}
	missed atomic.Uint64 // events beyond the channel's room
	stats  Stats
	flows  *witness

	passEvery, sumEvery time.Duration

	mu   sync.Mutex // one pass at a time; guards the rest
	done map[int]applied
	// guarded is what was asked for last of each domain, resolved what its names are.
	guarded  map[domain.UUID]*Guarded
	resolved map[domain.UUID]resolved
	// failing holds what was sealed of each domain as not guarded, so that it is
	// sealed once.
	failing map[domain.UUID]string
	sums    map[domain.UUID]*sums
	was     map[int]Counters
}

// applied is what a tap was given: the policies as they are written, and with the
// addresses of their names.
type applied struct{ written, whole string }

type told struct {
	dev Device
	e   *Event
}

// Stats counts what a Director does.
type Stats struct {
	Taps, Failing      atomic.Int64
	Drops, Lost, Flows atomic.Uint64
	Undeclared         atomic.Uint64
}

const (
	// passEvery is how often everything is compared.
	passEvery = 5 * time.Second
	// sumEvery is how often sums of denied flows are sealed.
	sumEvery = 10 * time.Second
	// eventRoom bounds the events on their way from the taps; those beyond are
	// counted, and sealed as a number.
	eventRoom = 4096
	// dropsEach bounds the denied flows of one domain that are sealed singly in
	// sumEvery: a guest that scans must not fill its log by that.
	dropsEach = 200
)

// NewDirector returns a Director that does nothing until Run. Its Hear is the sink
// of the guard.
func NewDirector(cfg DirectorConfig) *Director {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Director{cfg: cfg, flows: newWitness(cfg.Now), events: make(chan told, eventRoom), kick: make(chan struct{}, 1), done: map[int]applied{}, guarded: map[domain.UUID]*Guarded{}, resolved: map[domain.UUID]resolved{},
		failing: map[domain.UUID]string{}, sums: map[domain.UUID]*sums{}, was: map[int]Counters{}, passEvery: passEvery, sumEvery: sumEvery}
}

// Stats returns the counters.
func (d *Director) Stats() *Stats { return &d.stats }

// Hear takes an event of a tap. It does not block.
func (d *Director) Hear(dev Device, e *Event) {
	select {
	case d.events <- told{dev, e}:
	default:
		d.missed.Add(1)
	}
}

// Kick says that policies or taps may have changed.
func (d *Director) Kick() {
	select {
	case d.kick <- struct{}{}:
	default: // one is on its way
	}
}

// Run works until ctx ends. It ends with an error only if nothing can be sealed any
// more. The guards stay in force.
func (d *Director) Run(ctx context.Context) error {
	pass, sum := time.NewTicker(d.passEvery), time.NewTicker(d.sumEvery)
	defer pass.Stop()
	defer sum.Stop()
	watching, stop := context.WithCancel(ctx)
	links, err := watchLinks(watching, d.cfg.Log, d.Kick)
	if err != nil {
		stop()
		return err
	}
	defer links.wait()
	defer stop()
	// The reader of entries ends with Run, whichever of the two fails.
	own, cancel := context.WithCancelCause(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel(nil)
	if d.cfg.Entries != nil {
		reader.Go(func() {
			if err := d.cfg.Entries(own, d.flows.heard); err != nil && own.Err() == nil {
				cancel(err)
			}
		})
	}
	for {
		var err error
		select {
		case <-own.Done():
			if ctx.Err() != nil {
				return nil
			}
			err = context.Cause(own)
		case t := <-d.events:
			err = d.hear(ctx, t)
		case <-d.kick:
			err = d.pass(ctx)
		case <-pass.C:
			err = d.pass(ctx)
		case <-sum.C:
			err = d.sum(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("packet filter: %w", err)
		}
	}
}

// pass guards what runs, and forgets what is gone.
func (d *Director) pass(ctx context.Context) error {
	gone, err := d.cfg.Guard.Forget()
	if err != nil {
		d.cfg.Log.ErrorContext(ctx, "guards of devices that are gone are not given up", "error", err)
	}
	d.mu.Lock()
	for _, dev := range gone {
		delete(d.done, dev.Index)
		delete(d.was, dev.Index)
	}
	d.mu.Unlock()
	for _, dev := range d.cfg.Guard.restore() {
		if err := d.note(ctx, dev.Domain, "the packet filter on "+dev.Name+" had been taken away: what the domain sent since was not judged; it stands again", "failed"); err != nil {
			return err
		}
	}
	running := d.cfg.Running()
	d.forget(running)
	for _, id := range running {
		g, err := d.cfg.Read(ctx, id)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = d.Ensure(ctx, g)
		}
		if err := d.settle(ctx, id, err); err != nil {
			return err
		}
	}
	d.stats.Taps.Store(int64(len(d.cfg.Guard.Devices())))
	return nil
}

func (d *Director) forget(running []domain.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.failing {
		if !slices.Contains(running, id) {
			delete(d.failing, id)
		}
	}
	for id := range d.guarded {
		if !slices.Contains(running, id) {
			delete(d.guarded, id)
			delete(d.resolved, id)
		}
	}
	for id, s := range d.sums {
		if !slices.Contains(running, id) && s.empty() {
			delete(d.sums, id)
		}
	}
	d.stats.Failing.Store(int64(len(d.failing)))
}

// Ensure guards the taps of a domain by its policies, and reports which interfaces
// cannot be guarded though a policy that denies is about the domain.
func (d *Director) Ensure(ctx context.Context, g *Guarded) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guarded[g.ID] = g
	whole := d.named(g.ID, g.Policies)
	table, err := Compile(whole)
	if err != nil {
		return err
	}
	var problems []error
	want := applied{g.ID.String() + describe(g.Policies), g.ID.String() + describe(whole)}
	for _, dev := range g.Devices {
		ifc, err := net.InterfaceByName(dev.Name)
		if err != nil {
			problems = append(problems, fmt.Errorf("guard %s: %w", dev.Name, err))
			continue
		}
		had := d.done[ifc.Index]
		if had == want {
			continue
		}
		if err := d.cfg.Guard.Attach(ctx, dev, table); err != nil {
			problems = append(problems, err)
			continue
		}
		d.done[ifc.Index] = want
		if had.written == want.written || had.written == "" && table.Empty() {
			continue // other addresses of the same names; or it only looks on
		}
		word := "filters by no policy"
		if !table.Empty() {
			word = "filters by " + strings.Join(d.names(g.Policies), ", ")
		}
		if err := d.note(ctx, g.ID, "the packet filter on "+dev.Name+" "+word, "guarded"); err != nil {
			return err
		}
	}
	return errors.Join(append(problems, g.Honoured())...)
}

// Before guards the taps of a domain that is about to run. It waits for nothing but
// the kernel; what it did is sealed by the next comparison.
func (d *Director) Before(ctx context.Context, g *Guarded) error {
	table, err := Compile(g.Policies)
	if err != nil {
		return err
	}
	var problems []error
	for _, dev := range g.Devices {
		if err := d.cfg.Guard.Attach(ctx, dev, table); err != nil && (table.enforce != 0 || d.cfg.Guard.toCut(g.ID)) {
			problems = append(problems, err) // of a tap that is only looked at, the comparison tells
		}
	}
	return errors.Join(append(problems, g.Honoured())...)
}

// Honoured reports which interfaces of a domain cannot be filtered though a policy
// that denies is about it.
func (g *Guarded) Honoured() error {
	var names []string
	for _, p := range g.Policies {
		if p.Enforce {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	var problems []error
	for _, u := range g.Untapped {
		problems = append(problems, fmt.Errorf("interface %s has no tap device on this host that could be filtered; use a network or a bridge, or take the domain out of the target of %s: %w",
			u, strings.Join(names, ", "), record.ErrReject))
	}
	return errors.Join(problems...)
}

func (d *Director) names(all []Policy) []string {
	var names []string
	for _, p := range all {
		n := p.Name
		if !p.Enforce {
			n += " (audit)"
		}
		names = append(names, n)
	}
	return names
}

// describe is equal for policies that come to the same table.
func describe(all []Policy) string { return fmt.Sprintf(" %v", all) }

// settle seals that a domain cannot be guarded, or can again, when that changes.
func (d *Director) settle(ctx context.Context, id domain.UUID, problem error) error {
	text := ""
	if problem != nil {
		text = problem.Error()
	}
	d.mu.Lock()
	was := d.failing[id]
	d.mu.Unlock()
	if text == was {
		return nil
	}
	var err error
	if problem != nil {
		d.cfg.Log.ErrorContext(ctx, "a domain is not guarded as its policies ask for", "uuid", id.String(), "error", problem)
		err = d.note(ctx, id, clip("not guarded: "+text), "failed")
	} else {
		err = d.note(ctx, id, "guarded as the policies ask for", "guarded")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failing[id] = text; text == "" {
		delete(d.failing, id)
	}
	d.stats.Failing.Store(int64(len(d.failing)))
	return err
}

func (d *Director) note(ctx context.Context, id domain.UUID, text, detail string) error {
	_, err := d.cfg.Seal(ctx, id, record.ClassVMGuard, []*record.Event{{Reason: text, Vm: &record.VM{Detail: detail}}})
	return err
}

// clip bounds texts that end up in the ledger.
func clip(s string) string {
	if len(s) > 1024 {
		return s[:1024] + "..."
	}
	return s
}

func protocolName(n uint8) string {
	return cmp.Or(map[uint8]string{1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp",
		51: "ah", 58: "icmpv6", 132: "sctp", 136: "udplite"}[n], fmt.Sprintf("protocol-%d", n))
}
