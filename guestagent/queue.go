package guestagent

import (
	"github.com/provostd/provost/chain/record"
)

// queued is a record that waits for a frame.
type queued struct {
	header  record.Header
	payload []byte
}

// overhead is what a queued record costs beside its payload, in bytes.
const overhead = 128

func (q *queued) cost() int { return len(q.payload) + overhead }

// queue is first in, first out, and bounded by bytes. The last quarter is kept
// for records of the first ring of a CPU, which carries processes: a storm of
// file events cannot push those out. The agent's lock guards it.
type queue struct {
	items []queued
	head  int
	bytes int
	limit int
}

// push reports whether there was room.
func (q *queue) push(r queued) bool {
	limit := q.limit
	if ring := r.header.Lane >> 16; r.header.Lane != record.NoLane && ring != 0 {
		limit -= limit / 4
	}
	if q.bytes+r.cost() > limit {
		return false
	}
	q.items = append(q.items, r)
	q.bytes += r.cost()
	return true
}

func (q *queue) len() int { return len(q.items) - q.head }

// peek returns the oldest record. The queue must not be empty.
func (q *queue) peek() *queued { return &q.items[q.head] }

// pop removes the oldest record. The queue must not be empty.
func (q *queue) pop() queued {
	r := q.items[q.head]
	q.items[q.head] = queued{} // lets go of the payload
	q.head++
	q.bytes -= r.cost()
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1<<16 {
			q.items = nil // a storm is over
		}
	case q.head > len(q.items)/2 && q.head > 1024:
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return r
}
