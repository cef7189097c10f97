package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

const (
	// packBundles is how many bundles one batch of the packer makes at most.
	packBundles = 4
	// packLag is how many bundles of all logs may wait before the packer stops
	// making way for commits: a million entries, which take some 400 MB more
	// than they will.
	packLag = 4096
	// packPause is how many times its own working time the packer leaves to
	// commits while there are any.
	packPause = 7
)

// errUnpackable says that rows are not what the tree says, or cannot be read. They
// stay as they are: packing leaves out what can be derived, and from them it cannot.
var errUnpackable = errors.New("the rows of a bundle do not fit the tree")

// errNoRows says that no leaf of a bundle has a row.
var errNoRows = errors.New("no leaf of the bundle has a row of its own")

// packAll packs full bundles behind the committer until ctx ends: a few of each
// log in turn. An error is fatal.
//
// The order does not matter to anybody: a batch puts a bundle and takes its
// rows away, without a sync. A crash leaves the rows or the bundle, since the
// batch is behind the rows' own in the log of the store.
func (s *Store) packAll(ctx context.Context) error {
	seen := uint64(0)
	for {
		n, err := s.Wait(ctx, seen)
		if err != nil {
			return nil // stopped, or closed
		}
		seen = n
		for again := true; again; {
			again = false
			logs := s.Logs()
			for _, l := range logs {
				if ctx.Err() != nil {
					return nil
				}
				start, commit := time.Now(), s.durable.Load()
				n, err := s.packSome(l, packBundles)
				if err != nil {
					return fmt.Errorf("pack %s: %w", l.origin, err)
				}
				if n == 0 {
					continue
				}
				again = true
				if s.durable.Load() != commit {
					makeWay(ctx, packPause*time.Since(start), logs)
				}
			}
		}
	}
}

// makeWay waits for d while somebody is appending: nobody waits for a bundle,
// some wait for a commit. It does not wait where too much is left to pack.
func makeWay(ctx context.Context, d time.Duration, logs []*Log) {
	behind := uint64(0)
	for _, l := range logs {
		// Of the two the second one may be newer.
		if size, packed := l.Size()/tileWidth, l.packed.Load(); size > packed {
			behind += size - packed
		}
	}
	if behind == 0 || behind > packLag {
		return
	}
	pause := time.NewTimer(d)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

// packSome packs up to limit bundles of a log in one batch, or passes over those that
// are not to be packed, and returns how many bundles it has come on by.
func (s *Store) packSome(l *Log, limit uint64) (n uint64, err error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	first := l.packed.Load()
	end := min(l.Size()/tileWidth, first+limit)
	if first >= end {
		return 0, nil
	}
	batch := s.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	// The rows that stay are set behind the range's end.
	var stay []uint64
	for k := first; k < end; k++ {
		outside, err := s.packOne(l, k, batch)
		if errors.Is(err, errUnpackable) || errors.Is(err, errNoRows) {
			if k == first {
				return s.passOver(l, k, err)
			}
			end = k // it is the first one of the next call
			break
		}
		if err != nil {
			return 0, err
		}
		stay = append(stay, outside...)
	}
	if err := s.dropRows(batch, l, first*tileWidth, end*tileWidth, stay); err != nil {
		return 0, err
	}
	if err := s.flushKeys(); err != nil {
		return 0, err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return 0, err
	}
	l.packed.Store(end)
	return end - first, nil
}

// passOver goes on behind a bundle that cannot be packed, or behind those that have no
// rows: packed in an earlier run, pruned, or fenced off as a whole. It writes nothing.
// Which bundles were left in their rows follows from the rows alone, so that a crash
// forgets nothing and the next run tries each of them again: a payload key may be back.
func (s *Store) passOver(l *Log, k uint64, why error) (n uint64, err error) {
	next := k + 1
	if errors.Is(why, errNoRows) {
		if next, err = s.nextRows(l, next); err != nil {
			return 0, err
		}
	} else if !l.unpackable {
		l.unpackable = true
		s.cfg.Log.Error("the ledger cannot be packed here and stays as it is, more bundles of this log perhaps as well; fsck tells of damage", slog.String("origin", l.origin), slog.Uint64("bundle", k), slog.Any("error", why))
	}
	l.packed.Store(next)
	return next - k, nil
}

// nextRows returns the next bundle from k on that has rows of leaves.
func (s *Store) nextRows(l *Log, k uint64) (_ uint64, err error) {
	end := l.Size() / tileWidth
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: keySeq(tableEntry, l.id, k*tileWidth), UpperBound: endOf(keyLog(tableEntry, l.id))})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.First() && len(it.Key()) == keySeqSize {
		end = min(end, binary.BigEndian.Uint64(it.Key()[5:])/tileWidth)
	}
	return max(end, k), it.Error()
}

// dropRows takes away the rows of packed entries but for the payloads that
// stay.
func (s *Store) dropRows(batch *pebble.Batch, l *Log, first, end uint64, stay []uint64) error {
	for _, table := range []byte{tableEntry, tablePayload} {
		if err := batch.DeleteRange(keySeq(table, l.id, first), keySeq(table, l.id, end), nil); err != nil {
			return err
		}
	}
	for _, index := range stay {
		key := keySeq(tablePayload, l.id, index)
		row, ok, err := get(s.db, key)
		if err != nil || !ok {
			return errors.Join(corrupt("payload %d of %s is missing", index, l.origin), err)
		}
		if err := batch.Set(key, row, nil); err != nil {
			return err
		}
	}
	return nil
}

// packOne adds the B row of one bundle to batch, after having read it back:
// what it stands for must be the rows to the byte. It returns which payloads stay
// outside.
func (s *Store) packOne(l *Log, k uint64, batch *pebble.Batch) (outside []uint64, err error) {
	rows, leaves, err := s.hotRows(l, k)
	if err != nil {
		return nil, err
	}
	row, err := packBundle(rows, s.keys, l.id)
	if errors.Is(err, errNoKey) {
		return nil, fmt.Errorf("%w: %w", errUnpackable, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := parseBundle(l.id, k*tileWidth, row)
	if err != nil {
		return nil, fmt.Errorf("read back what was packed: %w", err)
	}
	if err := b.place(s.db, l.id); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnpackable, err)
	}
	buf := make([]byte, 0, record.LeafSize)
	for i := range rows {
		leaf, raw, o, err := l.whole(b, i, buf)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnpackable, err)
		}
		if !bytes.Equal(raw, leaves[i]) {
			return nil, fmt.Errorf("entry %d: %w: its leaf is another", leaf.Index, errUnpackable)
		}
		if rows[i].open.kind == kindOutside {
			outside = append(outside, leaf.Index)
		} else if !bytes.Equal(o.payload, rows[i].open.payload) {
			return nil, fmt.Errorf("entry %d: %w: its payload is another", leaf.Index, errUnpackable)
		}
	}
	return outside, batch.Set(keySeq(tableBundle, l.id, k), row, nil)
}

// hotRows reads the rows of a bundle that is not packed yet.
func (s *Store) hotRows(l *Log, k uint64) (rows []packRow, leaves [][]byte, err error) {
	first, end := k*tileWidth, (k+1)*tileWidth
	rows, leaves = make([]packRow, 0, tileWidth), make([][]byte, 0, tileWidth)
	room := make([]byte, 0, tileWidth*record.LeafSize) // of all leaves
	err = scanRange(s.db, keySeq(tableEntry, l.id, first), keySeq(tableEntry, l.id, end), func(_, value []byte) error {
		leaf, err := record.ParseLeaf(value)
		if err != nil {
			return fmt.Errorf("leaf %d: %w: %w", first+uint64(len(rows)), errUnpackable, err)
		}
		if want := first + uint64(len(rows)); leaf.Index != want {
			return fmt.Errorf("leaf %d says that it is leaf %d: %w", want, leaf.Index, errUnpackable)
		}
		from := len(room)
		room = append(room, value...)
		rows, leaves = append(rows, packRow{leaf: leaf}), append(leaves, room[from:])
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == 0 {
		return nil, nil, errNoRows
	}
	n := 0
	err = scanRange(s.db, keySeq(tablePayload, l.id, first), keySeq(tablePayload, l.id, end), func(key, value []byte) error {
		if n >= len(rows) || !bytes.Equal(key, keySeq(tablePayload, l.id, first+uint64(n))) {
			return fmt.Errorf("payload at key %x: %w", key, errUnpackable)
		}
		o, err := l.openPayload(value, &rows[n].leaf)
		if err != nil {
			return fmt.Errorf("payload %d: %w: %w", first+uint64(n), errUnpackable, err)
		}
		if len(o.payload) > outsideBytes {
			o = opening{kind: kindOutside}
		}
		if _, _, sealed := rowKey(value, l.id, rows[n].leaf.Origin); !sealed {
			o.payload = bytes.Clone(o.payload) // decrypting has made a copy, reading has not
		}
		rows[n].open = o
		n++
		return nil
	})
	if err == nil && (n != tileWidth || len(rows) != tileWidth) {
		err = fmt.Errorf("%d leaves and %d payloads: %w", len(rows), n, errUnpackable)
	}
	return rows, leaves, err
}
