package introspect

import (
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
)

// One guest's events may cost the policies a thousand times what another's do. So the
// judge takes entries log by log and not in the order of their commits: each log that
// has entries left gets quantum of the judge's time in turn, and one that had none left
// comes first when it has again (invariant I8). Time decides only in which order logs
// are judged; the entries of one log are judged in their order, and what is decided on
// them follows from them alone (invariant I5).
const (
	// quantum is the time that a log has in one turn. An entry that takes longer is
	// judged to its end, and what it took too much is missing in the turns that come.
	quantum = 2 * time.Millisecond
	// runTime is how long verdicts wait for others to be sealed with.
	runTime = 8 * time.Millisecond
)

// queue is what of a log is not judged yet. It holds no entry: until their turn they
// stay in the ledger, so what waits costs no memory.
type queue struct {
	log       *chain.Log
	next, end uint64 // entries from next on, before end
	before    chain.LogID
	after     bool // the log of number before must have nothing left when this one begins

	// low is a position at which entry next is not passed, where there is one. It need
	// not be the newest such: it moves to that of mark once next is there.
	low, markPos chain.Position
	mark         uint64 // 0: none

	left time.Duration // of its turn; less than 0: what it took too much
	last time.Duration // what its newest entry took
}

func (q *queue) waits() bool { return q.next < q.end }

// pass moves a queue on.
func (q *queue) pass(next uint64) {
	q.next = next
	if q.mark != 0 && next >= q.mark {
		q.low, q.mark = q.markPos, 0
	}
}

// turns says which log is judged next. It is the judge's.
type turns struct {
	byLog map[chain.LogID]*queue // those in fresh and rest
	fresh []*queue               // have had no turn since they had nothing left
	rest  []*queue
	turn  *queue // whose turn it is
}

// add takes in which entries a commit holds.
func (t *turns) add(s *chain.Span, byOrigin func(string) (*chain.Log, bool)) {
	q := t.byLog[s.Log.ID()]
	switch {
	case q == nil:
		q = &queue{log: s.Log, next: s.First, low: s.Pos, left: quantum}
		if t.byLog == nil {
			t.byLog = make(map[chain.LogID]*queue)
		}
		t.byLog[s.Log.ID()] = q
		t.fresh = append(t.fresh, q)
	case !q.waits():
		q.next, q.low, q.mark = max(q.next, s.First), s.Pos, 0
	case q.mark == 0:
		q.mark, q.markPos = s.First, s.Pos
	}
	q.end = max(q.next, s.End())
	if name := s.Log.Name(); s.First == 0 && name.Shard > proof.FirstShard {
		name.Shard--
		if l, ok := byOrigin(name.String()); ok {
			q.before, q.after = l.ID(), true
		}
	}
}

// next returns the queue whose entry is judged next, nil where nothing is left.
func (t *turns) next() *queue {
	for {
		list := &t.fresh
		if len(t.fresh) == 0 {
			list = &t.rest
		}
		if len(*list) == 0 {
			return nil
		}
		q := (*list)[0]
		if q.waits() && q.left > 0 {
			t.turn = q
			return t.first(q)
		}
		*list = (*list)[1:]
		switch {
		case q.left <= 0:
			q.left += quantum
			t.rest = append(t.rest, q)
		case list == &t.fresh:
			// It has one turn behind the others before it may come first again: else
			// a guest did always that sends a little at a time.
			t.rest = append(t.rest, q)
		default:
			delete(t.byLog, q.log.ID())
		}
	}
}

// charge takes time off the turn of the log that was next.
func (t *turns) charge(d time.Duration) { t.turn.left -= d }

// first returns what must be judged ahead of a queue, or the queue: a shard begins with
// what the shard before it has ended with.
func (t *turns) first(q *queue) *queue {
	for q.after {
		p := t.byLog[q.before]
		if p == nil || !p.waits() {
			break
		}
		q = p
	}
	return q
}

// busy returns how many logs have entries left.
func (t *turns) busy() (n int) {
	for _, q := range t.byLog {
		if q.waits() {
			n++
		}
	}
	return n
}

// low returns the position before which everything is judged; read is what was taken
// in. Entries of some logs behind it are judged, too: what is kept of each log says
// which.
func (t *turns) low(read chain.Position) chain.Position {
	for _, q := range t.byLog {
		if q.waits() && q.low.Compare(read) < 0 {
			read = q.low
		}
	}
	return read
}
