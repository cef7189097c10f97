package chain

import (
	"encoding/binary"
	"iter"
)

// indexRuns are indexes of entries in rising order. Memory is about two bytes for each
// run of neighbours: between records of guests stand the frames that sign them, so that
// of a log whose payloads are all erased there are as many runs as frames.
type indexRuns struct {
	done        []byte // for each run but the last: its distance from the one before, and its length
	end         uint64 // behind the last of those
	first, last uint64
	any         bool
}

// add adds an index behind all others.
func (r *indexRuns) add(index uint64) {
	if r.any && index == r.last+1 {
		r.last++
		return
	}
	if r.any {
		r.done = binary.AppendUvarint(r.done, r.first-r.end)
		r.done = binary.AppendUvarint(r.done, r.last-r.first)
		r.end = r.last + 1
	}
	r.first, r.last, r.any = index, index, true
}

// all gives the indexes in their order.
func (r *indexRuns) all() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		end := uint64(0)
		for b := r.done; len(b) > 0; {
			gap, n := binary.Uvarint(b)
			length, m := binary.Uvarint(b[n:])
			b = b[n+m:]
			for i := end + gap; i <= end+gap+length; i++ {
				if !yield(i) {
					return
				}
			}
			end += gap + length + 1
		}
		for i := r.first; r.any && i <= r.last; i++ {
			if !yield(i) {
				return
			}
		}
	}
}
