package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// ErrErased says that a payload was erased.
var ErrErased = errors.New("the payload was erased")

// ErasedError is the ErrErased of one entry.
type ErasedError struct {
	Index uint64 // of the entry that says why, in the same log
}

// Error says which entry tells more.
func (e *ErasedError) Error() string {
	return fmt.Sprintf("%v: see entry %d of this log", ErrErased, e.Index)
}

// Is makes every ErasedError an ErrErased.
func (e *ErasedError) Is(target error) bool { return target == ErrErased }

// EraseSelection says what to erase: payloads of records that guests have
// written. Of what the host has written nothing is erased: its statements are
// what the rest is proven with.
type EraseSelection struct {
	// Log is one VM log, or Domain the UUID whose VM logs are meant, all of
	// them.
	Log    *Log
	Domain string
	// Range is of Log; nil means all entries.
	Range *proof.Range
	// From and To bound the host's wall time, To not included. Zero: open.
	From, To time.Time
}

// Erasure is what was erased of one log.
type Erasure struct {
	Log     *Log
	Entry   uint64 // the entry that says so
	Records uint64
}

// maxEraseRanges bounds what one erasing entry lists.
const maxEraseRanges = 10_000

// Erase takes away payloads, salts and the seeds they follow from: when it
// returns they are in no file that the store still uses. The files of before go
// in the background within moments, those that a reader has open when it is
// done. The key of their hour is not destroyed, since other payloads need it:
// whoever has it and an older copy of the store still reads them. Proofs of the
// entries stay valid, since leaves hold commitments only. In each log an entry
// says what was erased, why and on whose word.
//
// Order: that entry and a row which says that the work is not done are one
// commit; rows are rewritten; the store is flushed and compacted; the row goes.
// After a crash at any step Run does what is left.
func (s *Store) Erase(ctx context.Context, sel EraseSelection, reason, authority string) ([]Erasure, error) {
	logs, err := s.eraseLogs(sel)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if reason == "" || authority == "" {
		return nil, fmt.Errorf("erase: a reason and an authority must be given: %w", record.ErrReject)
	}
	var done []Erasure
	for _, l := range logs {
		m, err := s.selectErased(ctx, l, sel)
		if err != nil {
			return done, fmt.Errorf("erase from %s: %w", l.origin, err)
		}
		if m.Records == 0 {
			continue
		}
		m.Reason, m.Authority = reason, authority
		index, err := s.sealErasure(ctx, l, m)
		if err != nil {
			return done, fmt.Errorf("erase from %s: %w", l.origin, err)
		}
		if err := s.finishErasure(ctx, l, index, m); err != nil {
			return done, fmt.Errorf("erase from %s, entry %d; it is done at the next start: %w", l.origin, index, err)
		}
		done = append(done, Erasure{Log: l, Entry: index, Records: m.Records})
	}
	if len(done) == 0 {
		return nil, fmt.Errorf("erase: no record of a guest is selected: %w", record.ErrReject)
	}
	return done, nil
}

// eraseLogs returns the logs that a selection is about.
func (s *Store) eraseLogs(sel EraseSelection) (logs []*Log, err error) {
	switch {
	case (sel.Log == nil) == (sel.Domain == ""):
		return nil, fmt.Errorf("name a log or a domain, and not both: %w", record.ErrReject)
	case sel.Log != nil && (sel.Log.store != s || sel.Log.name.IsHost()):
		return nil, fmt.Errorf("the log is no VM log of this store: %w", record.ErrReject)
	case sel.Log == nil && sel.Range != nil:
		return nil, fmt.Errorf("a range is of one log: %w", record.ErrReject)
	case sel.Log != nil:
		return []*Log{sel.Log}, nil
	}
	for _, l := range s.Logs() {
		if l.name.Domain == sel.Domain {
			logs = append(logs, l)
		}
	}
	return logs, nil
}

// selectErased finds the records of a log that a selection means. Ranges go on
// over entries of others, which stay.
func (s *Store) selectErased(ctx context.Context, l *Log, sel EraseSelection) (*record.Erased, error) {
	first, end := uint64(0), l.Size()
	if r := sel.Range; r != nil {
		if r.First > r.Last || r.Last >= end {
			return nil, fmt.Errorf("entries %d to %d: the log has %d entries: %w", r.First, r.Last, end, record.ErrReject)
		}
		first, end = r.First, r.Last+1
	}
	m := &record.Erased{}
	var open *record.EntryRange
	for i := first; i < end; i++ {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		leaf, err := l.readHeader(i)
		if err != nil {
			return nil, err
		}
		if leaf.Origin != record.OriginGuest {
			continue
		}
		if wall := time.Unix(0, leaf.Wall); wall.Before(sel.From) || !sel.To.IsZero() && !wall.Before(sel.To) {
			open = nil
			continue
		}
		if open == nil {
			if len(m.Ranges) == maxEraseRanges {
				return nil, fmt.Errorf("more than %d separate ranges are selected; erase in parts: %w", maxEraseRanges, record.ErrReject)
			}
			open = &record.EntryRange{First: i}
			m.Ranges = append(m.Ranges, open)
		}
		open.Last = i
		m.Records++
	}
	return m, nil
}

func keyErasure(id LogID, index uint64) []byte {
	return keyMeta(metaErasure, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), index))
}

// sealErasure seals the entry that says what is erased, with the row that says
// that it is not done yet.
func (s *Store) sealErasure(ctx context.Context, l *Log, m *record.Erased) (uint64, error) {
	e, err := s.Draft(record.OriginOperator, record.ClassErased, m)
	if err != nil {
		return 0, err
	}
	r := newRequest(Batch{Log: l, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		return b.Set(keyErasure(l.id, sealed[0].First), nil, nil)
	}
	// Whoever gave up here would leave an erasure nobody finishes before the
	// next start.
	if err := s.submitAndWait(context.WithoutCancel(ctx))(r); err != nil {
		return 0, err
	}
	return r.sealed[0].First, nil
}

// resumeErasures finishes what a crash has cut short.
func (s *Store) resumeErasures(ctx context.Context) error {
	type pending struct {
		log   LogID
		index uint64
	}
	var list []pending
	err := scan(s.db, keyMeta(metaErasure, nil), func(key, _ []byte) error {
		if len(key) == 14 {
			list = append(list, pending{LogID(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint64(key[6:])})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range list {
		l, ok := s.LogByID(p.log)
		if !ok {
			return corrupt("an erasure is of log number %d, which does not exist", p.log)
		}
		item, err := l.Item(p.index)
		if err != nil {
			return err
		}
		m, err := item.Decode()
		erased, ok := m.(*record.Erased)
		if err != nil || !ok {
			return errors.Join(corrupt("entry %d of %s erases nothing", p.index, l.origin), err)
		}
		s.cfg.Log.Info("an erasure that was cut short goes on", slog.String("origin", l.origin), slog.Uint64("entry", p.index))
		if err := s.finishErasure(ctx, l, p.index, erased); err != nil {
			if ctx.Err() != nil {
				return nil // the next start goes on
			}
			return fmt.Errorf("erase from %s, entry %d: %w", l.origin, p.index, err)
		}
	}
	return nil
}

// finishErasure rewrites the rows and makes sure that no file keeps the old
// ones.
func (s *Store) finishErasure(ctx context.Context, l *Log, index uint64, m *record.Erased) error {
	if err := s.eraseRows(ctx, l, index, m); err != nil {
		return err
	}
	// Deleted and overwritten rows stay in the files until they are compacted,
	// and in the write-ahead log until it is flushed.
	if err := s.db.Flush(); err != nil {
		return err
	}
	for _, table := range []byte{tablePayload, tableBundle} {
		if err := s.db.Compact(ctx, keyLog(table, l.id), endOf(keyLog(table, l.id)), false); err != nil {
			return err
		}
	}
	if err := s.db.Delete(keyErasure(l.id, index), pebble.Sync); err != nil {
		return s.fail(err)
	}
	return nil
}
