package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// knownTables are all tables but that of the roots of tiles, which is made anew
// where it is not there.
var knownTables = []byte{tableBundle, tableCheckpoint, tableEntry, tableFollower, tableHead, tableMeta, tableCommit, tablePayload, tableQuote, tableTile}

// salvageBatch is how many bytes of rows are written at once.
const salvageBatch = 4 << 20

// salvage copies all rows that can be read from one database to another. Blocks
// that are damaged are passed over: holes tells how often that was.
type salvage struct {
	from, to *pebble.DB
	batch    *pebble.Batch
	rows     uint64
	holes    []string
}

func (s *salvage) run(ctx context.Context) (err error) {
	s.batch = s.to.NewBatch()
	defer func() { err = errors.Join(err, s.batch.Close()) }()
	for _, table := range knownTables {
		if err := s.table(ctx, table); err != nil {
			return err
		}
	}
	return s.batch.Commit(pebble.Sync)
}

// table copies one table. Behind a block that cannot be read it goes on at the
// first key that can be sought.
func (s *salvage) table(ctx context.Context, table byte) error {
	end := []byte{table + 1}
	last := append([]byte{table}, make([]byte, keySeqSize-1)...) // no key is less
	for from := []byte{table}; from != nil; {
		read, err := s.stretch(ctx, from, end)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if read != nil {
			last = read
		}
		from = s.beyond(last, end)
		s.holes = append(s.holes, fmt.Sprintf("rows of table %c behind key %x cannot be read: %v", table, last, err))
		if from != nil {
			last = from
		}
	}
	return nil
}

// stretch copies rows until one cannot be read, and returns the key of the last
// one that could.
func (s *salvage) stretch(ctx context.Context, from, end []byte) (last []byte, err error) {
	it, err := s.from.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: end})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return last, err
		}
		last = append(last[:0], it.Key()...)
		if err := s.batch.Set(last, v, nil); err != nil {
			return last, err
		}
		if s.rows++; s.batch.Len() > salvageBatch {
			if ctx.Err() != nil {
				return last, context.Cause(ctx)
			}
			if err := s.batch.Commit(pebble.NoSync); err != nil {
				return last, err
			}
			s.batch.Reset()
		}
	}
	return last, it.Error()
}

// beyond returns the least key behind last, among those that are last plus a
// number, from which rows can be read again; nil where there is none. What is
// damaged is a run of rows: first far, then back by halves.
func (s *salvage) beyond(last, end []byte) []byte {
	var good uint64
	for d := uint64(1); d != 0; d <<= 1 {
		if key := keyPlus(last, d); key == nil || bytes.Compare(key, end) >= 0 {
			break
		} else if s.readable(key, end) {
			good = d
			break
		}
	}
	if good == 0 {
		// Another log: its number stands ahead of the index.
		if len(last) > 5 && last[0] != tableMeta && last[0] != tableFollower {
			if next := endOf(last[:5]); bytes.Compare(next, end) < 0 && s.readable(next, end) {
				return next
			}
		}
		return nil
	}
	bad := good / 2
	for bad+1 < good {
		if d := bad + (good-bad)/2; s.readable(keyPlus(last, d), end) {
			good = d
		} else {
			bad = d
		}
	}
	return keyPlus(last, good)
}

// readable reports whether a row can be read from key on, or none is there.
func (s *salvage) readable(key, end []byte) bool {
	it, err := s.from.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: end})
	if err != nil {
		return false
	}
	ok := it.First()
	if ok {
		_, err = it.ValueAndErr()
	}
	return errors.Join(err, it.Error(), it.Close()) == nil
}

// keyPlus adds to the number that the last bytes of a key are, up to 8 of them
// and never its table. nil: it does not fit.
func keyPlus(key []byte, d uint64) []byte {
	b := bytes.Clone(key)
	n := min(8, len(b)-1)
	var number [8]byte
	copy(number[8-n:], b[len(b)-n:])
	old := binary.BigEndian.Uint64(number[:])
	sum := old + d
	if sum < old || n < 8 && sum>>(8*n) != 0 {
		return nil
	}
	binary.BigEndian.PutUint64(number[:], sum)
	copy(b[len(b)-n:], number[8-n:])
	return b
}
