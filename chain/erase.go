package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	Log      *Log
	Entry    uint64 // the entry that says so
	Records  uint64
	Verdicts uint64 // that quoted them
}

// Bounds of what one erasing entry lists.
const (
	maxEraseRanges   = 10_000
	maxEraseVerdicts = 200_000
)

// Erase takes away payloads, salts and the seeds they follow from, of records and
// of the verdicts that quote them: when it returns they are in no file that the
// store still uses, and where payloads are encrypted the keys which opened them
// are destroyed, so that older copies of the store are worthless for them. The
// files of before go in the background within moments, those that a reader has
// open when it is done. Proofs of the entries stay valid, since leaves hold
// commitments only. In each log an entry says what was erased, why and on whose
// word. From that entry on no reader is shown what it names.
//
// Order: that entry and a row which says that the work is not done are one
// commit, and from it on new payloads are under new keys; verdicts that came a moment
// ahead of it are taken along by another entry; rows are rewritten, and
// with them everything else that is under the old keys; the old keys are
// destroyed; the store is flushed and compacted; the row goes. After a crash at
// any step Run does what is left. It needs Run to be running. ctx ends the search for what is selected, and
// not what was begun.
func (s *Store) Erase(ctx context.Context, sel EraseSelection, reason, authority string) ([]Erasure, error) {
	logs, err := s.eraseLogs(sel)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if reason == "" || authority == "" {
		return nil, fmt.Errorf("erase: a reason and an authority must be given: %w", record.ErrReject)
	}
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	if s.background.Err() != nil {
		return nil, fmt.Errorf("erase: %w", ErrClosed)
	}
	var done []Erasure
	for _, l := range logs {
		one, err := s.eraseOf(ctx, l, sel, reason, authority)
		if err != nil {
			return done, fmt.Errorf("erase from %s: %w", l.origin, err)
		}
		if one.Records > 0 {
			done = append(done, one)
		}
	}
	if len(done) == 0 {
		return nil, fmt.Errorf("erase: no record of a guest is selected that was not erased before: %w", record.ErrReject)
	}
	return done, nil
}

// eraseOf is Erase for one log. The caller holds eraseMu.
func (s *Store) eraseOf(ctx context.Context, l *Log, sel EraseSelection, reason, authority string) (Erasure, error) {
	m, err := s.selectErased(ctx, l, sel)
	if err != nil || m.Records == 0 {
		return Erasure{}, err
	}
	m.Reason, m.Authority = reason, authority
	p, err := s.sealErasure(ctx, l, m)
	if err != nil {
		return Erasure{}, err
	}
	if err := s.finishErasure(s.background, p); err != nil {
		return Erasure{}, fmt.Errorf("entry %d; it is finished at the next start: %w", p.index, err)
	}
	verdicts := p.missed
	for _, v := range m.Verdicts {
		verdicts += uint64(len(v.Entries))
	}
	return Erasure{Log: l, Entry: p.index, Records: m.Records, Verdicts: verdicts}, nil
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
		return []*Log{sel.Log}, sel.Log.Gone()
	}
	for _, l := range s.Logs() {
		if l.name.Domain == sel.Domain && l.Gone() == nil {
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
	for i := l.nextKept(first); i < end; i = l.nextKept(i + 1) {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		leaf, err := l.readHeader(i)
		if errors.Is(err, ErrUnreadable) {
			continue // fenced: there are no rows to erase
		}
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
		gone, err := l.isErased(i)
		if errors.Is(err, ErrUnreadable) {
			continue // its leaf is there, its payload is fenced
		}
		if err != nil {
			return nil, err
		}
		if gone || l.masks(&leaf) != nil {
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
	if m.Records == 0 {
		return m, nil
	}
	return m, s.selectVerdicts(ctx, l, m)
}
