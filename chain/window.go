package chain

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// What a window may hold, how far before it the newest heartbeat is looked for,
// and how many entries behind it are: together one export.
const (
	maxWithin    = MaxExport / 2
	maxLookBack  = MaxExport/4 - 2
	maxLookAhead = MaxExport / 4
)

// Window is what a VM log tells of a time.
type Window struct {
	// First and Last are the entries that tell it: those of the time, those
	// behind it until its silence would be sealed, and those before it back to
	// the newest heartbeat, or the one entry before it where that is too far.
	First, Last uint64
	Within      uint64 // entries sealed in the time itself
	// Gaps are the times of it that no entry and no heartbeat covers; More are
	// those that found no room. Without any, nothing else happened that is
	// watched.
	Gaps []proof.Gap
	More int
}

// Window reads what a VM log tells of the time from since to until, both
// included, in the host's monotone time, which no entry steps back in. An error
// for a time that ends before it begins, or holds too many entries for one
// export, wraps record.ErrReject.
func (l *Log) Window(ctx context.Context, since, until int64) (*Window, error) {
	if l.name.IsHost() {
		return nil, fmt.Errorf("window of %s: heartbeats are of VM logs, this is a host log: %w", l.origin, record.ErrReject)
	}
	if since > until {
		return nil, fmt.Errorf("window of %s: it ends before it begins: %w", l.origin, record.ErrReject)
	}
	size := l.Size()
	if size == 0 || l.Minimum() >= size {
		return nil, fmt.Errorf("window of %s: nothing of it is kept: %w", l.origin, record.ErrReject)
	}
	begin, err := l.firstAt(size, since)
	if err != nil {
		return nil, err
	}
	end, err := l.firstAt(size, until+1)
	if err != nil {
		return nil, err
	}
	w := &Window{Within: end - begin}
	if w.Last, err = l.firstAt(size, proof.Settles(until)); err != nil {
		return nil, err
	}
	w.Last = min(w.Last, size-1, end+maxLookAhead)
	if w.Within > maxWithin {
		return nil, fmt.Errorf("window of %s: %d entries were sealed in that time, the limit is %d; ask for less of it at once: %w", l.origin, w.Within, maxWithin, record.ErrReject)
	}
	if w.First, err = l.heartbeatBefore(ctx, begin); err != nil {
		return nil, err
	}
	c := proof.NewCoverage(since, until)
	for i := w.First; i <= w.Last; i++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		leaf, err := l.readHeader(i)
		if errors.Is(err, ErrUnreadable) {
			c.AddUnreadable(i, err.Error())
			continue
		}
		if err != nil {
			return nil, err
		}
		var m record.Message
		if k := leaf.Header.Class; k == record.ClassTick || proof.TellsOfSilence(k) {
			if m, err = l.message(i); err != nil {
				return nil, err
			}
		}
		c.Add(&leaf, m)
	}
	w.Gaps, w.More = c.Gaps()
	return w, nil
}

// FirstAt returns the first entry that is kept and was sealed at a host monotone time
// or later; Size where there is none.
func (l *Log) FirstAt(mono int64) (uint64, error) {
	if err := l.Gone(); err != nil {
		return 0, err
	}
	return l.firstAt(l.Size(), mono)
}

// firstAt returns the first entry that is kept and was sealed at a time or
// later; size where there is none. One whose leaf cannot be read is taken for its
// neighbour.
func (l *Log) firstAt(size uint64, mono int64) (uint64, error) {
	var failure error
	minimum := l.Minimum()
	i := sort.Search(int(size-minimum), func(i int) bool {
		for at := minimum + uint64(i); at < size; at++ {
			leaf, err := l.readHeader(at)
			switch {
			case err == nil:
				return leaf.Mono >= mono
			case !errors.Is(err, ErrUnreadable):
				failure = err
				return true
			}
		}
		return true
	})
	return minimum + uint64(i), failure
}

// heartbeatBefore returns the newest heartbeat before an entry, or the entry
// right before it where no heartbeat is near.
func (l *Log) heartbeatBefore(ctx context.Context, index uint64) (uint64, error) {
	minimum := l.Minimum()
	if index == minimum {
		return index, nil
	}
	for i := index; i > minimum && index-i < maxLookBack; i-- {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		leaf, err := l.readHeader(i - 1)
		if errors.Is(err, ErrUnreadable) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if leaf.Header.Class == record.ClassTick && leaf.Origin == record.OriginHost {
			return i - 1, nil
		}
	}
	return index - 1, nil
}

// message decodes the payload of a host's entry; nil where it was erased or is
// not readable, which covers nothing.
func (l *Log) message(index uint64) (record.Message, error) {
	item, err := l.Look(index)
	if err != nil {
		return nil, err
	}
	m, err := item.Decode()
	if err != nil {
		return nil, nil
	}
	return m, nil
}
