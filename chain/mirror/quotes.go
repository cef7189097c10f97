package mirror

import (
	"encoding/binary"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/spool"
)

// Spool is where quotes wait until the log that they are of is read: a temporary file.
// The host log quotes each VM log every few seconds, so they do not fit in memory.
type Spool = spool.File

// quote is a VM log's checkpoint as an entry of the host log quotes it.
type quote struct {
	size  uint64
	index uint64 // of the entry
	root  record.Hash
}

const quoteSize = 8 + 8 + 32

// quoted is what the host log says of one VM log.
type quoted struct {
	origin string
	last   quote
	key    []byte      // that signed the last quote
	gone   *DroppedLog // nil: it is there
	count  uint64
	all    spool.Queue
}

// add appends a quote.
func (q *quoted) add(n quote, s *spool.Spool) error {
	q.last = n
	q.count++
	b := make([]byte, 0, quoteSize)
	b = binary.BigEndian.AppendUint64(b, n.size)
	b = binary.BigEndian.AppendUint64(b, n.index)
	return s.Append(&q.all, append(b, n.root[:]...))
}

// quoteReader reads the quotes of one log in their order.
type quoteReader struct{ *spool.Reader }

// peek returns the next quote; ok is false behind the last.
func (r *quoteReader) peek() (n quote, ok bool, err error) {
	b, ok, err := r.Peek()
	if !ok || err != nil {
		return quote{}, false, err
	}
	return quote{size: binary.BigEndian.Uint64(b), index: binary.BigEndian.Uint64(b[8:]), root: record.Hash(b[16:quoteSize])}, true, nil
}
