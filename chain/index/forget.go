package index

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
)

// Forget takes away every word of the payloads of some entries of a log, from
// memory and from the rows on disk; the database deletes the files that held
// them right behind. What the leaves tell stays: the entries are still found by
// log, class and time. It must follow the erasure of the payloads or stand ahead
// of the entry that tells of it, so that an entry which is indexed meanwhile or
// again does not bring its words back. It may be repeated.
func (x *Index) Forget(ctx context.Context, id chain.LogID, ranges []proof.Range) error {
	return x.forget(ctx, id, ranges, false)
}

// forget is Forget; all takes away what the leaves tell as well.
func (x *Index) forget(ctx context.Context, id chain.LogID, ranges []proof.Range, all bool) error {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b proof.Range) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(ranges); i++ { // overlapping ones are still found by halving
		ranges[i].Last = max(ranges[i].Last, ranges[i-1].Last)
	}
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.mu.Lock()
	x.forgets.Add(1) // what was read before and is not taken in yet is read again
	gone := placesOf(x.open.runs, id, ranges)
	x.open.forget(gone, all)
	chunks := len(x.zones)
	x.mu.Unlock()
	var changed []uint32
	for c := range uint32(chunks) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		some, err := x.forgetIn(c, id, ranges, all)
		if err != nil {
			return fmt.Errorf("forget words of log number %d: %w", id, err)
		}
		if some {
			changed = append(changed, c)
		}
	}
	// An earlier call may have ended between the rows and their files, so this
	// is done whenever there is a chunk that could have held words.
	if len(changed) == 0 {
		return nil
	}
	// A deletion only hides rows until the tables that hold them are written
	// anew.
	lower, upper := keyChunk(tableTerm, changed[0]), endOf(keyChunk(tableTerm, changed[len(changed)-1]))
	if err := x.db.Flush(); err != nil {
		return fmt.Errorf("forget words of log number %d: %w", id, err)
	}
	if err := x.db.Compact(ctx, lower, upper, false); err != nil {
		return fmt.Errorf("forget words of log number %d: %w", id, err)
	}
	// The database notes the first and last key of each file in a manifest, of
	// which it keeps the one before: two openings leave none that was written
	// while the words were there.
	return errors.Join(x.reopen(), x.reopen())
}

// reopen opens the database anew while nobody reads. Where it fails the index
// is of no use, and the process ends.
func (x *Index) reopen() error {
	x.dbMu.Lock()
	defer x.dbMu.Unlock()
	err := errors.Join(x.db.Flush(), x.db.Close())
	if err == nil {
		var db *pebble.DB
		if db, err = pebble.Open(x.cfg.Dir, options(x.cfg, x.lock)); err == nil {
			x.db = db
			return nil
		}
	}
	x.cfg.Log.Error("index cannot be opened again, the process ends and recovers on its next start", slog.Any("error", err))
	x.cfg.Exit(3)
	return fmt.Errorf("open index again: %w", err)
}

// placesOf returns the places of ranges of a log's entries, nil where there are
// none. The ranges are in order.
func placesOf(runs []run, id chain.LogID, ranges []proof.Range) *places {
	var p *places
	for _, r := range runs {
		if r.log != id {
			continue
		}
		end := r.index + uint64(r.count)
		from := sort.Search(len(ranges), func(i int) bool { return ranges[i].Last >= r.index })
		for _, g := range ranges[from:] {
			if g.First >= end {
				break
			}
			if p == nil {
				p = &places{}
			}
			for i := max(g.First, r.index); i <= g.Last && i < end; i++ {
				p.add(uint16(uint64(r.at) + i - r.index))
			}
		}
	}
	return p
}

// lasting tells terms that come from the leaf.
func lasting(kind byte) bool { return kind == kindLog || kind == kindClass }

func (c *openChunk) forget(gone *places, all bool) {
	if gone == nil {
		return
	}
	for t, list := range c.terms {
		if lasting(t[0]) && !all {
			continue
		}
		*list = slices.DeleteFunc(*list, gone.has)
		if len(*list) == 0 {
			delete(c.terms, t)
		}
	}
}

// forgetIn forgets in a chunk on disk and reports whether any of the entries are
// in it.
func (x *Index) forgetIn(chunk uint32, id chain.LogID, ranges []proof.Range, leaves bool) (bool, error) {
	var gone *places
	_, err := x.get(keyChunk(tableRuns, chunk), func(b []byte) error {
		runs, err := parseRuns(b, x.zones[chunk].count) // zones only change under writeMu
		gone = placesOf(runs, id, ranges)
		return err
	})
	if err != nil || gone == nil {
		return false, err
	}
	b := x.db.NewBatch()
	defer b.Close()
	lower := keyChunk(tableTerm, chunk)
	err = x.scan(lower, endOf(lower), func(key, value []byte) (bool, error) {
		var all places
		if lasting(key[termPrefix]) && !leaves {
			return true, nil
		}
		if err := all.addPlaces(value); err != nil {
			return false, err
		}
		list := all.list()
		left := slices.DeleteFunc(slices.Clone(list), gone.has)
		switch {
		case len(left) == len(list):
			return true, nil
		case len(left) == 0:
			return true, b.Delete(bytes.Clone(key), nil)
		}
		return true, b.Set(bytes.Clone(key), appendPlaces(nil, left), nil)
	})
	if err != nil {
		return false, err
	}
	return true, b.Commit(pebble.NoSync)
}
