package chain

import (
	"context"
	"errors"
	"sync"
)

// hourRun is a run of entries that were sealed in one hour of host time.
type hourRun struct {
	first uint64
	hour  int64
}

// hourRuns says in which hours the entries of a log were sealed: there are about
// as many runs as hours. It is made at first use and goes on from there.
type hourRuns struct {
	mu   sync.Mutex
	size uint64
	runs []hourRun
}

// bundlesOf adds to list the numbers of the bundles that hold entries of the
// given hours, among the entries before end.
func (l *Log) bundlesOf(ctx context.Context, hours map[int64]bool, end uint64, add func(bundle uint64)) error {
	h := &l.hours
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.size = l.nextKept(h.size); h.size < end; h.size = l.nextKept(h.size + 1) {
		if h.size%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		leaf, err := l.readHeader(h.size)
		if errors.Is(err, ErrUnreadable) {
			continue
		}
		if err != nil {
			return err
		}
		if hour := hourOf(leaf.Wall); len(h.runs) == 0 || h.runs[len(h.runs)-1].hour != hour {
			h.runs = append(h.runs, hourRun{h.size, hour})
		}
	}
	for i, r := range h.runs {
		last := end - 1
		if i+1 < len(h.runs) {
			last = min(last, h.runs[i+1].first-1)
		}
		if !hours[r.hour] || r.first > last {
			continue
		}
		for k := r.first / tileWidth; k <= last/tileWidth; k++ {
			if l.goneBundle(k) == nil {
				add(k)
			}
		}
	}
	return nil
}
