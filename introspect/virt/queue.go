package virt

import (
	"context"
	"sync"
)

// pending is an observation on its way, with the facts still being read.
type pending struct {
	obs   Observation
	facts chan facts // nil when the observation needs none; capacity 1
}

type facts struct {
	snap *Snapshot
	err  error
}

// queue holds observations between libvirt's event thread and the deliverer. It has no bound: the
// event thread must never wait, and dropping would be a loss (I4). What fills it is libvirt's
// rate of events, which no guest can raise beyond its own reboots; Stats.QueueLength shows it.
type queue struct {
	stats *Stats

	mu      sync.Mutex
	items   []pending
	held    []pending // events that arrived while a resync was being read
	holding bool
	last    uint64 // number of the newest observation
	wake    chan struct{}
}

func newQueue(stats *Stats) *queue {
	return &queue{stats: stats, wake: make(chan struct{}, 1)}
}

// put adds an observation. While a resync is read, events wait behind it: a change may then be
// told twice, by the resync and by its event, but never lost and never told in the wrong order.
func (q *queue) put(p pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holding {
		q.held = append(q.held, p)
	} else {
		q.append(p)
	}
}

// append numbers an observation and wakes the deliverer. The caller holds mu.
func (q *queue) append(p pending) {
	q.last++
	p.obs.Number = q.last
	q.items = append(q.items, p)
	q.stats.QueueLength.Add(1)
	q.stats.count(p.obs.Kind)
	select {
	case q.wake <- struct{}{}:
	default: // it is awake already
	}
}

// hold makes put keep events back until release.
func (q *queue) hold() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holding = true
}

// release puts first before the events held back and lets put go on as usual.
func (q *queue) release(first []pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holding = false
	for _, p := range first {
		q.append(p)
	}
	for _, p := range q.held {
		q.append(p)
	}
	q.held = nil
}

// next waits for the oldest observation and takes it off.
func (q *queue) next(ctx context.Context) (pending, error) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			p := q.items[0]
			q.items[0] = pending{}
			q.items = q.items[1:]
			q.mu.Unlock()
			return p, nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return pending{}, ctx.Err()
		case <-q.wake:
		}
	}
}
