package virt

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/provostd/provost/introspect/domain"
)

// How a difference was learnt.
const (
	LearnedEvent = "event" // looked for because of an event
	LearnedSweep = "sweep" // found by itself
	LearnedBlind = "blind" // found after a time in which libvirt was not heard
)

const (
	sweepsAtOnce = 8
	// sweepApart is the least time between two looks at one domain.
	sweepApart = time.Second
)

// sweeper looks at domains after events and from time to time, because libvirt
// does not announce all that changes them. One domain is never looked at twice at
// a time, so what is found has an order; one that does not answer holds one place
// of sweepsAtOnce until its deadline.
type sweeper struct {
	h    *Host
	wake chan struct{}

	mu   sync.Mutex
	all  map[domain.UUID]*look
	wait sync.WaitGroup
}

// look is the state of one domain at the sweeper.
type look struct {
	wanted  string // how it is learnt, "" when nothing is due
	busy    bool
	last    time.Time // of the last look
	raw     [32]byte  // what libvirt said then
	told    [32]byte  // digest of the facts told last
	hasTold bool
}

func newSweeper(h *Host) *sweeper {
	return &sweeper{h: h, wake: make(chan struct{}, 1), all: map[domain.UUID]*look{}}
}

// want asks for a look at a domain soon. afresh has its facts told whatever
// was told before.
func (s *sweeper) want(id domain.UUID, learned string, afresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[id]
	if l == nil {
		l = &look{}
		s.all[id] = l
	}
	if l.wanted == "" || l.wanted == LearnedSweep {
		l.wanted = learned
	}
	if afresh {
		l.hasTold = false
	}
	s.poke()
}

func (s *sweeper) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// wantAll asks for a look at every domain there is.
func (s *sweeper) wantAll(ctx context.Context) {
	list, err := s.h.List(ctx)
	if err != nil {
		return // the connection says so by itself; the next round asks again
	}
	there := make(map[domain.UUID]bool, len(list))
	for _, d := range list {
		there[d.UUID] = true
		s.want(d.UUID, LearnedSweep, false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.all {
		if !there[id] && !l.busy {
			delete(s.all, id)
		}
	}
}

// run looks at what is wanted until ctx ends, and waits for the looks under way.
func (s *sweeper) run(ctx context.Context) {
	defer s.wait.Wait()
	round := time.NewTicker(s.h.cfg.SweepEvery)
	defer round.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	places := make(chan struct{}, sweepsAtOnce)
	for {
		select {
		case <-ctx.Done():
			return
		case <-round.C:
			s.h.limits.due(s.h.cfg.Now(), s.h.repeated)
			s.wantAll(ctx)
		case <-s.wake:
		case <-again.C:
		}
		if later := s.begin(ctx, places); later {
			again.Reset(sweepApart)
		}
	}
}

// begin starts the looks that are due. later says that some are wanted too soon
// after the last.
func (s *sweeper) begin(ctx context.Context, places chan struct{}) (later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, l := range s.all {
		switch {
		case l.wanted == "" || l.busy:
		case now.Sub(l.last) < sweepApart:
			later = true
		default:
			learned := l.wanted
			l.busy, l.wanted = true, ""
			s.wait.Go(func() {
				select {
				case places <- struct{}{}:
					s.look(ctx, id, learned)
					<-places
				case <-ctx.Done():
				}
			})
		}
	}
	return later
}

// look reads one domain's facts and tells them if they are not what was told.
func (s *sweeper) look(ctx context.Context, id domain.UUID, learned string) {
	r, d, err := s.h.readFacts(ctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.poke() // it may be wanted again already
	l := s.all[id]
	l.busy, l.last = false, time.Now()
	if errors.Is(err, ErrNotFound) {
		delete(s.all, id)
		return
	}
	s.h.stats.Sweeps.Add(1)
	if err != nil {
		s.h.stats.SweepErrors.Add(1)
		return // the next round tries again
	}
	sum := r.sum()
	if l.hasTold && sum == l.raw {
		return
	}
	f := r.facts()
	l.raw = sum
	if now := f.digest(); !l.hasTold || now != l.told {
		l.told, l.hasTold = now, true
		s.h.queue.put(pending{obs: Observation{Kind: KindSweep, Type: "vm.config_changed", Word: "sweep", Reason: learned,
			Event: -1, Detail: -1, Domain: d, Time: s.h.cfg.Now(), Facts: f}})
	}
}

// follow asks for the looks that a delivered observation makes due.
func (s *sweeper) follow(o *Observation) {
	if o.Domain.UUID.IsZero() {
		return
	}
	switch o.Kind {
	case KindLifecycle:
		s.want(o.Domain.UUID, LearnedEvent, o.Word == "define" || o.Word == "undefine")
	case KindDevice:
		s.want(o.Domain.UUID, LearnedEvent, false)
	case KindResync:
		s.want(o.Domain.UUID, LearnedBlind, true)
	case KindNotice:
		switch o.Word { // those that people cause and that leave something behind
		case "block-job", "job-completed", "disk-change", "qemu-job", "tray":
			s.want(o.Domain.UUID, LearnedEvent, false)
		}
	}
}
