package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
)

// Forget takes away every word of the payloads of the entries first to last of
// a log, from memory and from the rows on disk; the database deletes the files
// that held them right behind. What the leaves tell stays: the entries are
// still found by log, class and time. It must follow the erasure of the
// payloads, so that an entry that is indexed meanwhile or again is indexed
// without them. It may be repeated.
func (x *Index) Forget(ctx context.Context, id chain.LogID, first, last uint64) error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.mu.Lock()
	x.forgets.Add(1) // what was read before and is not taken in yet is read again
	gone := placesOf(x.open.runs, id, first, last)
	x.open.forget(gone)
	chunks := len(x.zones)
	x.mu.Unlock()
	changed := false
	for c := range uint32(chunks) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		some, err := x.forgetIn(ctx, c, id, first, last)
		if err != nil {
			return fmt.Errorf("forget entries %d to %d of log number %d: %w", first, last, id, err)
		}
		changed = changed || some
	}
	if !changed {
		return nil
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

// placesOf returns the places of a range of a log's entries, nil where there
// are none.
func placesOf(runs []run, id chain.LogID, first, last uint64) *places {
	var p *places
	for _, r := range runs {
		if r.log != id || last < r.index || first >= r.index+uint64(r.count) {
			continue
		}
		if p == nil {
			p = &places{}
		}
		for k := range r.count {
			if i := r.index + uint64(k); i >= first && i <= last {
				p.add(uint16(r.at + k))
			}
		}
	}
	return p
}

// lasting tells terms that come from the leaf.
func lasting(kind byte) bool { return kind == kindLog || kind == kindClass }

func (c *openChunk) forget(gone *places) {
	if gone == nil {
		return
	}
	for t, list := range c.terms {
		if lasting(t[0]) {
			continue
		}
		*list = slices.DeleteFunc(*list, gone.has)
		if len(*list) == 0 {
			delete(c.terms, t)
		}
	}
}

// forgetIn forgets in a chunk on disk and reports whether there was anything.
func (x *Index) forgetIn(ctx context.Context, chunk uint32, id chain.LogID, first, last uint64) (bool, error) {
	var gone *places
	_, err := x.get(keyChunk(tableRuns, chunk), func(b []byte) error {
		runs, err := parseRuns(b, x.zones[chunk].count) // zones only change under writeMu
		gone = placesOf(runs, id, first, last)
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
		if lasting(key[termPrefix]) {
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
	// The rows must be gone before their bytes can be: a deletion only hides
	// them until the tables that hold them are written anew.
	if err := b.Commit(pebble.NoSync); err != nil {
		return false, err
	}
	if err := x.db.Flush(); err != nil {
		return false, err
	}
	return true, x.db.Compact(ctx, lower, endOf(lower), false)
}
