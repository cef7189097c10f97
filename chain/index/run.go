package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// wakeEvery is after how many entries of a backlog waiters look again.
const wakeEvery = 4096

// Run takes entries in as they become durable, until ctx ends. An error means
// that the index cannot go on: the process must end and open it again.
func (x *Index) Run(ctx context.Context) error {
	f := x.cfg.Store.Tail(x.position())
	defer f.Close()
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return nil
		}
		end := x.cfg.Store.End().Commit - 1 // before the look: no entry of it can be missed
		forgets := x.forgets.Load()
		i, ok, err := f.TryNext()
		if err == nil && !ok {
			x.reached(end)
			if i, err = f.Next(ctx); errors.Is(err, context.Canceled) || ctx.Err() != nil {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("index the ledger: %w", err)
		}
		if err := x.take(ctx, &i, forgets); err != nil {
			if ctx.Err() != nil {
				return nil // the entry is taken in by the next run
			}
			return fmt.Errorf("index entry %d of %s: %w", i.Index, i.Log.Origin(), err)
		}
		if n%wakeEvery == 0 {
			x.reached(i.Pos.Commit - 1)
		}
	}
}

// reached notes that every commit up to this one is indexed.
func (x *Index) reached(commit uint64) {
	x.commit.Store(commit)
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.wake)
	x.wake = make(chan struct{})
}

// take takes in one entry, which was read when Forget had been called so many
// times, and writes the chunk that it fills.
func (x *Index) take(ctx context.Context, i *chain.Item, forgets uint64) error {
	m := decode(i)
	if e, ok := m.(*record.Erased); ok {
		// All entries that it names come before it, so their words are here.
		// They go before it is taken in: a crash in between repeats them.
		if err := x.erased(ctx, i, e); err != nil {
			return err
		}
		forgets = x.forgets.Load() // this entry is not one of them
	}
	if p, ok := m.(*record.Pruned); ok && p.Range.GetLast() < i.Index { // of leaves or of tiles: what the index has is gone with either
		if err := x.pruned(ctx, i, p); err != nil {
			return err
		}
		forgets = x.forgets.Load()
	}
	if d, ok := m.(*record.Dropped); ok && i.Log.Name().IsHost() && i.Leaf.Origin == record.OriginHost {
		if err := x.dropped(ctx, i, d); err != nil {
			return err
		}
		forgets = x.forgets.Load()
	}
	full, err := x.add(i, m, forgets)
	if err != nil || !full {
		return err
	}
	return x.flush()
}

// erased forgets what an entry says was erased.
func (x *Index) erased(ctx context.Context, i *chain.Item, e *record.Erased) error {
	ranges := make([]proof.Range, 0, len(e.Ranges))
	for _, r := range e.Ranges {
		ranges = append(ranges, proof.Range{First: r.First, Last: r.Last})
	}
	for _, v := range e.Verdicts {
		for _, at := range v.Entries {
			ranges = append(ranges, proof.Range{First: at, Last: at})
		}
	}
	if len(ranges) == 0 {
		return nil // records of an earlier shard, which nothing here quotes
	}
	if err := x.Forget(ctx, i.Log.ID(), ranges); err != nil {
		return err
	}
	x.cfg.Log.InfoContext(ctx, "index forgot what was erased", slog.String("log", i.Log.Origin()), slog.Uint64("entry", i.Index), slog.Uint64("records", e.Records))
	return nil
}

// pruned forgets entries as a whole: they are not there any more.
func (x *Index) pruned(ctx context.Context, i *chain.Item, p *record.Pruned) error {
	if err := x.forget(ctx, i.Log.ID(), []proof.Range{{First: p.Range.GetFirst(), Last: p.Range.GetLast()}}, true); err != nil {
		return err
	}
	x.cfg.Log.InfoContext(ctx, "index forgot what was pruned", slog.String("log", i.Log.Origin()), slog.Uint64("entry", i.Index))
	return nil
}

// dropped forgets a log as a whole.
func (x *Index) dropped(ctx context.Context, i *chain.Item, d *record.Dropped) error {
	l, ok := x.cfg.Store.LogByOrigin(d.Origin)
	if !ok || l.Gone() == nil || l.Size() == 0 {
		return nil // of a ledger that was restored from before
	}
	if err := x.forget(ctx, l.ID(), []proof.Range{{First: 0, Last: l.Size() - 1}}, true); err != nil {
		return err
	}
	x.cfg.Log.InfoContext(ctx, "index forgot a log that was dropped", slog.String("log", l.Origin()), slog.Uint64("entry", i.Index))
	return nil
}

func (x *Index) add(i *chain.Item, m record.Message, forgets uint64) (full bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.forgets.Load() != forgets {
		now, err := i.Log.Look(i.Index)
		if errors.Is(err, chain.ErrPruned) {
			now, err = *i, nil // words are in it no more: they go first
			now.Payload, now.Erased = nil, true
		}
		if err != nil {
			return false, err
		}
		m = decode(&now)
	}
	x.open.add(i, m)
	x.entries.Add(1)
	return x.open.full(), nil
}

// decode returns an entry's payload, or nil where there is none to be read: a
// payload that was erased, or one of a newer author.
func decode(i *chain.Item) record.Message {
	if m, err := i.Decode(); err == nil {
		return m
	}
	return nil
}

// flush writes the open chunk and begins the next one. A crash before the batch
// is durable loses the chunk as a whole: it is indexed again.
func (x *Index) flush() error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	c, chunk := x.open, uint32(len(x.zones)) // nobody else replaces them
	b := x.db.NewBatch()
	defer b.Close()
	if err := c.write(b, chunk); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("write chunk %d: %w", chunk, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.zones = append(x.zones, c.zone)
	x.open = newChunk(c.first + uint64(c.count))
	return nil
}

func (c *openChunk) write(b *pebble.Batch, chunk uint32) error {
	names := make([]string, 0, len(c.terms))
	for term := range c.terms {
		names = append(names, term)
	}
	slices.Sort(names)
	var value []byte
	for _, term := range names {
		value = appendPlaces(value[:0], *c.terms[term])
		if err := b.Set(keyTerm(chunk, []byte(term)), value, nil); err != nil {
			return err
		}
	}
	for k, boot := range c.sessions {
		if err := b.Set(keySession(k.log, k.session), boot[:], nil); err != nil {
			return err
		}
	}
	if err := b.Set(keyChunk(tableRuns, chunk), appendRuns(nil, c.runs), nil); err != nil {
		return err
	}
	return b.Set(keyChunk(tableZone, chunk), c.zone.append(nil), nil)
}

// bootOf returns the boot id of the guest in which an agent's session ran.
func (x *Index) bootOf(id chain.LogID, session uint64) (boot [16]byte, ok bool, err error) {
	x.mu.RLock()
	boot, ok = x.open.sessions[sessionKey{id, session}]
	x.mu.RUnlock()
	if ok {
		return boot, true, nil
	}
	ok, err = x.get(keySession(id, session), func(b []byte) error {
		if len(b) != 16 {
			return fmt.Errorf("boot id of %d bytes", len(b))
		}
		boot = [16]byte(b)
		return nil
	})
	return boot, ok, err
}
