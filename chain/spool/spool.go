// Package spool keeps many queues of records of one size in one temporary file, for
// those who read them back in their order: a check of a host log meets checkpoints of all
// VM logs, and needs those of one log after the other. It promises that memory does not
// grow with the records but for a part of each queue's end, and that a file that gives
// back less than was written is an error. It is pure but for the file that it is given.
package spool

import (
	"fmt"
	"io"
)

// File is a temporary file. It is written from its beginning to its end.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// run is how many records are written at a time: what a queue holds in memory.
const run = 64

// Spool is a file of runs of records. It is for one goroutine.
type Spool struct {
	file File
	size int
	end  int64
}

// New returns an empty spool for records of size bytes. What file held is written over.
// A nil file is memory.
func New(file File, size int) *Spool {
	if file == nil {
		file = &memory{}
	}
	return &Spool{file: file, size: size}
}

// Queue is one queue of a spool. The zero value is empty.
type Queue struct {
	runs []int64 // places in the file
	tail []byte  // behind them
}

// Append adds a record to a queue.
func (s *Spool) Append(q *Queue, record []byte) error {
	if len(record) != s.size {
		panic(fmt.Sprintf("spool: a record of %d bytes among those of %d", len(record), s.size))
	}
	if q.tail = append(q.tail, record...); len(q.tail) < run*s.size {
		return nil
	}
	if _, err := s.file.WriteAt(q.tail, s.end); err != nil {
		return fmt.Errorf("set %d records aside in a temporary file: %w", run, err)
	}
	q.runs = append(q.runs, s.end)
	s.end += int64(len(q.tail))
	q.tail = q.tail[:0]
	return nil
}

// Reader reads a queue, which does not grow meanwhile, from its beginning.
type Reader struct {
	s     *Spool
	q     *Queue
	run   int // next one
	ended bool
	room  []byte
	rest  []byte // of the run that is being read
}

// Read begins to read a queue.
func (s *Spool) Read(q *Queue) *Reader { return &Reader{s: s, q: q} }

// Peek returns the next record, which is valid until the call behind the next Skip; ok is
// false behind the last.
func (r *Reader) Peek() (record []byte, ok bool, err error) {
	for len(r.rest) == 0 {
		switch {
		case r.run < len(r.q.runs):
			if r.room == nil {
				r.room = make([]byte, run*r.s.size)
			}
			if _, err := r.s.file.ReadAt(r.room, r.q.runs[r.run]); err != nil {
				return nil, false, fmt.Errorf("read records back from a temporary file: %w", err)
			}
			r.rest = r.room
			r.run++
		case !r.ended:
			r.rest, r.ended = r.q.tail, true
		default:
			return nil, false, nil
		}
	}
	return r.rest[:r.s.size], true, nil
}

// Skip goes on behind the record that Peek returns.
func (r *Reader) Skip() { r.rest = r.rest[r.s.size:] }

// memory is a File for those who are given none.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.b = append(m.b[:at], p...)
	return len(p), nil
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at > int64(len(m.b)) {
		return 0, io.ErrUnexpectedEOF
	}
	if n := copy(p, m.b[at:]); n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return len(p), nil
}
