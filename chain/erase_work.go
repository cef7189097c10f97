package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// erasure is one that is sealed and not done.
type erasure struct {
	log      *Log
	index    uint64 // of the entry that tells of it
	m        *record.Erased
	verdicts map[uint64]bool // entries of m.Verdicts
	retired  []retiredKey
	// unread says that the entry which tells of it cannot be read: m is nil.
	unread bool
	// missed is how many verdicts another entry takes along for it, see eraseMissed.
	missed uint64
}

// retiredKey is what must be destroyed for an hour: generations up to it, and
// the shared key.
type retiredKey struct {
	hour       int64
	generation uint32
}

func newErasure(l *Log, index uint64, m *record.Erased) *erasure {
	p := &erasure{log: l, index: index, m: m, verdicts: map[uint64]bool{}}
	for _, v := range m.GetVerdicts() {
		for _, i := range v.Entries {
			p.verdicts[i] = true
		}
	}
	return p
}

// mayName reports whether an erasure whose entry cannot be read may be about an
// entry: what it erases was there before it, and of an hour whose keys it destroys
// where it destroys any.
func (p *erasure) mayName(leaf *record.Leaf) bool {
	if leaf.Index >= p.index || leaf.Origin != record.OriginGuest && !isVerdict(leaf) {
		return false
	}
	hour := hourOf(leaf.Wall)
	return len(p.retired) == 0 || slices.ContainsFunc(p.retired, func(r retiredKey) bool { return r.hour == hour })
}

// selects reports whether an entry is to be erased.
func (p *erasure) selects(leaf *record.Leaf) bool {
	return leaf.Origin == record.OriginGuest && inRanges(p.m.GetRanges(), leaf.Index) || p.verdicts[leaf.Index] && isVerdict(leaf)
}

func keyErasure(id LogID, index uint64) []byte {
	return keyMeta(metaErasure, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), index))
}

const erasureVersion = 1

// row encodes the value of an M e row: 1 version, then for each hour whose keys
// are to be destroyed 8 hour, 4 generation.
func (p *erasure) row() []byte {
	b := []byte{erasureVersion}
	for _, r := range p.retired {
		b = binary.BigEndian.AppendUint64(b, uint64(r.hour))
		b = binary.BigEndian.AppendUint32(b, r.generation)
	}
	return b
}

// parse is the inverse of row. Stores of before have empty values: they destroy
// no keys.
func (p *erasure) parse(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if b[0] != erasureVersion || len(b)%12 != 1 {
		return corrupt("the row of the erasure in entry %d of %s has %d bytes of version %d", p.index, p.log.origin, len(b), b[0])
	}
	for b = b[1:]; len(b) > 0; b = b[12:] {
		p.retired = append(p.retired, retiredKey{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint32(b[8:])})
	}
	return nil
}

// sealErasure seals the entry that says what is erased, with the row that says
// that it is not done yet. In the same step of the committer readers stop to be
// shown it, and what is sealed next is under other keys.
func (s *Store) sealErasure(ctx context.Context, l *Log, m *record.Erased) (*erasure, error) {
	e, err := s.Draft(record.OriginOperator, record.ClassErased, m)
	if err != nil {
		return nil, err
	}
	p := newErasure(l, 0, m)
	hours, err := s.erasedHours(p)
	if err != nil {
		return nil, err
	}
	for _, hour := range hours {
		// A file of keys that is damaged refuses the erasure here: in the committer
		// it would keep the host from sealing.
		if err := s.keys.readable(hour); err != nil {
			return nil, err
		}
	}
	r := newRequest(Batch{Log: l, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		p.index = sealed[0].First
		for _, hour := range hours {
			generation, err := s.keys.retire(l.id, hour)
			if err != nil {
				return err
			}
			p.retired = append(p.retired, retiredKey{hour, generation})
		}
		l.erase(p)
		s.recent.clear()
		s.erasures.Add(1)
		return b.Set(keyErasure(l.id, p.index), p.row(), nil)
	}
	// Whoever gave up here would leave an erasure nobody finishes before the
	// next start.
	if err := s.submitAndWait(context.WithoutCancel(ctx))(r); err != nil {
		return nil, err
	}
	return p, nil
}

// erasedHours returns the hours of what an erasure selects, nothing where
// payloads are not encrypted.
func (s *Store) erasedHours(p *erasure) ([]int64, error) {
	if s.keys == nil {
		return nil, nil
	}
	hours := map[int64]bool{}
	look := func(i uint64) error {
		leaf, err := p.log.readHeader(i)
		if errors.Is(err, ErrUnreadable) {
			return nil
		}
		if err == nil && p.selects(&leaf) {
			hours[hourOf(leaf.Wall)] = true
		}
		return err
	}
	for _, r := range p.m.Ranges {
		for i := r.First; i <= r.Last; i++ {
			if err := look(i); err != nil {
				return nil, err
			}
			i = p.log.nextKept(i+1) - 1
		}
	}
	for i := range p.verdicts {
		if err := look(i); err != nil {
			return nil, err
		}
	}
	var list []int64
	for h := range hours {
		list = append(list, h)
	}
	slices.Sort(list)
	return list, nil
}

// Erasures counts the erasures that were sealed in this run. Who seals words that
// he has read compares it, in the Check of his batch, with what it was before he
// read: where it differs they may be words that were erased meanwhile.
func (s *Store) Erasures() uint64 { return s.erasures.Load() }

// erase adds an erasure to those that readers heed before the rows are changed.
func (l *Log) erase(p *erasure) {
	l.erasingMu.Lock()
	defer l.erasingMu.Unlock()
	var list []*erasure
	if old := l.erasing.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = append(list, p)
	l.erasing.Store(&list)
}

// erased takes away an erasure whose rows are changed.
func (l *Log) erased(p *erasure) {
	l.erasingMu.Lock()
	defer l.erasingMu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*l.erasing.Load()), func(o *erasure) bool { return o == p })
	l.erasing.Store(&list)
}

// mask takes from an item what an erasure under way is about to take. It holds
// back what one may take that cannot be read: nobody can tell what that names.
func (l *Log) mask(item *Item) error {
	if item.Erased {
		return nil
	}
	if p := l.masks(&item.Leaf); p != nil {
		item.Erased, item.ErasedBy, item.Payload, item.secret, item.seeded = true, p.index, nil, record.Salt{}, false
		return nil
	}
	if p := l.holds(&item.Leaf); p != nil {
		e := &UnreadableError{Origin: l.origin, First: item.Index, Last: item.Index, heldBy: p.index,
			Reason: fmt.Sprintf("the erasure in entry %d was cut short and cannot be read, and may name it", p.index)}
		*item = Item{}
		return e
	}
	return nil
}

// masks returns the erasure under way that is about to take an entry's payload, nil
// where there is none.
func (l *Log) masks(leaf *record.Leaf) *erasure {
	return l.underWay(func(p *erasure) bool { return p.selects(leaf) })
}

// holds returns the erasure under way that cannot be read and may be about to.
func (l *Log) holds(leaf *record.Leaf) *erasure {
	return l.underWay(func(p *erasure) bool { return p.unread && p.mayName(leaf) })
}

func (l *Log) underWay(is func(*erasure) bool) *erasure {
	list := l.erasing.Load()
	if list == nil {
		return nil
	}
	for _, p := range *list {
		if is(p) {
			return p
		}
	}
	return nil
}

// loadErasures finds what a crash has cut short. Until resumeErasures has
// finished it nobody is shown it, and no new payload is under a key that will be
// destroyed.
func (s *Store) loadErasures() error {
	return scan(s.db, keyMeta(metaErasure, nil), func(key, value []byte) error {
		if len(key) != 14 {
			return corrupt("key %x is of no erasure", key)
		}
		id, index := LogID(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint64(key[6:])
		l, ok := s.LogByID(id)
		if !ok {
			return corrupt("an erasure is of log number %d, which does not exist", id)
		}
		p := &erasure{log: l, index: index}
		if err := p.parse(value); err != nil {
			return err
		}
		for _, r := range p.retired {
			if s.keys == nil {
				return corrupt("the erasure in entry %d of %s destroys keys of a store without any", index, l.origin)
			}
			s.keys.retireUpTo(id, r.hour, r.generation)
		}
		item, err := l.Item(index)
		if errors.Is(err, ErrUnreadable) || errors.Is(err, ErrPruned) {
			// Nobody knows what it names. That must not keep a host from sealing,
			// and shows nobody what it may name.
			s.cfg.Log.Error("an erasure that was cut short cannot be read, and is not finished in this run; what it may name is held back: bring the payload keys back, or restore a backup", slog.String("origin", l.origin), slog.Uint64("entry", index), slog.Any("error", err))
			p.unread = true
			l.erase(p)
			return nil
		}
		if err != nil {
			return err
		}
		m, err := item.Decode()
		erased, ok := m.(*record.Erased)
		if err != nil || !ok {
			return errors.Join(corrupt("entry %d of %s erases nothing", index, l.origin), err)
		}
		retired := p.retired
		p = newErasure(l, index, erased)
		p.retired = retired
		l.erase(p)
		s.unfinished = append(s.unfinished, p)
		return nil
	})
}

// resumeErasures finishes what a crash has cut short.
func (s *Store) resumeErasures(ctx context.Context) error {
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	for _, p := range s.unfinished {
		s.cfg.Log.Info("an erasure that was cut short goes on", slog.String("origin", p.log.origin), slog.Uint64("entry", p.index))
		if err := s.finishErasure(ctx, p); err != nil {
			if ctx.Err() != nil {
				return nil // the next start goes on
			}
			if s.Err() != nil {
				return fmt.Errorf("erase from %s, entry %d: %w", p.log.origin, p.index, err)
			}
			// Damaged rows must not keep a host from sealing.
			s.cfg.Log.Error("an erasure cannot be finished; nobody is shown what it names, its keys and rows are still there: mend the ledger with fsck, the next start tries again",
				slog.String("origin", p.log.origin), slog.Uint64("entry", p.index), slog.Any("error", err))
		}
	}
	s.unfinished = nil
	return nil
}

// finishErasure rewrites the rows, destroys the keys, and makes sure that no file
// keeps the old rows.
func (s *Store) finishErasure(ctx context.Context, p *erasure) error {
	l := p.log
	if err := s.eraseMissed(ctx, p); err != nil {
		return err
	}
	if err := s.eraseLater(ctx, p); err != nil {
		return err
	}
	first, last, err := s.eraseRows(ctx, p)
	if err != nil {
		return err
	}
	// Deleted and overwritten rows stay in the files until they are compacted,
	// and in the write-ahead log until it is flushed.
	if err := s.db.Flush(); err != nil {
		return err
	}
	for _, span := range [][2][]byte{
		{keySeq(tablePayload, l.id, first*tileWidth), keySeq(tablePayload, l.id, (last+1)*tileWidth)},
		{keySeq(tableBundle, l.id, first), keySeq(tableBundle, l.id, last+1)},
	} {
		if err := s.db.Compact(ctx, span[0], span[1], false); err != nil {
			return err
		}
	}
	if err := s.db.Delete(keyErasure(l.id, p.index), pebble.Sync); err != nil {
		return s.fail(err)
	}
	l.erased(p)
	return nil
}
