package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// ErrPruned says that an entry, or a hash of it, is not kept any longer.
var ErrPruned = errors.New("pruned")

// PrunedError is the ErrPruned of one entry or tile.
type PrunedError struct {
	Minimum uint64 // what comes before it is pruned
	Index   uint64 // of the entry that says why, in the same log
}

// Error says which entry tells more.
func (e *PrunedError) Error() string {
	return fmt.Sprintf("%v: it lies before entry %d, see entry %d of this log", ErrPruned, e.Minimum, e.Index)
}

// Is makes every PrunedError an ErrPruned, and no fault of whoever keeps the log.
func (e *PrunedError) Is(target error) bool { return target == ErrPruned || target == record.ErrReject }

// pruneUnit is what minimum indexes are multiples of: what a full tile of level 1
// stands for. So no partial tile needs what is pruned, and proofs over it need
// tiles of level 1 and above only, which are kept for ever.
const pruneUnit = tileWidth * tileWidth

// pruned says what of a log is not kept any longer.
type pruned struct {
	leaves, leavesBy uint64 // entries before it are gone, by the entry that says so
	tiles, tilesBy   uint64 // likewise tiles of level 0
	pending          bool   // the rows are not gone yet
	pins             []uint64
	steps            []pruneStep // whose hashes are kept, oldest first
}

// pruneStep is one pruning of entries: all before end were sealed before a time. The
// entry that tells of it may be pruned itself before the hashes are old enough.
type pruneStep struct {
	end    uint64
	before int64 // Unix nanoseconds
}

// maxPruneSteps bounds the row: where there are more, of two only the later is kept,
// and the hashes of the other one stay until it is old enough.
const maxPruneSteps = 1024

// step adds a pruning of entries.
func (p *pruned) step(end uint64, before time.Time) {
	steps := append(slices.Clone(p.steps), pruneStep{end, before.UnixNano()})
	if len(steps) > maxPruneSteps {
		kept := steps[:0]
		for i := len(steps) % 2; i < len(steps); i += 2 {
			kept = append(kept, steps[i+1])
		}
		steps = kept
	}
	p.steps = steps
}

const (
	prunedVersion  = 2
	prunedVersion1 = 1 // has no steps
)

func keyPruned(id LogID) []byte {
	return keyMeta(metaPruned, binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// row encodes an M p row: 1 version, 8 entries from, 8 by, 8 tiles from, 8 by, 1
// pending, 2 number of steps, 8 end and 8 time of each, then 8 for each bundle that
// stays all the same.
func (p *pruned) row() []byte {
	b := []byte{prunedVersion}
	for _, n := range []uint64{p.leaves, p.leavesBy, p.tiles, p.tilesBy} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, 0)
	if p.pending {
		b[len(b)-1] = 1
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.steps)))
	for _, s := range p.steps {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, s.end), uint64(s.before))
	}
	for _, k := range p.pins {
		b = binary.BigEndian.AppendUint64(b, k)
	}
	return b
}

func parsePruned(b []byte) (*pruned, error) {
	bad := fmt.Errorf("parse row of what is pruned: %d bytes do not make version %d", len(b), prunedVersion)
	if len(b) < 34 || b[0] != prunedVersion && b[0] != prunedVersion1 || b[33] > 1 {
		return nil, bad
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	p := &pruned{leaves: at(0), leavesBy: at(1), tiles: at(2), tilesBy: at(3), pending: b[33] == 1}
	rest := b[34:]
	if b[0] != prunedVersion1 {
		if len(rest) < 2 || len(rest)-2 < 16*int(binary.BigEndian.Uint16(rest)) {
			return nil, bad
		}
		n := int(binary.BigEndian.Uint16(rest))
		for rest = rest[2:]; n > 0; n, rest = n-1, rest[16:] {
			p.steps = append(p.steps, pruneStep{binary.BigEndian.Uint64(rest), int64(binary.BigEndian.Uint64(rest[8:]))})
		}
	}
	if len(rest)%8 != 0 {
		return nil, bad
	}
	for ; len(rest) > 0; rest = rest[8:] {
		p.pins = append(p.pins, binary.BigEndian.Uint64(rest))
	}
	if p.leaves%pruneUnit != 0 || p.tiles%pruneUnit != 0 || p.tiles > p.leaves {
		return nil, fmt.Errorf("parse row of what is pruned: entries before %d, tiles before %d", p.leaves, p.tiles)
	}
	return p, nil
}

// pinned reports whether a bundle stays though it lies before the minimum.
func (p *pruned) pinned(bundle uint64) bool { return slices.Contains(p.pins, bundle) }

// keepsTile reports whether a level-0 tile stays: of pinned bundles, and of the one
// before each bundle that stays, whose last hash its first leaf holds.
func (p *pruned) keepsTile(index uint64) bool {
	return index+1 >= p.tiles/tileWidth || p.pinned(index) || p.pinned(index+1)
}

// Minimum returns the index from which on entries are kept, as
// c2sp.org/tlog-tiles means it: 0 where nothing was pruned.
func (l *Log) Minimum() uint64 {
	if l.dropped.Load() != nil {
		return l.Size()
	}
	if p := l.pruned.Load(); p != nil {
		return p.leaves
	}
	return 0
}

// goneBundle returns why a bundle is not there, nil where it must be.
func (l *Log) goneBundle(n uint64) error {
	if err := l.Gone(); err != nil {
		return err
	}
	if p := l.pruned.Load(); p != nil && n < p.leaves/tileWidth && !p.pinned(n) {
		return &PrunedError{Minimum: p.leaves, Index: p.leavesBy}
	}
	return nil
}

// goneTile returns why a full tile is not there, nil where it must be.
func (l *Log) goneTile(level uint8, index uint64) error {
	if err := l.Gone(); err != nil && level == 0 {
		return err
	}
	if p := l.pruned.Load(); p != nil && level == 0 && !p.keepsTile(index) {
		return &PrunedError{Minimum: p.tiles, Index: p.tilesBy}
	}
	return nil
}

// nextKept returns the first entry from index on that was not pruned.
func (l *Log) nextKept(index uint64) uint64 {
	if l.dropped.Load() != nil {
		return max(index, l.Size())
	}
	p := l.pruned.Load()
	for ; p != nil && index < p.leaves && !p.pinned(index/tileWidth); index = (index/tileWidth + 1) * tileWidth {
	}
	return index
}

// prune takes away the entries of a log before minimum, or their level-0 tiles. All
// of them were sealed before the given time. The caller holds retainMu and eraseMu.
//
// Order: an entry of the log says what goes, and the row that says it is not done
// stands with it; from there on readers are told so. Then rows go, files are
// compacted, and the row says that it is done. After a crash Run does what is
// left.
func (s *Store) prune(ctx context.Context, l *Log, what string, minimum uint64, before time.Time, rule string) error {
	old, now := l.pruned.Load(), pruned{pending: true}
	if old != nil {
		now = *old
		now.pending = true
	}
	root, err := l.RootAt(minimum)
	if err != nil {
		return err
	}
	m := &record.Pruned{What: what, Root: root[:], Rule: rule, Authority: "configuration", Before: before.UnixNano()}
	var by *uint64
	if what == prunedLeaves {
		m.Range = &record.EntryRange{First: now.leaves, Last: minimum - 1}
		now.leaves, by = minimum, &now.leavesBy
		now.step(minimum, before)
		if now.pins, err = l.pins(ctx, minimum); err != nil {
			return err
		}
	} else {
		m.Range = &record.EntryRange{First: now.tiles, Last: minimum - 1}
		now.tiles, by = minimum, &now.tilesBy
		now.steps = slices.DeleteFunc(slices.Clone(now.steps), func(s pruneStep) bool { return s.end <= minimum })
	}
	e, err := s.Draft(record.OriginHost, record.ClassPruned, m)
	if err != nil {
		return err
	}
	r := newRequest(Batch{Log: l, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		*by = sealed[0].First
		return b.Set(keyPruned(l.id), now.row(), nil)
	}
	r.durable = func() { l.pruned.Store(&now) }
	if err := s.submitAndWait(context.WithoutCancel(ctx))(r); err != nil {
		return err
	}
	s.cfg.Log.Info("pruned", slog.String("origin", l.origin), slog.String("what", what), slog.Uint64("before", minimum), slog.Uint64("entry", *by))
	return s.dropPruned(ctx, l)
}

// What prune takes away, as the entry that tells of it calls it.
const (
	prunedLeaves = "leaves"
	prunedTiles  = "tiles"
)

// pins returns the bundles before a minimum that must stay: that of the genesis,
// and that of the enrolment of the agent that may go on behind it.
func (l *Log) pins(ctx context.Context, minimum uint64) ([]uint64, error) {
	pins := []uint64{0}
	for i := minimum; i > 0; i-- {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		k := (i - 1) / tileWidth
		if l.goneBundle(k) != nil {
			continue
		}
		leaf, err := l.readHeader(i - 1)
		if errors.Is(err, ErrUnreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if leaf.Header.Class == record.ClassAgentEnrolled && leaf.Origin == record.OriginHost {
			if k > 0 {
				pins = append(pins, k)
			}
			break
		}
	}
	return pins, nil
}

// dropPruned takes the rows away. It may be done again after a crash.
func (s *Store) dropPruned(ctx context.Context, l *Log) (err error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	p := *l.pruned.Load()
	batch := s.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	drop := func(from, to []byte) {
		err = errors.Join(err, batch.DeleteRange(from, to, nil))
	}
	bundles, tiles := p.leaves/tileWidth, p.tiles/tileWidth
	spans(bundles, func(k uint64) bool { return p.pinned(k) }, func(from, to uint64) {
		drop(keySeq(tableBundle, l.id, from), keySeq(tableBundle, l.id, to))
		for _, table := range []byte{tableEntry, tablePayload} { // the former of bundles that were not packed
			drop(keySeq(table, l.id, from*tileWidth), keySeq(table, l.id, to*tileWidth))
		}
	})
	spans(tiles, p.keepsTile, func(from, to uint64) { drop(keyTile(l.id, 0, from), keyTile(l.id, 0, to)) })
	if err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return s.fail(err)
	}
	s.bundles.forget()
	if err := s.db.Flush(); err != nil {
		return err
	}
	for _, span := range [][2][]byte{
		{keySeq(tableBundle, l.id, 0), keySeq(tableBundle, l.id, bundles+1)},
		{keySeq(tableEntry, l.id, 0), keySeq(tableEntry, l.id, bundles*tileWidth+1)},
		{keySeq(tablePayload, l.id, 0), keySeq(tablePayload, l.id, bundles*tileWidth+1)},
		{keyTile(l.id, 0, 0), keyTile(l.id, 0, tiles+1)},
	} {
		if err := s.db.Compact(ctx, span[0], span[1], false); err != nil {
			return err
		}
	}
	p.pending = false
	if err := s.db.Set(keyPruned(l.id), p.row(), pebble.Sync); err != nil {
		return s.fail(err)
	}
	l.pruned.Store(&p)
	return nil
}

// spans calls f with the runs of numbers below end that keep does not keep.
func spans(end uint64, keep func(uint64) bool, f func(from, to uint64)) {
	for from := uint64(0); from < end; from++ {
		to := from
		for to < end && !keep(to) {
			to++
		}
		if to > from {
			f(from, to)
		}
		from = to
	}
}

// loadPruned reads what is pruned of each log, before anything else of it.
func (s *Store) loadPruned() error {
	return scan(s.db, keyMeta(metaPruned, nil), func(key, value []byte) error {
		l, ok := (*Log)(nil), len(key) == 6
		if ok {
			l, ok = s.LogByID(LogID(binary.BigEndian.Uint32(key[2:])))
		}
		if !ok {
			return corrupt("key %x says what is pruned of a log that does not exist", key)
		}
		p, err := parsePruned(value)
		if err != nil {
			return corrupt("%s: %v", l.origin, err)
		}
		l.pruned.Store(p)
		return nil
	})
}

// resumePruning finishes what a crash has cut short.
func (s *Store) resumePruning(ctx context.Context) error {
	for _, l := range s.Logs() {
		if p := l.pruned.Load(); p != nil && p.pending {
			if err := s.dropPruned(ctx, l); err != nil {
				if ctx.Err() != nil {
					return nil // the next start goes on
				}
				if s.Err() != nil {
					return fmt.Errorf("prune %s: %w", l.origin, err)
				}
				s.cfg.Log.Error("what was pruned is not taken away yet, the next start tries again", slog.String("origin", l.origin), slog.Any("error", err))
			}
		}
	}
	return nil
}
