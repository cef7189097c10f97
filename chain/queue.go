package chain

import (
	"context"
	"fmt"
	"sync"

	"github.com/provostd/provost/chain/record"
)

// Caps of one commit. The first request of a commit may exceed them.
const (
	commitEntries = 4096
	commitBytes   = 1 << 20
)

// Caps of what waits. A submitter above them waits for its own log only.
const (
	guestQueueEntries  = 4096    // for each log
	guestQueueBytes    = 1 << 20 // for each log
	urgentQueueEntries = 16384   // all logs together: the host's own word
	urgentQueueBytes   = 16 << 20
)

// queue holds the requests that wait for the committer. What the host, a
// policy or an operator says goes before what guests say (invariant I8: a
// domain's pause is never queued behind its own flood), and among guests every
// log gets its turn.
type queue struct {
	mu     sync.Mutex
	err    error          // why nothing is taken in any more
	urgent lane           // first in, first out
	guests map[*Log]*lane // logs with waiting requests
	ring   []*Log         // whose turn is next
	keys   map[string]int // meta keys that waiting guest requests write
	ready  chan struct{}  // holds a token while there may be work
}

// lane is one first-in-first-out line with a bound.
type lane struct {
	requests []*request
	entries  int
	bytes    int
	space    chan struct{} // closed when there is room again; nil while nobody waits
}

func newQueue() *queue {
	return &queue{
		guests: map[*Log]*lane{},
		keys:   map[string]int{},
		ready:  make(chan struct{}, 1),
	}
}

// fits reports whether r may be added: an empty lane takes any request, and a
// half empty one takes any that is larger than half of it, which small ones
// would keep out for ever otherwise.
func (l *lane) fits(r *request, entries, bytes int) bool {
	return len(l.requests) == 0 || l.entries+r.entries <= entries && l.bytes+min(r.bytes, bytes/2) <= bytes
}

func (l *lane) push(r *request) {
	l.requests = append(l.requests, r)
	l.entries += r.entries
	l.bytes += r.bytes
}

func (l *lane) pop() *request {
	r := l.requests[0]
	l.requests[0] = nil
	l.requests = l.requests[1:]
	l.entries -= r.entries
	l.bytes -= r.bytes
	l.wake()
	return r
}

// wait returns what is closed when there may be room.
func (l *lane) wait() <-chan struct{} {
	if l.space == nil {
		l.space = make(chan struct{})
	}
	return l.space
}

// wake has everybody who waits for room try again.
func (l *lane) wake() {
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
}

// put adds r, waiting for room in its lane. When the queue is closed it
// returns why.
func (q *queue) put(ctx context.Context, r *request) error {
	for {
		wait, err := q.tryPut(r)
		if err != nil || wait == nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("wait for room: %w: %w", record.ErrRetry, context.Cause(ctx))
		}
	}
}

// tryPut adds r, or returns a channel that is closed when trying again makes
// sense.
func (q *queue) tryPut(r *request) (wait <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	if !r.guest && q.mustFollow(r) {
		r.guest = true
	}
	if !r.guest {
		if !q.urgent.fits(r, urgentQueueEntries, urgentQueueBytes) {
			return q.urgent.wait(), nil
		}
		q.urgent.push(r)
		q.wake()
		return nil, nil
	}
	log := r.batches[0].Log
	l := q.guests[log]
	if l == nil {
		l = &lane{}
		q.guests[log] = l
		q.ring = append(q.ring, log)
	}
	if !l.fits(r, guestQueueEntries, guestQueueBytes) {
		return l.wait(), nil
	}
	l.push(r)
	r.eachKey(func(k string) { q.keys[k]++ })
	q.wake()
	return nil, nil
}

// mustFollow reports whether a waiting guest request writes a meta key that r
// writes too: overtaking it would leave the older value.
func (q *queue) mustFollow(r *request) bool {
	follow := false
	r.eachKey(func(k string) { follow = follow || q.keys[k] > 0 })
	return follow
}

func (r *request) eachKey(f func(string)) {
	for i := range r.batches {
		for _, m := range r.batches[i].Meta {
			f(m.Key)
		}
	}
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default: // a token is there already, and one is enough
	}
}

// take returns what the next commit is made of, in order, or nothing.
func (q *queue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*request
	entries, bytes := 0, 0
	full := func(r *request, quarters int) bool {
		return len(batch) > 0 && (entries+r.entries > commitEntries*quarters/4 || bytes+r.bytes > commitBytes*quarters/4)
	}
	add := func(r *request) {
		batch = append(batch, r)
		entries += r.entries
		bytes += r.bytes
	}
	// While guests wait, a quarter of the commit is theirs: verdicts that one
	// guest provokes must not keep another from being sealed at all.
	share := 4
	if len(q.ring) > 0 {
		share = 3
	}
	for len(q.urgent.requests) > 0 && !full(q.urgent.requests[0], share) {
		add(q.urgent.pop())
	}
	// One request of each log in turn: whoever floods waits for itself. The
	// log at the front stays there when its request did not fit any more.
	for len(q.ring) > 0 {
		log := q.ring[0]
		l := q.guests[log]
		if full(l.requests[0], 4) {
			break
		}
		r := l.pop()
		r.eachKey(q.forget)
		add(r)
		q.ring = q.ring[1:]
		if len(l.requests) > 0 {
			q.ring = append(q.ring, log)
		} else {
			delete(q.guests, log)
		}
	}
	if len(q.urgent.requests) > 0 || len(q.ring) > 0 {
		q.wake()
	}
	return batch
}

func (q *queue) forget(key string) {
	if q.keys[key]--; q.keys[key] <= 0 {
		delete(q.keys, key)
	}
}

// shut lets nothing more in; what waits can still be taken.
func (q *queue) shut(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shutLocked(err)
}

func (q *queue) shutLocked(err error) {
	if q.err == nil {
		q.err = err
	}
	// Whoever waits for room finds out.
	q.urgent.wake()
	for _, l := range q.guests {
		l.wake()
	}
	q.wake()
}

// close lets nothing more in and refuses what waits.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shutLocked(err)
	for _, r := range q.urgent.requests {
		r.finish(q.err)
	}
	for _, l := range q.guests {
		for _, r := range l.requests {
			r.finish(q.err)
		}
	}
	q.urgent.requests, q.guests, q.ring, q.keys = nil, map[*Log]*lane{}, nil, map[string]int{}
}
