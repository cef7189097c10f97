package chain

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/spool"
)

// repairClaims gives what was signed for one log, for rising sizes. Only what was signed
// for the size that is asked for is in memory.
type repairClaims struct {
	rows   *pebble.Iterator // of stored checkpoints, whose signatures hold
	quotes *spool.Reader    // nil: none
	note   *claim           // that was published last; nil: it is not known
}

// openClaims begins to read what was signed for the log.
func (p *logRepair) openClaims() (err error) {
	if q := p.r.quotes[p.l.origin]; q != nil {
		p.claimed.quotes = p.r.spool.Read(&q.all)
	}
	if p.claimed.rows, err = p.r.s.db.NewIter(iterBounds(keyLog(tableCheckpoint, p.l.id))); err != nil {
		return err
	}
	p.claimed.rows.First()
	return nil
}

// at returns what was signed for a size, which is above the one that was asked for before.
func (s *repairClaims) at(size uint64) (all []claim, err error) {
	for ; s.rows.Valid(); s.rows.Next() {
		at := binary.BigEndian.Uint64(s.rows.Key()[5:])
		if at > size {
			break
		}
		if at < size {
			continue // pruned
		}
		value, err := s.rows.ValueAndErr()
		if err != nil {
			return nil, err
		}
		c, err := proof.ParseCheckpoint(value)
		if err != nil {
			return nil, fmt.Errorf("stored checkpoint of size %d: %w", size, err)
		}
		all = append(all, claim{size: size, root: c.Root, table: "checkpoint"})
	}
	if err := s.rows.Error(); err != nil {
		return nil, err
	}
	for ; s.quotes != nil; s.quotes.Skip() {
		b, ok, err := s.quotes.Peek()
		if err != nil {
			return nil, fmt.Errorf("checkpoints that the host log quotes: %w", err)
		}
		k := claim{size: size + 1}
		if ok {
			k = parseQuoted(b)
		}
		if k.size > size {
			break
		}
		if k.size == size {
			all = append(all, k)
		}
	}
	if s.note != nil && s.note.size == size {
		all = append(all, *s.note)
	}
	return all, nil
}
