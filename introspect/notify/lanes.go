package notify

import (
	"slices"
	"time"

	"github.com/provostd/provost/chain"
)

// queued is one alert that waits at one channel.
type queued struct {
	seq    uint64 // in its row's key
	log    chain.LogID
	index  uint64
	action uint32
	at     time.Time // when it was queued
}

// lane holds the alerts of one domain, in their order.
type lane struct {
	domain  string
	waiting []queued
	busy    bool      // its first one is being delivered
	tries   int       // of the first one, in this run
	not     time.Time // before which it is not tried again
}

// lanes are the alerts that wait at one channel. It knows no clock and no lock.
type lanes struct {
	byDomain map[string]*lane
	turns    []*lane   // the one whose turn is next comes first
	not      time.Time // before which nothing is tried: the receiver has said so
	size     int
}

func (s *lanes) push(domain string, q queued) {
	l := s.byDomain[domain]
	if l == nil {
		l = &lane{domain: domain}
		s.byDomain[domain] = l
		s.turns = append(s.turns, l)
	}
	l.waiting = append(l.waiting, q)
	s.size++
}

// of returns how many alerts of a domain wait.
func (s *lanes) of(domain string) int {
	if l := s.byDomain[domain]; l != nil {
		return len(l.waiting)
	}
	return 0
}

// take returns the lane whose first alert is to be delivered now, and marks it
// busy. Else it returns when there may be one; zero: when something changes.
func (s *lanes) take(now time.Time) (*lane, time.Time) {
	var soonest time.Time
	for i, l := range s.turns {
		if l.busy {
			continue
		}
		at := l.not
		if s.not.After(at) {
			at = s.not
		}
		if at.After(now) {
			if soonest.IsZero() || at.Before(soonest) {
				soonest = at
			}
			continue
		}
		l.busy = true
		s.turns = append(slices.Delete(s.turns, i, i+1), l)
		return l, time.Time{}
	}
	return nil, soonest
}

// done removes the first alert of a busy lane.
func (s *lanes) done(l *lane) {
	l.busy, l.tries, l.not = false, 0, time.Time{}
	l.waiting = l.waiting[1:]
	s.size--
	if len(l.waiting) == 0 {
		delete(s.byDomain, l.domain)
		s.turns = slices.DeleteFunc(s.turns, func(x *lane) bool { return x == l })
	}
}

// again gives a busy lane back: its first alert is tried again later.
func (l *lane) again(not time.Time) { l.busy, l.not = false, not }

// oldest is when the alert was queued that waits longest.
func (s *lanes) oldest() (at time.Time) {
	for _, l := range s.turns {
		if at.IsZero() || l.waiting[0].at.Before(at) {
			at = l.waiting[0].at
		}
	}
	return at
}
