package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// openRow is an entry with what opens it, wherever it stands.
type openRow struct {
	leaf    record.Leaf
	open    opening
	outside bool // packed, with a P row
	changed bool // or under a retired key
	fenced  bool // it is damaged, and nobody reads it
	lost    bool // its key is not there
}

// eraser takes payloads out of one log. It holds Store.packMu.
type eraser struct {
	*erasure
	s     *Store
	l     *Log
	seeds map[[32]byte]uint64 // seeds of what is erased, and in which bundle; manyBundles where in several
}

const manyBundles = ^uint64(0)

// eraseRows rewrites every row that holds a selected payload, its salt, or the
// seed that its salt follows from, and every row under a key that is retired.
// Then it destroys the retired keys. It may be done again after a crash. It
// returns the first and last bundle that it has looked into.
//
// A seed can stand in several bundles. Where records stay that need it, their
// salts take its place, and that comes first: once the erased records are gone
// nobody knows any more which seeds were theirs. Keys are destroyed last: a crash
// before leaves rows under them only where this is done again.
func (s *Store) eraseRows(ctx context.Context, p *erasure) (first, last uint64, err error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	defer s.bundles.forget()
	e := &eraser{erasure: p, s: s, l: p.log, seeds: map[[32]byte]uint64{}}
	bundles := e.bundles()
	for _, k := range bundles {
		if err := e.gather(ctx, k); err != nil {
			return 0, 0, err
		}
	}
	for i, k := range bundles {
		if i == 0 || bundles[i-1] != k-1 {
			if err := e.neighbours(ctx, k, -1); err != nil {
				return 0, 0, err
			}
		}
		if i == len(bundles)-1 || bundles[i+1] != k+1 {
			if err := e.neighbours(ctx, k, 1); err != nil {
				return 0, 0, err
			}
		}
		if err := e.rewrite(ctx, k, func(r *openRow) { e.unseed(r, k, true) }); err != nil {
			return 0, 0, err
		}
	}
	for _, k := range bundles {
		if err := e.rewrite(ctx, k, func(r *openRow) { e.erase(r); e.unseed(r, k, false) }); err != nil {
			return 0, 0, err
		}
	}
	if len(bundles) > 0 { // frames reach a bundle further
		first, last = bundles[0]-min(bundles[0], 1), bundles[len(bundles)-1]+1
	}
	if len(e.retired) == 0 {
		return first, last, nil
	}
	hours := map[int64]bool{}
	for _, r := range e.retired {
		hours[r.hour] = true
	}
	under := map[uint64]bool{}
	if err := e.l.bundlesOf(ctx, hours, e.index+1, func(k uint64) { under[k] = true }); err != nil {
		return 0, 0, err
	}
	for _, k := range slices.Sorted(maps.Keys(under)) {
		if err := e.rewrite(ctx, k, func(*openRow) {}); err != nil {
			return 0, 0, err
		}
		first, last = min(first, k), max(last, k)
	}
	// What stands in the place of rows under these keys, the packer has written without
	// a sync, perhaps: after a power cut they must not be back.
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		return 0, 0, s.fail(err)
	}
	for _, r := range e.retired {
		// A crash amid them leaves keys that nothing is under.
		if err := s.keys.destroy(e.l.id, r.hour, r.generation); err != nil {
			return 0, 0, s.fail(err)
		}
	}
	return first, last, nil
}

// bundles returns the numbers of the bundles that hold selected entries.
func (e *eraser) bundles() []uint64 {
	set := map[uint64]bool{}
	for _, r := range e.m.Ranges {
		for k := r.First / tileWidth; k <= r.Last/tileWidth; k++ {
			if e.l.goneBundle(k) == nil {
				set[k] = true
			}
		}
	}
	for i := range e.verdicts {
		if e.l.goneBundle(i/tileWidth) == nil {
			set[i/tileWidth] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// gather notes the seeds of a bundle's selected entries.
func (e *eraser) gather(ctx context.Context, k uint64) error {
	rows, _, err := e.read(ctx, k)
	for i := range rows {
		if r := &rows[i]; r.open.kind == kindSeed && e.selects(&r.leaf) {
			if old, ok := e.seeds[r.open.secret]; ok && old != k {
				e.seeds[r.open.secret] = manyBundles
			} else if !ok {
				e.seeds[r.open.secret] = k
			}
		}
	}
	return err
}

// neighbours takes the seeds out of the bundles beside bundle k as far as a
// frame reaches into them: the farthest first, so that after a crash the nearer
// ones still lead to those that are left.
func (e *eraser) neighbours(ctx context.Context, k uint64, step int) error {
	var reach []uint64
	for n := k + uint64(step); n != manyBundles && n*tileWidth < e.l.Size(); n += uint64(step) {
		if e.l.goneBundle(n) != nil {
			break
		}
		rows, _, err := e.read(ctx, n)
		if err != nil {
			return err
		}
		if rows == nil {
			continue // it is fenced; a frame may reach over it
		}
		found := slices.ContainsFunc(rows, func(r openRow) bool {
			_, ok := e.seeds[r.open.secret]
			return ok && r.open.kind == kindSeed
		})
		if !found {
			break
		}
		reach = append(reach, n)
	}
	for _, n := range slices.Backward(reach) {
		if err := e.rewrite(ctx, n, func(r *openRow) { e.unseed(r, n, false) }); err != nil {
			return err
		}
	}
	return nil
}

// unseed puts the salt in the place of a seed that must go. elsewhere leaves
// alone what only this bundle has.
func (e *eraser) unseed(r *openRow, k uint64, elsewhere bool) bool {
	of, ok := e.seeds[r.open.secret]
	if r.open.kind != kindSeed || !ok || elsewhere && (of == k || e.selects(&r.leaf)) {
		return false
	}
	salt := r.open.salt(&r.leaf.Header)
	r.open.kind, r.open.secret, r.changed = kindSalt, salt, true
	return true
}

func (e *eraser) erase(r *openRow) {
	if r.open.kind == kindErased || !e.selects(&r.leaf) {
		return
	}
	r.open, r.changed = opening{kind: kindErased, erased: e.index}, true
}

// rewrite changes the entries of a bundle and writes what has changed, synced.
// A crash leaves all of it as it was, or all of it changed.
func (e *eraser) rewrite(ctx context.Context, k uint64, change func(*openRow)) (err error) {
	rows, packed, err := e.read(ctx, k)
	if err != nil {
		return err
	}
	changed := false
	for i := range rows {
		change(&rows[i])
		changed = changed || rows[i].changed
	}
	if !changed {
		return nil
	}
	batch := e.s.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	for i := range rows {
		if r := &rows[i]; r.changed && (!packed || r.outside) {
			if err := e.write(batch, r, packed); err != nil {
				return err
			}
		}
	}
	if packed {
		if pass, err := e.passesOver(k, rows); pass || err != nil {
			return err
		}
		if err := e.pack(batch, k, rows); err != nil {
			return err
		}
	}
	if err := e.s.flushKeys(); err != nil {
		return e.s.fail(err)
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return e.s.fail(err)
	}
	e.s.bundles.forget()
	return nil
}

// passesOver reports whether a bundle stays as it is: nobody can pack anew what he
// cannot read. What of it is erased goes with its key. Where anything else would go
// with it, it is an error, and no key is destroyed.
func (e *eraser) passesOver(k uint64, rows []openRow) (bool, error) {
	i := slices.IndexFunc(rows, func(r openRow) bool { return r.lost })
	if i < 0 {
		return false, nil
	}
	for j := range rows {
		if r := &rows[j]; r.changed && r.open.kind != kindErased {
			return false, fmt.Errorf("entry %d of %s would be lost: it is packed together with entry %d, which cannot be read; bring its payload key back (hour from %s)",
				r.leaf.Index, e.l.origin, rows[i].leaf.Index, time.Unix(hourOf(rows[i].leaf.Wall)*3600, 0).UTC().Format(time.RFC3339))
		}
	}
	e.s.cfg.Log.Warn("an erasure passes over entries that cannot be read: they go with their keys", slog.String("origin", e.l.origin), slog.Uint64("bundle", k))
	return true, nil
}

// pack writes the B row anew and reads it back: every entry must still have
// its place in the tree.
func (e *eraser) pack(batch *pebble.Batch, k uint64, rows []openRow) error {
	out := make([]packRow, len(rows))
	for i := range rows {
		out[i] = packRow{leaf: rows[i].leaf, open: rows[i].open}
		if rows[i].outside && rows[i].open.kind != kindErased {
			out[i].open = opening{kind: kindOutside}
		}
	}
	row, err := packBundle(out, e.s.keys, e.l.id)
	if err != nil {
		return err
	}
	b, err := parseBundle(e.l.id, k*tileWidth, row)
	if err != nil {
		return fmt.Errorf("read back what was packed: %w", err)
	}
	if err := b.place(e.s.db, e.l.id); err != nil {
		return err
	}
	for i := range rows {
		if rows[i].fenced {
			continue
		}
		item, err := e.l.entry(b, i)
		if err != nil {
			return err
		}
		if item.Erased != (rows[i].open.kind == kindErased) || !item.Erased && !bytes.Equal(item.Payload, rows[i].open.payload) {
			return corrupt("entry %d of %s is not what was packed", item.Index, e.l.origin)
		}
	}
	return batch.Set(keySeq(tableBundle, e.l.id, k), row, nil)
}

// write replaces the P row of an entry. A packed entry that is erased needs
// none.
func (e *eraser) write(batch *pebble.Batch, r *openRow, packed bool) error {
	key := keySeq(tablePayload, e.l.id, r.leaf.Index)
	if r.open.kind == kindErased {
		if packed {
			return batch.Delete(key, nil)
		}
		return batch.Set(key, binary.BigEndian.AppendUint64([]byte{payloadErased}, r.open.erased), nil)
	}
	n := 1 + len(r.open.secret) + len(r.open.payload)
	entry := Entry{Payload: r.open.payload}
	if r.open.kind == kindSeed {
		entry.Seed = r.open.secret
	} else {
		entry.Salt = r.open.secret
	}
	if e.s.keys == nil {
		row := make([]byte, n)
		putPayload(row, &entry)
		return batch.Set(key, row, nil)
	}
	p, err := e.s.keys.use(e.l.id, kindOf(r.leaf.Origin), hourOf(r.leaf.Wall))
	if err != nil {
		return err
	}
	row := make([]byte, n+sealedRowExtra)
	putPayload(row[sealedRowHead:sealedRowHead+n], &entry)
	if err := e.s.keys.resealRow(p, row, r.leaf.Index); err != nil {
		return err
	}
	return batch.Set(key, row, nil)
}

// read returns the entries of a bundle, which may be the last one and not full,
// and whether it is packed. Of a packed one those that are fenced, or whose key is
// lost, are among them; there are none where all of it is fenced.
func (e *eraser) read(ctx context.Context, k uint64) (rows []openRow, packed bool, err error) {
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	b, err := e.l.bundle(k)
	if err != nil {
		return nil, false, fmt.Errorf("bundle %d of %s cannot be read: %w", k, e.l.origin, err)
	}
	if b != nil {
		rows, err = e.readPacked(b)
		return rows, true, err
	}
	for i := k * tileWidth; i < min(e.l.Size(), (k+1)*tileWidth); i++ {
		if e.l.fenced(i) != nil {
			continue // it has no payload, or one that nobody is shown
		}
		leaf, err := e.l.readLeaf(i)
		if err != nil {
			return nil, false, err
		}
		r := openRow{leaf: leaf}
		if err := e.openOwn(&r); err != nil && !r.lose(err) {
			return nil, false, err
		}
		rows = append(rows, r)
	}
	return rows, false, nil
}

// lose notes that the key of an entry is not there. One that does not fit is
// something else: more likely the entry is damaged.
func (r *openRow) lose(err error) bool {
	if !errors.Is(err, ErrUnreadable) || errors.Is(err, errOtherKey) {
		return false
	}
	r.open, r.lost, r.changed = opening{}, true, false
	return true
}

// openOwn reads the P row of an entry.
func (e *eraser) openOwn(r *openRow) error {
	row, ok, err := get(e.s.db, keySeq(tablePayload, e.l.id, r.leaf.Index))
	if err != nil || !ok {
		return errors.Join(corrupt("payload %d of %s is missing", r.leaf.Index, e.l.origin), err)
	}
	if name, _, sealed := rowKey(row, e.l.id, r.leaf.Origin); sealed && e.s.keys != nil {
		r.changed = e.s.keys.stale(name, hourOf(r.leaf.Wall))
	}
	if r.open, err = e.l.openPayload(row, &r.leaf); err != nil {
		return e.l.badPayload(r.leaf.Index, &r.leaf, err)
	}
	return nil
}

func (e *eraser) readPacked(b *bundle) ([]openRow, error) {
	rows := make([]openRow, tileWidth)
	for i := range rows {
		r := &rows[i]
		r.leaf, r.outside = b.rows[i].leaf, b.rows[i].kind == kindOutside
		if e.l.fenced(r.leaf.Index) != nil {
			// Packed anew it is left out: it is not what the tree says.
			if r.fenced, r.open = true, (opening{kind: kindErased, erased: e.index}); r.outside {
				r.open.kind = kindOutside
			}
			continue
		}
		if err := e.openPacked(b, i, r); err != nil && !r.lose(err) {
			return nil, err
		}
	}
	return rows, nil
}

// openPacked reads an entry of a bundle, and where its payload stands outside that.
func (e *eraser) openPacked(b *bundle, i int, r *openRow) error {
	item, err := e.l.entry(b, i)
	if err != nil {
		return err
	}
	r.leaf = item.Leaf
	if r.outside {
		return e.openOwn(r)
	}
	if r.open, err = b.opening(i, e.s.keys); err != nil {
		return e.l.badPayload(item.Index, &r.leaf, err)
	}
	seg := &b.rows[i].segment.segment
	if name, sealed := seg.key(e.l.id); sealed && packedKind(r.open.kind) && e.s.keys != nil {
		r.changed = e.s.keys.stale(name, seg.hour)
	}
	return nil
}
