package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// rowIters go through the rows of the entries of one log, side by side: of a bundle
// there is either one row that stands for all its entries, or a leaf and a payload for
// each. The latter are the newest ones, and those that could not be packed.
type rowIters struct {
	bundleRows, leafRows, payloadRows *pebble.Iterator
	used                              bool // the payload that the iterator stands on
}

func (c *logCheck) openRows() (err error) {
	for table, it := range map[byte]**pebble.Iterator{tableBundle: &c.bundleRows, tableEntry: &c.leafRows, tablePayload: &c.payloadRows} {
		if *it, err = c.f.s.db.NewIter(iterBounds(keyLog(table, c.l.id))); err != nil {
			c.closeRows()
			return err
		}
		(*it).First()
	}
	return nil
}

// closeRows ends the iterators, whose errors were asked for.
func (c *logCheck) closeRows() {
	for _, it := range []*pebble.Iterator{c.bundleRows, c.leafRows, c.payloadRows} {
		if it != nil {
			_ = it.Close()
		}
	}
}

// number returns the number in the key that an iterator stands on; ok is false behind
// the last one. Keys of another length belong to nothing, and are reported.
func (c *logCheck) number(it *pebble.Iterator) (n uint64, ok bool) {
	for ; it.Valid(); it.Next() {
		if len(it.Key()) == keySeqSize {
			return binary.BigEndian.Uint64(it.Key()[5:]), true
		}
		c.f.find("row", c.l, nil, "key %x belongs to no table", it.Key())
	}
	return 0, false
}

// bundles checks the entries of a log in order, bundle after bundle.
func (c *logCheck) bundles(ctx context.Context) error {
	for {
		k, packed := c.number(c.bundleRows)
		index, loose := c.number(c.leafRows)
		switch {
		case packed && (!loose || k <= index/tileWidth):
			if err := c.packedBundle(ctx, k); err != nil {
				return err
			}
			c.bundleRows.Next()
		case loose:
			if err := c.looseBundle(ctx, index/tileWidth); err != nil {
				return err
			}
		default:
			if err := errors.Join(c.bundleRows.Error(), c.leafRows.Error()); err != nil || c.gap == nil {
				return err
			}
			return errors.Join(c.overPruned(c.gap.leaves), c.pinnedBundles())
		}
	}
}

// packedBundle checks the bundle that the iterator stands on, and that its entries have
// no other rows.
func (c *logCheck) packedBundle(ctx context.Context, k uint64) error {
	f, l, first := c.f, c.l, k*tileWidth
	row, err := c.bundleRows.ValueAndErr()
	if err != nil {
		return fmt.Errorf("read bundle %d of %s: %w", k, l.origin, err)
	}
	if k >= c.head.size/tileWidth {
		f.find("bundle", l, &first, "it lies behind the head, which says size %d", c.head.size)
		return nil
	}
	done, err := c.prunedBundle(first, row)
	if err != nil {
		return err
	}
	outside := map[uint64]bool{}
	if !done {
		if err := errors.Join(c.overPruned(first), c.progress(ctx, first)); err != nil {
			return err
		}
		if c.next = c.standIn(c.next, first); first != c.next {
			f.find("bundle", l, &c.next, "entries %d to %d are missing", c.next, first-1)
			c.lack(first)
		}
		c.bundle(first, row, outside)
		c.next = first + tileWidth
		f.r.Packed += tileWidth
	}
	for index, ok := c.number(c.leafRows); ok && index < first+tileWidth; index, ok = c.number(c.leafRows) {
		f.find("leaf", l, &index, "it has a row of its own, but it is packed")
		c.leafRows.Next()
	}
	c.payloadsTo(first, nil)
	c.payloadsTo(first+tileWidth, func(at uint64) string {
		if outside[at] {
			return ""
		}
		return "it has a row of its own, but it is packed"
	})
	return errors.Join(c.err, c.leafRows.Error(), c.payloadRows.Error())
}

// looseBundle checks the entries of a bundle that have rows of their own, from the one
// on that the iterator stands on.
func (c *logCheck) looseBundle(ctx context.Context, k uint64) error {
	first := k * tileWidth
	done, err := c.prunedRows(first)
	if err == nil && !done {
		err = errors.Join(c.overPruned(first), c.progress(ctx, first))
	}
	if err != nil {
		return err
	}
	for index, ok := c.number(c.leafRows); ok && index/tileWidth == k; index, ok = c.number(c.leafRows) {
		row, err := c.leafRows.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read leaf %d of %s: %w", index, c.l.origin, err)
		}
		if !done {
			c.loose(index, row)
		}
		if c.err != nil {
			return c.err
		}
		c.leafRows.Next()
	}
	return c.leafRows.Error()
}

// loose checks an entry that has rows of its own.
func (c *logCheck) loose(index uint64, row []byte) {
	if index >= c.head.size {
		c.f.find("leaf", c.l, &index, "it lies behind the head, which says size %d", c.head.size)
		if index != c.next {
			return
		}
	}
	if c.next = c.standIn(c.next, index); c.next != index {
		c.f.find("leaf", c.l, &c.next, "leaves %d to %d are missing", c.next, index-1)
		c.lack(index)
	}
	c.leaf(index, row, c.payload(index))
	c.next++
}

// lack goes on at an entry behind some that are missing, which is reported. What has
// their hashes stands in for them, so that what follows is judged by itself. Where no
// tile is there, the tree cannot fit any more.
func (c *logCheck) lack(index uint64) {
	c.unread()
	for c.next < index {
		hashes, err := readTile(c.f.s.db, c.l.id, 0, c.next/tileWidth)
		if err != nil {
			c.next = index
			return // reported with the tile, or no tile is full there
		}
		for end := min(index, (c.next/tileWidth+1)*tileWidth); c.next < end; c.next++ {
			c.grow(hashes[c.next%tileWidth])
		}
	}
}

// payload returns the P row of the entry whose turn it is, nil where it is missing.
func (c *logCheck) payload(index uint64) []byte {
	c.payloadsTo(index, nil)
	if at, ok := c.number(c.payloadRows); ok && at == index {
		row, err := c.payloadRows.ValueAndErr()
		if err != nil {
			c.err = fmt.Errorf("read payload %d of %s: %w", index, c.l.origin, err)
			return nil
		}
		c.used = true
		return row
	}
	if c.fences.at(index) == nil {
		c.f.find("payload", c.l, &index, "it is missing")
		return nil
	}
	c.f.r.Fenced++
	c.unread()
	return nil
}

// payloadsTo moves on to the P row of an entry, or the first one behind it. problem says
// what is wrong with a row before that nobody has asked for; nil: it has no leaf.
func (c *logCheck) payloadsTo(index uint64, problem func(at uint64) string) {
	if c.used {
		c.payloadRows.Next()
		c.used = false
	}
	for at, ok := c.number(c.payloadRows); ok && at < index; at, ok = c.number(c.payloadRows) {
		text := "it has no leaf"
		switch {
		case c.gap != nil && at < c.gap.leaves && (c.gap.pending || c.gap.pinned(at/tileWidth)):
			text = ""
		case c.gap != nil && at < c.gap.leaves:
			text = fmt.Sprintf("it was pruned, by entry %d, and is still there", c.gap.leavesBy)
		case problem != nil:
			text = problem(at)
		}
		if text != "" {
			c.f.find("payload", c.l, &at, "%s", text)
		}
		c.payloadRows.Next()
	}
}

// strayPayloads looks for payloads behind the last entry.
func (c *logCheck) strayPayloads() error {
	c.payloadsTo(^uint64(0), nil)
	if at, ok := c.number(c.payloadRows); ok { // no entry has that number
		c.f.find("payload", c.l, &at, "it has no leaf")
	}
	return c.payloadRows.Error()
}
