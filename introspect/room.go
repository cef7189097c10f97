package introspect

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/guestagent/wire"
)

// aheadMost is how far the entries of guests may be ahead of the judge, in the time
// that it needs for them. It is what a guest's own flood may put between an entry of
// it and what policies have done about that, beside the frames that are on their way
// (invariant I8).
const aheadMost = time.Second

// following is how far a log counts as judged whose state follows it behind a start: that
// is no fault of the guest, which need not wait for it.
const following = math.MaxUint64

// room has the sessions wait for the judge. Time decides only how fast guests are
// read.
type room struct {
	logs sync.Map     // chain.LogID to *pace
	busy atomic.Int64 // logs that have entries left
	held atomic.Uint64

	mu   sync.Mutex
	wake chan struct{} // closed at the end of a run; nil: nobody waits
}

// pace is how the judge gets on with a log.
type pace struct {
	next atomic.Uint64 // entry, or following
	cost atomic.Int64  // nanoseconds for each entry, of late
}

// judged notes what one step has cost.
func (r *room) judged(q *queue, cost time.Duration, st *judged) {
	v, ok := r.logs.Load(q.log.ID())
	if !ok {
		v, _ = r.logs.LoadOrStore(q.log.ID(), &pace{})
	}
	p := v.(*pace)
	next := q.next
	if st != nil && st.behind != nil {
		next = following
	}
	p.next.Store(next)
	const of = 16
	p.cost.Add((int64(cost) - p.cost.Load()) / of)
}

// open lets those look again who wait.
func (r *room) open(busy int) {
	r.busy.Store(int64(busy))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// waiter returns a channel that is closed when it is worth looking again.
func (r *room) waiter() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	return r.wake
}

// ahead returns how long the judge needs for what it has not judged of a log, beside the
// others that have entries left, and for each entry.
func (r *room) ahead(l *chain.Log) (all, each time.Duration) {
	v, ok := r.logs.Load(l.ID())
	if !ok {
		return 0, 0
	}
	p := v.(*pace)
	size, next := l.Size(), p.next.Load()
	if next == following {
		return 0, 0
	}
	each = time.Duration(p.cost.Load() * max(r.busy.Load(), 1))
	return time.Duration(min(float64(size-min(next, size))*float64(each), math.MaxInt64/2)), each
}

// Held returns how many frames have waited for room.
func (j *Judge) Held() uint64 { return j.room.held.Load() }

// Room waits until the judge has come near the end of a log: whoever seals what a guest
// sends waits here before each frame, so that a guest which sends what is costly to
// judge fills its own port and no queue. sealed is closed when its frames before are
// sealed; nil: they are. Where a frame may be costly, they are waited for first.
func (j *Judge) Room(ctx context.Context, l *chain.Log, sealed <-chan struct{}) error {
	for held := false; ; {
		wake := j.room.waiter() // before looking: the run that ends behind it is seen
		all, each := j.room.ahead(l)
		if sealed != nil && each > aheadMost/wire.MaxRecords {
			select {
			case <-sealed:
				sealed = nil
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if all <= aheadMost {
			return nil
		}
		if !held {
			held = true
			j.room.held.Add(1)
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
