package guestagent

import (
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// queued is a record that waits for a frame.
type queued struct {
	header  record.Header
	payload []byte
}

// chunkBytes is how much memory the queue takes at once. Records lie in it one
// behind the other, so a full queue is a few hundred allocations and not a
// hundred thousand: what an operator grants the queue is what it takes.
const chunkBytes = 64 << 10

// lengthBytes is the payload's length, between header and payload.
const lengthBytes = 4

// chunk is a run of records as they were observed: the header's 40 bytes (of
// which session and sequence are not filled yet), 4 bytes length, payload.
type chunk struct {
	bytes []byte
	read  int // what lies before has been taken
	count int // records that have not
}

func recordBytes(payload int) int { return record.HeaderSize + lengthBytes + payload }

func (c *chunk) append(h record.Header, payload []byte) {
	c.bytes = h.AppendBinary(c.bytes)
	c.bytes = binary.BigEndian.AppendUint32(c.bytes, uint32(len(payload)))
	c.bytes = append(c.bytes, payload...)
	c.count++
}

// copy returns a chunk over the same bytes, to read without taking.
func (c *chunk) copy() *chunk { return &chunk{bytes: c.bytes, read: c.read, count: c.count} }

// size returns the bytes of the oldest record. There must be one.
func (c *chunk) size() int {
	at := c.read + record.HeaderSize
	return recordBytes(int(binary.BigEndian.Uint32(c.bytes[at:])))
}

// take returns the oldest record; its payload lies in the chunk. There must be
// one.
func (c *chunk) take() queued {
	b := c.bytes[c.read : c.read+c.size()]
	h, err := record.ParseHeader(b[:record.HeaderSize])
	if err != nil {
		panic(fmt.Sprintf("queue: a record that was written cannot be read: %v", err)) // chunks are made by append, or authenticated
	}
	c.read += len(b)
	c.count--
	return queued{h, b[record.HeaderSize+lengthBytes:]}
}

// queue is first in, first out, and bounded by bytes; how far a record may
// fill it is its tier's share. The agent's lock guards it.
type queue struct {
	chunks []*chunk // oldest first; none is empty
	bytes  int      // of records
	count  int
	limit  int
	spare  []byte // of a chunk that was emptied: an idle agent allocates nothing
}

// push reports whether there was room. It copies the payload.
func (q *queue) push(r queued) bool { return q.pushWithin(r, shareOf(&r.header)) }

// pushWithin is push for a record that may fill so many hundredths of the queue.
func (q *queue) pushWithin(r queued, share int) bool {
	n := recordBytes(len(r.payload))
	// In two steps: a limit of gigabytes is no overflow on 32 bits.
	if q.bytes+n > q.limit/100*share && r.header.Class != record.ClassAgentStopped { // one, and the last
		return false
	}
	last := len(q.chunks) - 1
	if last < 0 || cap(q.chunks[last].bytes)-len(q.chunks[last].bytes) < n {
		b := q.spare
		q.spare = nil
		if cap(b) < n {
			b = make([]byte, 0, max(chunkBytes, n))
		}
		q.chunks = append(q.chunks, &chunk{bytes: b})
		last++
	}
	q.chunks[last].append(r.header, r.payload)
	q.bytes += n
	q.count++
	return true
}

func (q *queue) len() int { return q.count }

// head returns the chunk of the oldest record, nil when there is none.
func (q *queue) head() *chunk {
	if len(q.chunks) == 0 {
		return nil
	}
	return q.chunks[0]
}

// take returns the oldest record. The queue must not be empty. The payload is
// valid until the next push.
func (q *queue) take() queued {
	c := q.chunks[0]
	r := c.take()
	q.bytes -= recordBytes(len(r.payload))
	q.count--
	if c.count == 0 {
		q.drop()
		if cap(c.bytes) == chunkBytes {
			q.spare = c.bytes[:0]
		}
	}
	return r
}

// detach removes the oldest chunk from the queue, for the spool to keep.
func (q *queue) detach() *chunk {
	c := q.chunks[0]
	q.bytes -= len(c.bytes) - c.read
	q.count -= c.count
	q.drop()
	return c
}

// attach gives back what detach removed, before anything else was taken.
func (q *queue) attach(c *chunk) {
	q.chunks = append([]*chunk{c}, q.chunks...)
	q.bytes += len(c.bytes) - c.read
	q.count += c.count
}

func (q *queue) drop() {
	q.chunks[0] = nil
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil // its front is gone for good
	}
}
