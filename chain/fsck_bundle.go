package chain

import (
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// bundle checks one packed bundle. Where an entry cannot be made whole, the
// hash which its tile has stands in for it, so that the others are judged by
// themselves; the checkpoints tell whether that hash is the right one.
func (c *logCheck) bundle(first uint64, row []byte, outside map[uint64]bool) {
	f, l := c.f, c.l
	f.r.Entries += tileWidth
	hashes, err := readTile(f.s.db, l.id, 0, first/tileWidth)
	if err != nil {
		hashes = nil // reported when the tile is full
	}
	b, err := parseBundle(l.id, first, row)
	if err != nil {
		f.find("bundle", l, &first, "entries %d to %d: %v", first, first+tileWidth-1, err)
		for i := range hashes {
			c.grow(hashes[i])
		}
		return
	}
	for i := range b.rows {
		leaf := &b.rows[i].leaf
		leaf.Prev = c.last
		payload, err := c.packedPayload(b, i, outside)
		hash := record.LeafHash(leaf.AppendBinary(make([]byte, 0, record.LeafSize)))
		switch {
		case c.fences.at(leaf.Index) != nil:
			f.r.Fenced++
			c.unread()
		case err != nil:
			c.closed(leaf, err)
		case hashes != nil && hash != hashes[i]:
			f.find("bundle", l, &leaf.Index, "it makes a leaf with hash %s, the tile has %s: bundle or tile was changed", hash, hashes[i])
		case b.rows[i].kind == kindErased:
			c.times(leaf)
			c.gone(leaf, b.rows[i].erased)
			c.grow(hash)
			continue
		default:
			f.r.Payloads++
			c.times(leaf)
			c.opened(leaf, payload)
			c.grow(hash)
			continue
		}
		c.mono, c.wall = leaf.Mono, leaf.Wall
		if hashes != nil {
			hash = hashes[i]
		}
		c.grow(hash)
	}
}

// packedPayload reads the payload of a packed entry and completes its leaf
// with what the payload makes its commitment.
func (c *logCheck) packedPayload(b *bundle, i int, outside map[uint64]bool) ([]byte, error) {
	leaf := &b.rows[i].leaf
	o, err := b.opening(i, c.f.s.keys)
	if err != nil {
		return nil, err
	}
	if o.kind == kindErased {
		return nil, nil
	}
	if o.kind == kindOutside {
		outside[leaf.Index] = true
		row, ok, err := get(c.f.s.db, keySeq(tablePayload, c.l.id, leaf.Index))
		if err != nil {
			c.err = err
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("it is missing")
		}
		if o, err = c.l.openPayload(row, leaf); err != nil {
			return nil, err
		}
	}
	salt := o.salt(&leaf.Header)
	leaf.Commitment = record.Commit(&salt, o.payload)
	return o.payload, nil
}

// gone takes note of an entry whose payload was erased.
func (c *logCheck) gone(leaf *record.Leaf, by uint64) {
	c.f.r.Erased++
	if c.erased[by] == nil {
		c.erased[by] = &indexRuns{}
	}
	c.erased[by].add(leaf.Index)
	if leaf.Origin != record.OriginGuest && !isVerdict(leaf) {
		c.f.find("payload", c.l, &leaf.Index, "it is marked as erased, and only records of guests and verdicts can be")
	}
	if c.f.opts.Frame != nil && !c.l.name.IsHost() {
		if problem := c.frames.entry(c.f, leaf, nil); problem != "" {
			c.f.find("frame", c.l, &leaf.Index, "%s", problem)
		}
	}
}

// checkErased holds what is gone against the entries that say so: else taking
// a payload away by hand would look like erasing it.
func (c *logCheck) checkErased() {
	for by, runs := range c.erased {
		m := c.erasures[by]
		if m == nil && c.cannotRead(by) {
			continue // what erased them may have been said there
		}
		p := newErasure(c.l, by, m)
		for i := range runs.all() {
			if m == nil && c.gap != nil && i < by && by < c.gap.leaves {
				continue // what erased it was pruned, which it was not: it stands in a bundle that stays
			}
			if !inRanges(m.GetRanges(), i) && !p.verdicts[i] {
				c.f.find("payload", c.l, &i, "it is marked as erased by entry %d, which does not say so", by)
			}
		}
	}
}

// closed takes note of a payload that does not open.
func (c *logCheck) closed(leaf *record.Leaf, err error) {
	c.unread()
	if !errors.Is(err, errNoKey) || errors.Is(err, errOtherKey) {
		c.f.find("payload", c.l, &leaf.Index, "%v", err)
		return
	}
	c.f.r.NoKey++
	if errors.Is(err, errKeyDestroyed) && (c.f.opts.restoring || leaf.Mono <= c.f.restored) {
		return // erased behind the backup: what said so was given up with what was restored
	}
	hour := hourOf(leaf.Wall)
	k := c.keyless[hour]
	if k == nil {
		k = &keyless{first: leaf.Index}
		c.keyless[hour] = k
	}
	k.last = leaf.Index
	k.count++
}

// unread keeps what follows from an entry that cannot be read from being
// reported as damage of its own.
func (c *logCheck) unread() {
	c.blind = true
	c.frames.blind, c.frames.broken, c.frames.records = true, true, nil
	c.f.blind = c.f.blind || c.l.name.IsHost()
}

// cannotRead reports whether the check has come to an entry that is fenced, or
// that may be one whose key is not there.
func (c *logCheck) cannotRead(index uint64) bool {
	if c.fences.at(index) != nil {
		return true
	}
	for _, k := range c.keyless {
		if k.first <= index && index <= k.last {
			return true
		}
	}
	return false
}

// fenceRows reads which entries are fenced.
func (c *logCheck) fenceRows() error {
	all, err := loadFences(c.f.s.db, c.l.id)
	if errors.Is(err, record.ErrFatal) {
		c.f.find("fence", c.l, nil, "%v", err)
		return nil
	}
	c.fences = all
	return err
}

// standIn has the hashes of fenced entries from first on, up to before end, stand
// for their leaves. It returns the first one that it has none for.
func (c *logCheck) standIn(first, end uint64) uint64 {
	for ; first < end && c.fences.at(first) != nil; first++ {
		hash, ok := c.fences.hash(first)
		if !ok {
			hashes, err := readTile(c.f.s.db, c.l.id, 0, first/tileWidth)
			if err != nil {
				break // reported with the tile
			}
			hash = hashes[first%tileWidth]
		}
		c.f.r.Entries++
		c.f.r.Fenced++
		c.unread()
		c.grow(hash)
	}
	return first
}
