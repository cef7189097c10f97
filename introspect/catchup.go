package introspect

import (
	"errors"
	"fmt"

	"github.com/provostd/provost/chain"
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

// catchUp has the state of a log follow the entries before one, where it was saved
// before them. Their verdicts are sealed already and are dropped.
func (j *Judge) catchUp(l *chain.Log, st *judged, before uint64) error {
	if st.Next() >= before && !st.rebuild {
		return nil
	}
	last, activation, missing := st.engine, st.activation, st.missing
	st.activation = nil
	if st.rebuild {
		st.engine = j.nothing
	}
	for i := st.Next(); i < before; i++ {
		it, err := l.Look(i)
		if errors.Is(err, chain.ErrPruned) {
			i = max(i+1, l.Minimum()) - 1
			continue
		}
		if err != nil {
			return fmt.Errorf("judge entry %d again: %w", i, err)
		}
		payload, _ := decode(&it) // what does not decode was told
		if _, err := j.evaluate(st, &it, payload); err != nil {
			return fmt.Errorf("judge entry %d again: %w", i, err)
		}
	}
	if st.activation == nil { // it stands further ahead, or was pruned
		st.engine, st.activation = last, activation
	}
	st.missing, st.rebuild = missing, false
	return nil
}
