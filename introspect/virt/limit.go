package virt

import (
	"sync"
	"time"

	"github.com/provostd/provost/introspect/domain"
)

// How many events of one word are told of one domain: so many at once, then
// one in each interval.
const (
	limitBurst = 20
	limitEvery = 10 * time.Second
)

// limits bounds what a guest, or who comes to its console, can make the host
// seal by events that are theirs to cause (I8). What is not told is counted, and
// the count is told with the next event of its word, within a minute, or when the domain
// stops, whichever is first (I4). Words are constants of this package, so the
// number of buckets is bounded by that of the domains.
type limits struct {
	stats *Stats

	mu  sync.Mutex
	all map[limitKey]*bucket
}

type limitKey struct {
	id   domain.UUID
	word string
}

type bucket struct {
	left  int
	since time.Time // the last refill
	held  uint64
	first time.Time   // when the first of held came
	last  Observation // whose like are held
}

func newLimits(stats *Stats) *limits { return &limits{stats: stats, all: map[limitKey]*bucket{}} }

// allow says whether an event is told, and how many came before it that were not.
func (l *limits) allow(o *Observation) (repeats uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := limitKey{o.Domain.UUID, o.Word}
	b := l.all[k]
	if b == nil {
		b = &bucket{left: limitBurst, since: o.Time}
		l.all[k] = b
	}
	if n := int(o.Time.Sub(b.since) / limitEvery); n > 0 {
		b.left, b.since = min(limitBurst, b.left+n), b.since.Add(time.Duration(n)*limitEvery)
	} else if n < 0 { // the clock was set back
		b.since = o.Time
	}
	if b.left > 0 {
		b.left--
		repeats, b.held = b.held, 0
		return repeats, true
	}
	if b.held++; b.held == 1 {
		b.first = o.Time
	}
	b.last = *o
	b.last.Hypervisor = nil
	l.stats.Counted.Add(1)
	return 0, false
}

// drop forgets a domain and tells what was held of it. tell runs under the lock,
// so that no count comes behind the end of the domain.
func (l *limits) drop(id domain.UUID, tell func(Observation, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, b := range l.all {
		if k.id == id {
			if b.held > 0 {
				tell(b.last, b.held)
			}
			delete(l.all, k)
		}
	}
}

// due tells what has been held for a minute.
func (l *limits) due(now time.Time, tell func(Observation, uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.all {
		if b.held > 0 && now.Sub(b.first) >= time.Minute {
			tell(b.last, b.held)
			b.held = 0
		}
	}
}
