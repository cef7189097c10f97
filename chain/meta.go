package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/provostd/provost/chain/record"
)

// Meta returns a copy of a row that a batch wrote with MetaWrite. ok is false
// where there is none. A row may be seen while its commit is on its way to the disk:
// what is written on account of it is durable behind it only, and who tells others of
// it waits for its batch.
func (s *Store) Meta(key string) (value []byte, ok bool, err error) {
	if key == "" {
		return nil, false, fmt.Errorf("read meta: the key is empty: %w", record.ErrReject)
	}
	return get(s.db, keyMeta(metaUser, []byte(key)))
}

// MetaRow is one row of MetaPrefix.
type MetaRow struct {
	Key   string
	Value []byte
}

// MetaPrefix yields the meta rows whose keys begin with prefix, in order. An
// error ends it. Rows written meanwhile may be seen or not.
func (s *Store) MetaPrefix(prefix string) iter.Seq2[MetaRow, error] {
	return func(yield func(MetaRow, error) bool) {
		stop := errors.New("the reader has enough")
		err := scan(s.db, keyMeta(metaUser, []byte(prefix)), func(key, value []byte) error {
			if !yield(MetaRow{Key: string(key[2:]), Value: append([]byte{}, value...)}, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(MetaRow{}, fmt.Errorf("list meta %q: %w", prefix, err))
		}
	}
}

// certificateRow says which entry of which host log certifies a key: 4 log
// number, 8 index.
func certificateRow(log LogID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(log)), index)
}
