package chain

import (
	"errors"

	"github.com/provostd/provost/chain/record"
)

// Place is where an entry stands.
type Place struct {
	Log   *Log
	Index uint64
	Pos   Position // right behind it
}

// Backward goes through the entries of a store from a position on towards the
// first one: for who wants the newest ones and not all there are. It is for one
// goroutine.
type Backward struct {
	store  *Store
	commit uint64 // the next one to look at; 0: none is left
}

// Back returns what goes backward from a position that a follower may have. Of
// the commit in which it lies all entries stand behind it.
func (s *Store) Back(end Position) *Backward {
	return &Backward{store: s, commit: min(max(end.Commit, 1)-1, s.durable.Load())}
}

// Step looks at so many commits more and returns the places of at most limit
// entries in them, the newest first: of logs that want admits, with leaves that
// admits admits. What was pruned is passed over; of an entry whose leaf cannot be
// read admits is shown one without a class. more says whether there is anything
// left to look at.
func (b *Backward) Step(want func(*Log) bool, admits func(*record.Leaf) bool, commits, limit int) (places []Place, more bool, err error) {
	for ; commits > 0 && b.commit > 0 && len(places) < limit; commits-- {
		row, ok, err := get(b.store.db, keyCommit(b.commit))
		if err != nil {
			return nil, false, err
		}
		if !ok {
			return nil, false, corrupt("commit %d is missing", b.commit)
		}
		spans, err := parseCommit(row)
		if err != nil {
			return nil, false, corrupt("commit %d: %v", b.commit, err)
		}
		end := uint32(0)
		for _, sp := range spans {
			end += sp.count
		}
		for i := len(spans) - 1; i >= 0 && len(places) < limit; i-- {
			sp := spans[i]
			end -= sp.count
			l, ok := b.store.LogByID(sp.log)
			if !ok {
				return nil, false, corrupt("commit %d names log number %d, which does not exist", b.commit, sp.log)
			}
			if !want(l) {
				continue
			}
			for n := sp.count; n > 0 && len(places) < limit; n-- {
				at := sp.first + uint64(n) - 1
				ok, err := l.admitted(at, admits)
				if err != nil {
					return nil, false, err
				}
				if ok {
					places = append(places, Place{l, at, Position{Commit: b.commit, Offset: end + n}})
				}
			}
		}
		b.commit--
	}
	return places, b.commit > 0 && len(places) < limit, nil
}

// admitted reports whether an entry that is kept has a leaf that admits admits.
func (l *Log) admitted(index uint64, admits func(*record.Leaf) bool) (bool, error) {
	if l.nextKept(index) != index {
		return false, nil
	}
	leaf, err := l.readHeader(index)
	switch {
	case errors.Is(err, ErrPruned):
		return false, nil // a moment ago
	case errors.Is(err, ErrUnreadable):
		leaf = record.Leaf{Index: index}
	case err != nil:
		return false, err
	}
	return admits(&leaf), nil
}
