package introspect

import (
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/rules"
)

// A guest decides how much its policies remember. So a large state is not written
// with every run, but once so many entries were judged that each has paid for
// savedBytes of it. Position and verdicts become durable at once all the same: behind
// a restart the state follows the log from where it was saved to the position, and
// reaches the verdicts again, which are there (invariant I5).
const (
	smallState = 64 << 10 // bytes; always written
	savedBytes = 512      // for each entry
)

// due reports whether the state is to be saved with the next run. Whenever another
// bundle comes in force it is: what comes behind is judged by that one again.
func (s *judged) due() bool {
	size := s.Size()
	return s.unsaved || size <= smallState || s.entries*savedBytes >= size
}

// behind is what a state needs that follows its log to where that is judged.
type behind struct {
	next uint64 // entry
	// What is in force where nothing on the way says so.
	engine     *rules.Engine
	activation []byte
	missing    error
}

// catchUp has the state of a log follow the entries before one, where it was saved
// before them. Their verdicts are sealed already and are dropped.
func (j *Judge) catchUp(l *chain.Log, st *judged, before uint64) error {
	for {
		if done, err := j.catchUpOne(l, st, before); done || err != nil {
			return err
		}
	}
}

// catchUpOne does one entry of it, so that others have their turn meanwhile, and
// reports whether there was none left.
func (j *Judge) catchUpOne(l *chain.Log, st *judged, before uint64) (bool, error) {
	if st.behind == nil {
		if st.Next() >= before && !st.rebuild {
			return true, nil
		}
		last := behind{engine: st.engine, activation: st.activation, missing: st.missing}
		if st.rebuild {
			st.engine = j.nothing
			if err := j.reborn(l, st); err != nil {
				return false, err
			}
		}
		last.next, st.activation, st.behind = st.Next(), nil, &last
	}
	b := st.behind
	it, ok, err := l.From(b.next, before)
	if err != nil {
		return false, fmt.Errorf("judge entry %d again: %w", b.next, err)
	}
	if !ok {
		if st.activation == nil { // it stands further ahead, or was pruned
			st.engine, st.activation = b.engine, b.activation
		}
		st.missing, st.rebuild, st.behind = b.missing, false, nil
		st.upTo = max(st.upTo, before)
		return true, nil
	}
	payload, _ := decode(&it) // what does not decode was told
	if _, err := j.evaluate(st, &it, payload); err != nil {
		return false, fmt.Errorf("judge entry %d again: %w", it.Index, err)
	}
	b.next = it.Index + 1
	return false, nil
}
