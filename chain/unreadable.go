package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// ErrUnreadable says that an entry is sealed and cannot be read any more: the
// key of its payload is lost, or its rows are damaged and fenced off. Its hash is
// in the tree, so proofs of all others hold, and nothing is shorter for it.
var ErrUnreadable = errors.New("the entry cannot be read")

// UnreadableError is the ErrUnreadable of some entries of a log.
type UnreadableError struct {
	Origin      string
	First, Last uint64
	Hour        time.Time // of the key that is lost; zero: the entries are fenced or held back
	Reason      string

	cause  error  // an errNoKey; nil: fenced or held back
	heldBy uint64 // entry of the erasure for whose sake it is held back; 0: it is not
}

// Unwrap returns which kind of errNoKey it is.
func (e *UnreadableError) Unwrap() error { return e.cause }

// Error names the entries, and the hour where a key would bring them back.
func (e *UnreadableError) Error() string {
	where := fmt.Sprintf("entry %d of %s", e.First, e.Origin)
	if e.Last != e.First {
		where = fmt.Sprintf("entries %d to %d of %s", e.First, e.Last, e.Origin)
	}
	if e.heldBy != 0 {
		return fmt.Sprintf("%s: held back: %s: bring the payload keys back, or restore a backup", where, e.Reason)
	}
	if e.Hour.IsZero() {
		return fmt.Sprintf("%s: fenced off as damaged (%s): restore a backup to read it", where, e.Reason)
	}
	return fmt.Sprintf("%s, payload key of the hour from %s: %s", where, e.Hour.UTC().Format(time.RFC3339), e.Reason)
}

// Is makes every UnreadableError an ErrUnreadable.
func (e *UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// noKey is the UnreadableError of one payload.
func (l *Log) noKey(index uint64, leaf *record.Leaf, err error) error {
	e := &UnreadableError{Origin: l.origin, First: index, Last: index, Hour: time.Unix(hourOf(leaf.Wall)*3600, 0), cause: errNoKey}
	for _, cause := range []error{errKeyDestroyed, errOtherKey} {
		if errors.Is(err, cause) {
			e.cause = cause
		}
	}
	e.Reason = e.cause.Error()
	return e
}

// fence is a range of entries of one log whose rows were damaged: an M 'f' row.
// It lies within one bundle. The value holds 1 version, 8 last index, 2 number of
// hashes, so many leaf hashes, and the reason; there are hashes where no full tile
// has them, one for each entry.
type fence struct {
	first, last uint64
	hashes      []record.Hash
	reason      string
}

const fenceVersion = 1

func keyFence(id LogID, first uint64) []byte {
	return keyMeta(metaFence, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), first))
}

func (f *fence) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, fenceVersion), f.last)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.hashes)))
	for i := range f.hashes {
		b = append(b, f.hashes[i][:]...)
	}
	return append(b, f.reason...)
}

func parseFence(first uint64, b []byte) (fence, error) {
	bad := fmt.Errorf("parse fence row: %d bytes do not make a row of version %d", len(b), fenceVersion)
	if len(b) < 11 || b[0] != fenceVersion {
		return fence{}, bad
	}
	f := fence{first: first, last: binary.BigEndian.Uint64(b[1:])}
	n := int(binary.BigEndian.Uint16(b[9:]))
	b = b[11:]
	if f.last < first || f.last/tileWidth != first/tileWidth || n != 0 && uint64(n) != f.last-first+1 || len(b) < 32*n {
		return fence{}, bad
	}
	for ; n > 0; n-- {
		f.hashes, b = append(f.hashes, record.Hash(b[:32])), b[32:]
	}
	f.reason = string(b)
	return f, nil
}

// fences are those of one log, in order.
type fences []fence

// at returns the fence around an entry, nil where there is none.
func (all fences) at(index uint64) *fence {
	i := sort.Search(len(all), func(i int) bool { return all[i].last >= index })
	if i == len(all) || all[i].first > index {
		return nil
	}
	return &all[i]
}

// hash returns the leaf hash that the fence around an entry keeps.
func (all fences) hash(index uint64) (record.Hash, bool) {
	f := all.at(index)
	if f == nil || len(f.hashes) == 0 {
		return record.Hash{}, false
	}
	return f.hashes[index-f.first], true
}

// loadFences reads the fences of a log.
func loadFences(db pebble.Reader, id LogID) (all fences, err error) {
	prefix := keyMeta(metaFence, binary.BigEndian.AppendUint32(nil, uint32(id)))
	err = scan(db, prefix, func(key, value []byte) error {
		if len(key) != len(prefix)+8 {
			return corrupt("fence row %x", key)
		}
		f, err := parseFence(binary.BigEndian.Uint64(key[len(prefix):]), value)
		if err != nil {
			return corrupt("fence row %x: %v", key, err)
		}
		if n := len(all); n > 0 && all[n-1].last >= f.first {
			return corrupt("fence row %x overlaps the one before", key)
		}
		all = append(all, f)
		return nil
	})
	return all, err
}

// fenced returns the error of an entry that is fenced, nil for all others.
func (l *Log) fenced(index uint64) error {
	if len(l.fences) == 0 {
		return nil
	}
	if f := l.fences.at(index); f != nil {
		return &UnreadableError{Origin: l.origin, First: f.first, Last: f.last, Reason: f.reason}
	}
	return nil
}

// Fenced returns how many entries of all logs are fenced off as damaged.
func (s *Store) Fenced() (n uint64) {
	for _, l := range s.Logs() {
		for i := range l.fences {
			n += l.fences[i].last - l.fences[i].first + 1
		}
	}
	return n
}

// Unreadable returns how many entries were come to in this run that could not
// be read.
func (s *Store) Unreadable() uint64 { return s.unreadable.count.Load() }

// unreadables takes note of what could not be read.
type unreadables struct {
	count atomic.Uint64
	mu    sync.Mutex
	told  map[unreadableKey]bool
}

type unreadableKey struct {
	origin string
	hour   int64
	first  uint64 // of a fence, or the entry of an erasure
}

// maxTold bounds how many of them are logged.
const maxTold = 1000

// unread counts an entry that could not be read, and says so once for each lost
// key and each fence.
func (s *Store) unread(e *UnreadableError) {
	s.unreadable.count.Add(1)
	key := unreadableKey{origin: e.Origin, hour: e.Hour.Unix()}
	if e.Hour.IsZero() {
		key.first = e.First
	}
	if e.heldBy != 0 {
		key.first = e.heldBy
	}
	s.unreadable.mu.Lock()
	defer s.unreadable.mu.Unlock()
	if s.unreadable.told[key] || len(s.unreadable.told) >= maxTold {
		return
	}
	if s.unreadable.told == nil {
		s.unreadable.told = map[unreadableKey]bool{}
	}
	s.unreadable.told[key] = true
	s.cfg.Log.Error("entries of the ledger cannot be read, from this one on", slog.Any("error", e))
}

// Look returns the durable entry at index as Item does, and for one that cannot
// be read what is known of it, with Unreadable set: for those who go through a log
// and must not stop there.
func (l *Log) Look(index uint64) (Item, error) {
	item, ok, err := l.lookRecent(index)
	if ok || err != nil {
		return item, err
	}
	item, err = l.Item(index)
	var e *UnreadableError
	if !errors.As(err, &e) {
		return item, err
	}
	l.store.unread(e)
	item = Item{Log: l, Index: index, Leaf: record.Leaf{Index: index}, Unreadable: e}
	if item.LeafHash, err = l.LeafHash(index); err != nil {
		return Item{}, err
	}
	row, ok, err := get(l.store.db, keySeq(tableEntry, l.id, index))
	if err != nil {
		return Item{}, err
	}
	if ok && record.LeafHash(row) == item.LeafHash {
		if item.Leaf, err = record.ParseLeaf(row); err != nil {
			return Item{}, corrupt("leaf %d of %s: %v", index, l.origin, err)
		}
		item.LeafBytes = row
	} else if leaf, err := l.readHeader(index); err == nil {
		item.Leaf = leaf // without its commitment
	} else if !errors.Is(err, ErrUnreadable) {
		return Item{}, err
	}
	return item, nil
}

// spans merges neighbouring fences of the same reason, for reports.
func (all fences) spans() (merged fences) {
	for _, f := range all {
		if n := len(merged); n > 0 && merged[n-1].last+1 == f.first && merged[n-1].reason == f.reason {
			merged[n-1].last = f.last
		} else {
			merged = append(merged, fence{first: f.first, last: f.last, reason: f.reason})
		}
	}
	return slices.Clip(merged)
}
