package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
)

// Tables: the first byte of every key. Part of the format, see doc.go.
const (
	tableMeta    = 'M'
	tableZone    = 'Z'
	tableRuns    = 'R'
	tableTerm    = 'I'
	tableSession = 'S'
)

const indexVersion = 1

func keyChunk(table byte, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{table}, chunk)
}

// keyTerm is the key of a row of places; term begins with its kind.
func keyTerm(chunk uint32, term []byte) []byte { return append(keyChunk(tableTerm, chunk), term...) }

const termPrefix = 5 // bytes of a term's key before its kind

func keySession(id chain.LogID, session uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32([]byte{tableSession}, uint32(id)), session)
}

// endOf returns the smallest key that is greater than every key with prefix,
// or nil where there is none.
func endOf(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// get calls f with a row, which is valid during the call only.
func (x *Index) get(key []byte, f func([]byte) error) (ok bool, err error) {
	x.dbMu.RLock()
	defer x.dbMu.RUnlock()
	v, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read index row %x: %w", key, err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if err := f(v); err != nil {
		return true, damaged(key, err)
	}
	return true, nil
}

// scan calls f for each row from lower to before upper, until f returns false.
func (x *Index) scan(lower, upper []byte, f func(key, value []byte) (bool, error)) (err error) {
	x.dbMu.RLock()
	defer x.dbMu.RUnlock()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scan index: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan index row %x: %w", it.Key(), err)
		}
		if more, err := f(it.Key(), v); err != nil {
			return damaged(it.Key(), err)
		} else if !more {
			return nil
		}
	}
	return it.Error()
}

// ErrDamaged says that the index holds what this program cannot have written.
// It is no evidence: delete its directory and it is made again.
var ErrDamaged = errors.New("index is damaged; delete its directory, it is rebuilt from the ledger")

func damaged(key []byte, err error) error {
	return fmt.Errorf("row %x: %w: %w", key, err, ErrDamaged)
}
