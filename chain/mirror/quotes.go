package mirror

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/provostd/provost/chain/record"
)

// Spool is where quotes wait until the log that they are of is read: a temporary file.
// The host log quotes each VM log every few seconds, so they do not fit in memory.
type Spool interface {
	io.ReaderAt
	io.WriterAt
}

// quote is a VM log's checkpoint as an entry of the host log quotes it.
type quote struct {
	size  uint64
	index uint64 // of the entry
	root  record.Hash
}

const (
	quoteSize = 8 + 8 + 32
	runQuotes = 256 // that one log holds in memory
)

// quoted is what the host log says of one VM log.
type quoted struct {
	origin string
	last   quote
	key    []byte // that signed the last quote
	count  uint64
	runs   []int64 // places in the spool, each of runQuotes
	tail   []byte  // behind them
}

// add appends a quote. end is where the spool ends.
func (q *quoted) add(n quote, spool Spool, end *int64) error {
	q.last = n
	q.count++
	q.tail = binary.BigEndian.AppendUint64(q.tail, n.size)
	q.tail = binary.BigEndian.AppendUint64(q.tail, n.index)
	q.tail = append(q.tail, n.root[:]...)
	if len(q.tail) < runQuotes*quoteSize {
		return nil
	}
	if _, err := spool.WriteAt(q.tail, *end); err != nil {
		return fmt.Errorf("set quotes of checkpoints aside: %w", err)
	}
	q.runs = append(q.runs, *end)
	*end += int64(len(q.tail))
	q.tail = q.tail[:0]
	return nil
}

// quoteReader reads the quotes of one log in their order.
type quoteReader struct {
	q     *quoted
	spool Spool
	run   int // next one
	ended bool
	buf   []byte
}

// peek returns the next quote; ok is false behind the last.
func (r *quoteReader) peek() (n quote, ok bool, err error) {
	for len(r.buf) == 0 {
		switch {
		case r.run < len(r.q.runs):
			r.buf = make([]byte, runQuotes*quoteSize)
			if _, err := r.spool.ReadAt(r.buf, r.q.runs[r.run]); err != nil {
				return quote{}, false, fmt.Errorf("read quotes of checkpoints back: %w", err)
			}
			r.run++
		case !r.ended:
			r.buf, r.ended = r.q.tail, true
		default:
			return quote{}, false, nil
		}
	}
	return quote{size: binary.BigEndian.Uint64(r.buf), index: binary.BigEndian.Uint64(r.buf[8:]), root: record.Hash(r.buf[16:quoteSize])}, true, nil
}

func (r *quoteReader) skip() { r.buf = r.buf[quoteSize:] }

// memory is a Spool for those who are given none.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.b = append(m.b[:at], p...) // it is written from its beginning to its end
	return len(p), nil
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	if n := copy(p, m.b[at:]); n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return len(p), nil
}
