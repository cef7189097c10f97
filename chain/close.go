package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// ErrLogClosed says that nothing more is sealed about a domain in a log.
var ErrLogClosed = errors.New("the log is closed")

func keyClosed(id LogID) []byte {
	return keyMeta(metaClosed, binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// CloseLog seals the last entry about a domain in its log, and signs it. next is the
// origin of the log that goes on, empty for the last one of an incarnation; its
// genesis quotes the checkpoint that is made here. Behind it come only verdicts on
// what stands before it, their outcomes, and what is erased and pruned. A log that is
// closed is left alone.
func (s *Store) CloseLog(ctx context.Context, l *Log, reason, next string) error {
	if l.name.IsHost() || l.store != s {
		return fmt.Errorf("close log %s: it is no VM log of this store: %w", l.origin, record.ErrReject)
	}
	if index, closed := l.Closed(); closed {
		if p := l.published.Load(); p != nil && p.Size > index {
			return nil
		}
		return s.CheckpointNow(ctx, l) // a crash came before it
	}
	e, err := s.Draft(record.OriginHost, record.ClassClosed, &record.Closed{Reason: reason, NextOrigin: next})
	if err != nil {
		return fmt.Errorf("close log %s: %w", l.origin, err)
	}
	r := newRequest(Batch{Log: l, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		// Whoever comes behind it is refused, in this commit already.
		l.closed.Store(sealed[0].First)
		return b.Set(keyClosed(l.id), binary.BigEndian.AppendUint64(nil, sealed[0].First), nil)
	}
	if err := s.submitAndWait(ctx)(r); err != nil {
		return fmt.Errorf("close log %s: %w", l.origin, err)
	}
	s.cfg.Log.Info("log closed", slog.String("origin", l.origin), slog.String("reason", reason), slog.String("next", next))
	return s.CheckpointNow(ctx, l)
}

// Closed returns the entry that closed the log. ok is false for a log that is open.
func (l *Log) Closed() (index uint64, ok bool) {
	index = l.closed.Load() // never entry 0, which is the genesis
	return index, index > 0
}

// follows reports whether an entry may stand behind the one that closed its log.
func follows(o record.Origin, c record.Class) bool {
	return o == record.OriginPolicy || c == record.ClassErased || c == record.ClassPruned
}

// checkOpen refuses what may not be sealed in a closed log.
func (b *Batch) checkOpen() error {
	if err := b.Log.Gone(); err != nil {
		return fmt.Errorf("seal in %s: %w", b.Log.origin, err)
	}
	if b.Log.dropping {
		return fmt.Errorf("seal in %s: it is being dropped: %w", b.Log.origin, record.ErrReject)
	}
	index, closed := b.Log.Closed()
	if !closed {
		return nil
	}
	for i := range b.Entries {
		if e := &b.Entries[i]; !follows(e.Origin, e.Header.Class) {
			return fmt.Errorf("seal %s in %s: %w by entry %d: %w", e.Header.Class, b.Log.origin, ErrLogClosed, index, record.ErrReject)
		}
	}
	return nil
}

// loadClosed reads which logs are closed.
func (s *Store) loadClosed() error {
	return scan(s.db, keyMeta(metaClosed, nil), func(key, value []byte) error {
		if len(key) != 6 || len(value) != 8 {
			return corrupt("key %x closes no log", key)
		}
		l, ok := s.LogByID(LogID(binary.BigEndian.Uint32(key[2:])))
		if !ok {
			return corrupt("log number %x is closed and does not exist", key[2:])
		}
		l.closed.Store(binary.BigEndian.Uint64(value))
		return nil
	})
}

// checkClosed looks for entries that stand behind the one that closed their log.
func (c *logCheck) checkClosed(leaf *record.Leaf) {
	if c.closedBy > 0 && !follows(leaf.Origin, leaf.Header.Class) {
		c.f.find("leaf", c.l, &leaf.Index, "entry %d closed the log, and a %s of origin %s stands behind it", c.closedBy, leaf.Header.Class, leaf.Origin)
	}
	if leaf.Header.Class == record.ClassClosed && leaf.Origin == record.OriginHost {
		c.closedBy = leaf.Index
	}
}

// closedRow holds the row that says a log is closed against its entries.
func (c *logCheck) closedRow() error {
	row, ok, err := get(c.f.s.db, keyClosed(c.l.id))
	if err != nil {
		return err
	}
	switch {
	case !ok && c.closedBy > 0:
		c.f.find("closed", c.l, nil, "entry %d closes it, and no row says so", c.closedBy)
	case ok && (len(row) != 8 || binary.BigEndian.Uint64(row) != c.closedBy) && !c.blind:
		c.f.find("closed", c.l, nil, "a row says that entry %x closes it, and the entry does not", row)
	}
	return nil
}
