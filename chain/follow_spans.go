package chain

import (
	"errors"
)

// Span says which entries of a log one commit holds.
type Span struct {
	Log   *Log
	First uint64 // index
	Count uint32
	Pos   Position // of the first of them
}

// End returns the index behind the last entry of the span.
func (s *Span) End() uint64 { return s.First + uint64(s.Count) }

// Spans is TryNext for a reader that takes the entries of each log at a pace of their
// own: it returns which entries the next durable commit holds from the follower's place
// on, without reading them, and moves behind that commit. Log.From reads them. ok is
// false where no commit is durable yet.
func (f *Follower) Spans() (spans []Span, ok bool, err error) {
	if f.next.Commit == 0 {
		f.next = Position{Commit: 1}
	}
	if f.next.Commit > f.store.durable.Load() {
		return nil, false, nil
	}
	if f.spans == nil {
		if err := f.load(); err != nil {
			return nil, false, err
		}
	}
	begin := uint32(0) // of the span, in the commit
	for _, sp := range f.spans {
		end := begin + sp.count
		if passed := max(f.next.Offset, begin); passed < end {
			l, ok := f.store.LogByID(sp.log)
			if !ok {
				return nil, false, corrupt("commit %d names log number %d, which does not exist", f.next.Commit, sp.log)
			}
			spans = append(spans, Span{Log: l, First: sp.first + uint64(passed-begin), Count: end - passed, Pos: Position{Commit: f.next.Commit, Offset: passed}})
		}
		begin = end
	}
	f.next, f.spans = Position{Commit: f.next.Commit + 1}, nil
	return spans, true, nil
}

// From returns the first entry from an index on and before another that was not pruned:
// as Look gives it. ok is false where there is none.
func (l *Log) From(index, to uint64) (item Item, ok bool, err error) {
	for index < min(to, l.Size()) {
		if kept := l.nextKept(index); kept != index {
			index = kept
			continue
		}
		item, err := l.Look(index)
		if errors.Is(err, ErrPruned) && l.nextKept(index) != index {
			continue // it went a moment ago
		}
		return item, err == nil, err
	}
	return Item{}, false, nil
}
