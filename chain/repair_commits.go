package chain

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// commitRun is a commit row on its way through the repair.
type commitRun struct {
	n     uint64
	spans []span // nil: the row is lost
}

// commitRows mends the order of commits. A single row that is lost is what its
// neighbours leave between them. Of several in a row that order is lost: each
// gets one entry and the last of them the rest.
func (r *repairer) commitRows() error {
	runs, err := r.readCommits()
	if err != nil {
		return err
	}
	r.dropInconsistent(runs)
	next := map[LogID]uint64{}
	rebuilt := 0
	for i := 0; i < len(runs); i++ {
		if runs[i].spans != nil {
			for _, sp := range runs[i].spans {
				next[sp.log] = sp.first + uint64(sp.count)
			}
			continue
		}
		j := i
		for j < len(runs) && runs[j].spans == nil {
			j++
		}
		gap := r.between(next, runs[j:])
		if err := fillCommits(runs[i:j], gap); err != nil {
			return err
		}
		for _, sp := range gap {
			next[sp.log] = sp.first + uint64(sp.count)
		}
		for _, c := range runs[i:j] {
			if err := r.s.db.Set(keyCommit(c.n), appendCommit(nil, c.spans), pebble.NoSync); err != nil {
				return err
			}
			rebuilt++
		}
		i = j - 1
	}
	// Entries that no commit is left for make one of their own.
	if gap := r.between(next, nil); len(gap) > 0 {
		n := uint64(1)
		if len(runs) > 0 {
			n = runs[len(runs)-1].n + 1
		}
		rebuilt++
		if err := r.s.db.Set(keyCommit(n), appendCommit(nil, gap), pebble.NoSync); err != nil {
			return err
		}
	}
	if rebuilt > 0 {
		r.did(nil, "commit", 0, 0, "rebuilt", "%d rows were lost or did not fit their neighbours; the order of logs within them may be another", rebuilt)
	}
	return nil
}

func (r *repairer) readCommits() (runs []commitRun, err error) {
	err = scan(r.s.db, []byte{tableCommit}, func(key, value []byte) error {
		if len(key) != 9 {
			return r.s.db.Delete(slices.Clone(key), pebble.NoSync)
		}
		n := binary.BigEndian.Uint64(key[1:])
		for want := uint64(len(runs)) + 1; want < n; want++ {
			runs = append(runs, commitRun{n: want})
			if len(runs) > maxLostCommits+int(want) {
				return fmt.Errorf("too many commits are lost")
			}
		}
		spans, err := parseCommit(value)
		if err != nil || slices.ContainsFunc(spans, func(sp span) bool { return r.spanOf(sp) == nil }) {
			spans = nil
		}
		runs = append(runs, commitRun{n: n, spans: spans})
		return nil
	})
	return runs, err
}

// maxLostCommits bounds what a damaged key may have this make up.
const maxLostCommits = 1 << 24

// spanOf returns the log of a span that can be; nil where it cannot.
func (r *repairer) spanOf(sp span) *logRepair {
	if int(sp.log) >= len(r.logs) || sp.count == 0 || sp.first+uint64(sp.count) > r.logs[sp.log].size {
		return nil
	}
	return r.logs[sp.log]
}

// dropInconsistent takes out rows that do not fit. Of two neighbours of a log
// that do not meet the second one is right if it meets the one behind it.
func (r *repairer) dropInconsistent(runs []commitRun) {
	type at struct {
		run int
		sp  span
	}
	byLog := map[LogID][]at{}
	for i, c := range runs {
		for _, sp := range c.spans {
			byLog[sp.log] = append(byLog[sp.log], at{i, sp})
		}
	}
	lost := func(from, to int) bool {
		return slices.ContainsFunc(runs[from:to], func(c commitRun) bool { return c.spans == nil })
	}
	for id, list := range byLog {
		before, end := -1, uint64(0)
		for i, this := range list {
			if runs[this.run].spans == nil {
				continue
			}
			if this.sp.first != end && (this.sp.first < end || !lost(before+1, this.run)) {
				next := r.logs[id].size
				if i+1 < len(list) {
					next = list[i+1].sp.first
				}
				if before < 0 || this.sp.first+uint64(this.sp.count) != next {
					runs[this.run].spans = nil
					continue
				}
				runs[before].spans = nil
			}
			before, end = this.run, this.sp.first+uint64(this.sp.count)
		}
	}
}

// between returns what lies between where the logs are and where the first of
// the rows behind begins.
func (r *repairer) between(next map[LogID]uint64, behind []commitRun) (gap []span) {
	until := map[LogID]uint64{}
	for _, c := range behind {
		for _, sp := range c.spans {
			if _, ok := until[sp.log]; !ok {
				until[sp.log] = sp.first
			}
		}
		if len(until) == len(r.logs) {
			break
		}
	}
	for id, p := range r.logs {
		to, ok := until[LogID(id)]
		if !ok {
			to = p.size
		}
		if from := next[LogID(id)]; from < to {
			gap = append(gap, span{log: LogID(id), first: from, count: uint32(to - from)})
		}
	}
	return gap
}

// fillCommits makes rows of a gap.
func fillCommits(rows []commitRun, gap []span) error {
	gap = slices.Clone(gap)
	for i := range rows {
		if len(gap) == 0 {
			return fmt.Errorf("commit %d is lost, and its neighbours leave no entry for it", rows[i].n)
		}
		if i == len(rows)-1 {
			rows[i].spans = gap
			break
		}
		one := gap[0]
		one.count = 1
		rows[i].spans = []span{one}
		gap[0].first++
		if gap[0].count--; gap[0].count == 0 {
			gap = gap[1:]
		}
	}
	return nil
}
