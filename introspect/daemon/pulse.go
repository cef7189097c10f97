package daemon

import (
	"fmt"
	"time"

	"github.com/provostd/provost/introspect/virt"
)

// How long a part may have work and not move before the daemon counts as stuck.
const (
	// A disk behind a path that fails over, or behind iSCSI, may stall for minutes and
	// come back; a start anew would find the same disk, and lose what waits in memory.
	ledgerStall = 5 * time.Minute
	// What others do between two signs of life is bounded by seconds: a run of the judge,
	// a call to libvirt, a turn of its event loop.
	partStall = 2 * time.Minute
)

// sign is how a part shows that it lives: a count of what it has done, and whether it
// has more to do. A part without work is never stuck.
type sign struct {
	name  string
	stall time.Duration
	read  func() (done uint64, waiting bool)
}

// pulse finds out which part does not move. It takes no clock's word for time in which
// nobody could move: between two looks no more than twice the interval counts, so that
// neither a host that was suspended nor a daemon that was stopped and continued looks
// stuck.
type pulse struct {
	signs    []sign // the first is the ledger, which all others wait for
	interval time.Duration
	done     []uint64
	stood    []time.Duration
	last     time.Time
}

func newPulse(interval time.Duration, signs []sign) *pulse {
	return &pulse{signs: signs, interval: interval, done: make([]uint64, len(signs)), stood: make([]time.Duration, len(signs))}
}

// look returns the part that is stuck and for how long it has not moved; no name: none is.
func (p *pulse) look(now time.Time) (name string, stood time.Duration) {
	passed := min(max(0, now.Sub(p.last)), 2*p.interval)
	if p.last.IsZero() {
		passed = 0
	}
	p.last = now
	ledgerStands := false
	for i, s := range p.signs {
		done, waiting := s.read()
		switch {
		case !waiting || done != p.done[i]:
			p.stood[i] = 0
		case i > 0 && ledgerStands:
			// It may well wait for the disk: its time begins again behind that.
			p.stood[i] = 0
		default:
			p.stood[i] += passed
		}
		p.done[i] = done
		if i == 0 {
			ledgerStands = p.stood[i] > 0
		}
		if p.stood[i] >= s.stall && p.stood[i] > stood {
			name, stood = s.name, p.stood[i]
		}
	}
	return name, stood
}

// signs are the daemon's: whoever follows in the life of an event is stuck when one of
// these is. Enforcement has none: what it waits for, libvirt and agents, has deadlines,
// and a domain that refuses to be acted on is no reason to start anew.
func (d *Daemon) signs() []sign {
	stats := d.host.Stats()
	return []sign{
		{"ledger", ledgerStall, d.store.Progress},
		{"judge", partStall, func() (uint64, bool) { return d.judge.Moves(), backlog(d.store, d.judge) > 0 }},
		{"libvirt's event loop", partStall, func() (uint64, bool) {
			n := stats.LoopTurns.Load()
			virt.WakeLoop() // for the next look
			return n, true
		}},
		{"libvirt's observations", partStall, func() (uint64, bool) {
			// An observation that is tried again and again waits for something else.
			return stats.Delivered.Load() + stats.SinkRetries.Load(), stats.QueueLength.Load() > 0
		}},
	}
}

// state is one line on how the daemon is, for systemctl status.
func (d *Daemon) state() string {
	heard := 0
	all := d.sessions.Status()
	for _, s := range all {
		if s.State == "connected" && !s.Silent {
			heard++
		}
	}
	libvirt := "heard"
	if d.host.Stats().Connected.Load() == 0 {
		libvirt = "not heard"
	}
	return fmt.Sprintf("libvirt is %s; %d domains run, %d agents are heard; %d commits not judged, %d verdicts open",
		libvirt, len(all), heard, backlog(d.store, d.judge), d.enforcer.InFlight())
}
