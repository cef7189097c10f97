package chain

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/spool"
)

// claim says what root somebody signed for a size of a log.
type claim struct {
	size  uint64
	root  record.Hash
	table string // whose claim
	entry uint64 // of the host log, where that quotes it
}

// where says more of whose claim it is, for messages.
func (k *claim) where() string {
	if k.table != "quote" {
		return ""
	}
	return fmt.Sprintf("in entry %d of the host log ", k.entry)
}

// quoteSize is what a quote takes in a spool: 8 size, 8 entry, 32 root.
const quoteSize = 8 + 8 + 32

// quotedLog is what the host log quotes of one VM log: one checkpoint for each round of
// witnesses, so that all of them do not fit in memory.
type quotedLog struct {
	all  spool.Queue
	last claim
}

// add takes the next quote, whose size is not below that of the last one.
func (q *quotedLog) add(s *spool.Spool, k claim) error {
	q.last = k
	b := make([]byte, 0, quoteSize)
	b = binary.BigEndian.AppendUint64(b, k.size)
	b = binary.BigEndian.AppendUint64(b, k.entry)
	return s.Append(&q.all, append(b, k.root[:]...))
}

// parseQuoted is the claim that stands in a spool.
func parseQuoted(b []byte) claim {
	return claim{size: binary.BigEndian.Uint64(b), entry: binary.BigEndian.Uint64(b[8:]), root: record.Hash(b[16:quoteSize]), table: "quote"}
}

// claims gives what was signed for one log by size: what the host log quotes of it, its
// stored checkpoints, and for the host log the anchor. Only the next of each is in memory.
type claims struct {
	c      *logCheck
	quotes *spool.Reader    // nil: none
	rows   *pebble.Iterator // of stored checkpoints
	row    *claim           // that was read ahead
	anchor *claim

	first *claim // the next one of all, which drop takes away
	drop  func() error
	ended bool
}

// gather begins to read what was signed for the log.
func (c *logCheck) gather() (*claims, error) {
	s := &claims{c: c}
	if q := c.f.quotes[c.l.origin]; q != nil {
		s.quotes = c.f.spool.Read(&q.all)
	}
	if c.l.name.IsHost() {
		if p, err := c.f.readAnchor(); err == nil { // else reported with the anchor
			s.anchor = &claim{size: p.Size, root: p.Root, table: "anchor"}
		}
	}
	var err error
	if s.rows, err = c.f.s.db.NewIter(iterBounds(keyLog(tableCheckpoint, c.l.id))); err != nil {
		return nil, err
	}
	s.rows.First()
	return s, s.readRow()
}

func (s *claims) close() error { return s.rows.Close() }

// readRow reads the stored checkpoints ahead to the next one that is signed.
func (s *claims) readRow() error {
	c := s.c
	for s.row = nil; s.row == nil && s.rows.Valid(); s.rows.Next() {
		value, err := s.rows.ValueAndErr()
		if err != nil {
			return err
		}
		c.f.r.Checkpoints++
		if len(s.rows.Key()) != keySeqSize {
			continue // reported as a row of no log
		}
		size := binary.BigEndian.Uint64(s.rows.Key()[5:])
		p, _, err := c.f.s.openNote(c.l, value, c.f.s.vmKeys)
		if err != nil {
			c.f.find("checkpoint", c.l, nil, "at size %d: %v", size, err)
			continue
		}
		if p.Size != size {
			c.f.find("checkpoint", c.l, nil, "the row is for size %d, the note for %d", size, p.Size)
			continue
		}
		if c.l.name.IsHost() {
			c.f.newest = p.Size
		}
		s.row = &claim{size: p.Size, root: p.Root, table: "checkpoint"}
	}
	return s.rows.Error()
}

// next returns the claim on the smallest size, nil behind the last.
func (s *claims) next() (*claim, error) {
	if s.first != nil || s.ended {
		return s.first, nil
	}
	if s.quotes != nil {
		b, ok, err := s.quotes.Peek()
		if err != nil {
			s.ended = true
			return nil, fmt.Errorf("checkpoints that the host log quotes: %w", err)
		}
		if ok {
			k := parseQuoted(b)
			s.first, s.drop = &k, func() error { s.quotes.Skip(); return nil }
		}
	}
	if s.row != nil && (s.first == nil || s.row.size < s.first.size) {
		s.first, s.drop = s.row, s.readRow
	}
	if s.anchor != nil && (s.first == nil || s.anchor.size < s.first.size) {
		s.first, s.drop = s.anchor, func() error { s.anchor = nil; return nil }
	}
	s.ended = s.first == nil
	return s.first, nil
}

// skip goes on behind the claim that next has returned.
func (s *claims) skip() error {
	s.first = nil
	return s.drop()
}
