package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// Of every leaf hash there are two witnesses: the rows of the entry, and the tile
// above it (for the newest entries, which no full tile holds, the entry behind
// them, which quotes their hash). Where the two differ, what was signed decides:
// of all ways to choose, those are kept whose root is that of the next signed
// checkpoint. Rows that turn out to be wrong are rebuilt where they are derived
// and fenced off where they are evidence.

// maxGuesses bounds how many ways to choose are followed at once.
const maxGuesses = 64

// logRepair is the repair of one log.
type logRepair struct {
	r       *repairer
	l       *Log
	size    uint64
	head    head
	hasHead bool
	claimed repairClaims
	fenced  fences  // of before
	pruned  *pruned // what is not kept; nil: all is

	dropped fences // new ones

	archived bool // the log was dropped as a whole: an archive has it
}

// keepDropped checks what is left of a log that was dropped. Nothing of it follows from
// other rows, so what is damaged cannot be mended here.
func (p *logRepair) keepDropped(row []byte) error {
	d, err := parseDropped(row)
	if err != nil {
		return err
	}
	if !p.hasHead {
		return fmt.Errorf("it was dropped, and its head is gone")
	}
	t, err := d.tree(p.r.s.db, p.l.id, p.head.size)
	if err != nil {
		return err
	}
	if root := t.root(); root != foldEdge(p.head.edge) {
		return fmt.Errorf("it was dropped, and what is left of it has root %s, its head %s", root, foldEdge(p.head.edge))
	}
	p.size, p.archived = p.head.size, true
	return nil
}

// guess is one way to choose.
type guess struct {
	tree tree
	last record.Hash
	tile map[uint64]bool        // blocks where the tile is believed, and not the rows
	leaf map[uint64]record.Hash // leaves of the last block where another hash is believed
}

func (g *guess) fork() *guess {
	c := &guess{tree: g.tree.clone(), last: g.last, tile: map[uint64]bool{}, leaf: map[uint64]record.Hash{}}
	for i := range c.tree.tails { // two that grow must not share arrays
		c.tree.tails[i].nodes = slices.Clone(c.tree.tails[i].nodes)
	}
	for k := range g.tile {
		c.tile[k] = true
	}
	for k, h := range g.leaf {
		c.leaf[k] = h
	}
	return c
}

// decide finds the one way to choose that was signed.
func (p *logRepair) decide(ctx context.Context) (*guess, error) {
	first, err := p.begin()
	if err != nil {
		return nil, err
	}
	all := []*guess{first}
	for n := first.tree.size / tileWidth; n < p.size/tileWidth; n++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if all, err = p.decideTile(n, all); err != nil {
			return nil, err
		}
	}
	for i := p.size &^ (tileWidth - 1); i < p.size; i++ {
		if all, err = p.decideLeaf(i, all); err != nil {
			return nil, err
		}
	}
	if p.hasHead && len(all) > 1 {
		if kept := slices.DeleteFunc(slices.Clone(all), func(g *guess) bool { return g.tree.root() != foldEdge(p.head.edge) }); len(kept) > 0 {
			all = kept
		}
	}
	if len(all) > 1 {
		return nil, fmt.Errorf("%d ways to choose between rows and tiles are left behind the newest signed checkpoint: nothing says which one is right", len(all))
	}
	return all[0], nil
}

// begin returns the tree behind what was pruned: the tiles that stay make it.
func (p *logRepair) begin() (*guess, error) {
	g := &guess{tile: map[uint64]bool{}, leaf: map[uint64]record.Hash{}}
	if p.pruned == nil || p.pruned.tiles == 0 {
		return g, nil
	}
	var err error
	if g.tree.tails, err = loadTails(p.r.s.db, p.l.id, p.pruned.tiles, nil, hashTiles); err != nil {
		return nil, fmt.Errorf("the tree before entry %d, whose entries are pruned: %w", p.pruned.tiles, err)
	}
	g.tree.size = p.pruned.tiles
	before, err := readTile(p.r.s.db, p.l.id, 0, p.pruned.tiles/tileWidth-1)
	if err != nil {
		return nil, err
	}
	g.last = before[tileWidth-1]
	return g, nil
}

// gone reports whether the rows of a block were pruned.
func (p *logRepair) gone(block uint64) bool {
	return p.pruned != nil && block < p.pruned.leaves/tileWidth && !p.pruned.pinned(block)
}

// decideTile follows every guess over one full tile.
func (p *logRepair) decideTile(n uint64, all []*guess) ([]*guess, error) {
	stored, err := readTile(p.r.s.db, p.l.id, 0, n)
	if err != nil && !errors.Is(err, record.ErrFatal) {
		return nil, err
	}
	var next []*guess
	var sets [][]record.Hash
	for _, g := range all {
		made, err := p.rowHashes(n, g.last)
		if err != nil {
			return nil, err
		}
		switch {
		case made == nil && stored == nil:
			return nil, fmt.Errorf("entries %d to %d are gone, and so is the tile that has their hashes", n*tileWidth, (n+1)*tileWidth-1)
		case made == nil || stored != nil && !slices.Equal(made, stored):
			if made != nil {
				next, sets = append(next, g.fork()), append(sets, made)
			}
			g.tile[n] = true
			next, sets = append(next, g), append(sets, stored)
		default:
			next, sets = append(next, g), append(sets, made)
		}
	}
	for i := range tileWidth {
		for k, g := range next {
			g.last = sets[k][i]
			g.tree.push(g.last, func(fullTile) {})
		}
		if next, sets, err = p.signed(n*tileWidth+uint64(i)+1, next, sets); err != nil {
			return nil, err
		}
	}
	return p.bounded(next)
}

// decideLeaf follows every guess over one leaf of the last block.
func (p *logRepair) decideLeaf(index uint64, all []*guess) ([]*guess, error) {
	var choices []record.Hash
	row, ok, err := get(p.r.s.db, keySeq(tableEntry, p.l.id, index))
	if err != nil {
		return nil, err
	}
	if ok {
		choices = append(choices, record.LeafHash(row))
	}
	if h, ok := p.fenced.hash(index); ok {
		choices = append(choices, h)
	}
	if index+1 == p.size && p.hasHead && p.head.size == p.size {
		choices = append(choices, p.head.last)
	}
	if row, ok, err := get(p.r.s.db, keySeq(tableEntry, p.l.id, index+1)); err != nil {
		return nil, err
	} else if leaf, err := record.ParseLeaf(row); ok && err == nil {
		choices = append(choices, leaf.Prev)
	}
	var next []*guess
	for i, h := range choices {
		if slices.Contains(choices[:i], h) {
			continue
		}
		for _, g := range all {
			f := g.fork()
			f.last, f.leaf[index] = h, h
			f.tree.push(h, func(fullTile) {})
			next = append(next, f)
		}
	}
	if len(next) == 0 {
		return nil, fmt.Errorf("entry %d is gone, and nothing has its hash", index)
	}
	if next, _, err = p.signed(index+1, next, nil); err != nil {
		return nil, err
	}
	return p.bounded(next)
}

func (p *logRepair) bounded(all []*guess) ([]*guess, error) {
	if len(all) > maxGuesses {
		return nil, fmt.Errorf("too much is damaged between two signed checkpoints to tell what is right")
	}
	return all, nil
}

// signed keeps the guesses that make what was signed for this size.
func (p *logRepair) signed(size uint64, all []*guess, sets [][]record.Hash) ([]*guess, [][]record.Hash, error) {
	claims, err := p.claimed.at(size)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range claims {
		var kept []*guess
		var keptSets [][]record.Hash
		for i, g := range all {
			if g.tree.root() == c.root {
				kept = append(kept, g)
				if sets != nil {
					keptSets = append(keptSets, sets[i])
				}
			}
		}
		if len(kept) == 0 {
			return nil, nil, fmt.Errorf("neither rows nor tiles make what was signed for size %d (%s)", size, c.table)
		}
		all, sets = kept, keptSets
	}
	return all, sets, nil
}

// rowHashes returns the leaf hashes that the rows of a block make by themselves,
// nil where one of them does not say.
func (p *logRepair) rowHashes(n uint64, prev record.Hash) ([]record.Hash, error) {
	b, err := p.bundle(n)
	if err != nil {
		return nil, err
	}
	hashes := make([]record.Hash, 0, tileWidth)
	for i := range tileWidth {
		index := n*tileWidth + uint64(i)
		if b == nil {
			row, ok, err := get(p.r.s.db, keySeq(tableEntry, p.l.id, index))
			if err != nil {
				return nil, err
			}
			if _, perr := record.ParseLeaf(row); !ok || perr != nil {
				return nil, nil
			}
			hashes = append(hashes, record.LeafHash(row))
			continue
		}
		leaf, _, err := p.packed(b, i, prev)
		if err != nil {
			return nil, nil
		}
		prev = record.LeafHash(leaf.AppendBinary(nil))
		hashes = append(hashes, prev)
	}
	return hashes, nil
}

// bundle returns the packed bundle of a block, nil where there is none that can
// be read.
func (p *logRepair) bundle(n uint64) (*bundle, error) {
	row, ok, err := get(p.r.s.db, keySeq(tableBundle, p.l.id, n))
	if err != nil || !ok {
		return nil, err
	}
	b, err := parseBundle(p.l.id, n*tileWidth, row)
	if err != nil {
		return nil, nil
	}
	return b, nil
}

// packed makes the leaf of an entry of a bundle, with the payload.
func (p *logRepair) packed(b *bundle, i int, prev record.Hash) (record.Leaf, opening, error) {
	leaf := b.rows[i].leaf
	leaf.Prev = prev
	o, err := b.opening(i, p.r.s.keys)
	if err == nil && o.kind == kindOutside {
		var row []byte
		var ok bool
		if row, ok, err = get(p.r.s.db, keySeq(tablePayload, p.l.id, leaf.Index)); err == nil && !ok {
			err = errors.New("its payload is missing")
		}
		if err == nil {
			o, err = p.l.openPayload(row, &leaf)
		}
	}
	if err != nil {
		return leaf, o, err
	}
	if o.kind != kindErased {
		salt := o.salt(&leaf.Header)
		leaf.Commitment = record.Commit(&salt, o.payload)
	}
	return leaf, o, nil
}

// settle writes the tree that was decided on and fences what does not fit it.
func (p *logRepair) settle(ctx context.Context, g *guess) (err error) {
	p.dropped = nil
	start, err := p.begin()
	if err != nil {
		return err
	}
	t, last := start.tree, start.last
	rebuilt := 0
	emit := func(f fullTile) {
		row := make([]byte, 0, tileWidth*len(last))
		for i := range f.hashes {
			row = append(row, f.hashes[i][:]...)
		}
		key := keyTile(p.l.id, f.level, f.index)
		old, ok, gerr := get(p.r.s.db, key)
		if gerr == nil && (!ok || string(old) != string(row)) {
			rebuilt++
			gerr = p.r.s.db.Set(key, row, pebble.NoSync)
		}
		err = errors.Join(err, gerr)
	}
	leaf := record.Leaf{}
	for first := t.size; first < p.size; first += tileWidth {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hashes, herr := p.chosen(g, first, last)
		if herr != nil {
			return herr
		}
		if !p.gone(first / tileWidth) {
			if leaf, err = p.entries(first, hashes, last); err != nil {
				return err
			}
		}
		for _, h := range hashes {
			last = h
			if t.push(h, emit); err != nil {
				return err
			}
		}
	}
	if rebuilt > 0 {
		p.r.did(p.l, "tile", 0, 0, "rebuilt", "%d full tiles were missing or differed from what is signed", rebuilt)
	}
	if err := p.strayTiles(); err != nil {
		return err
	}
	if err := p.writeFences(); err != nil {
		return err
	}
	return p.writeHead(&t, last, &leaf)
}

// chosen returns the hashes of a block as they were decided.
func (p *logRepair) chosen(g *guess, first uint64, last record.Hash) ([]record.Hash, error) {
	if first+tileWidth > p.size {
		var hashes []record.Hash
		for i := first; i < p.size; i++ {
			hashes = append(hashes, g.leaf[i])
		}
		return hashes, nil
	}
	if g.tile[first/tileWidth] {
		return readTile(p.r.s.db, p.l.id, 0, first/tileWidth)
	}
	return p.rowHashes(first/tileWidth, last)
}

// entries compares the rows of a block with its hashes. It returns the last leaf
// that can be read.
func (p *logRepair) entries(first uint64, hashes []record.Hash, prev record.Hash) (last record.Leaf, err error) {
	full := len(hashes) == tileWidth
	var b *bundle
	if full {
		if b, err = p.bundle(first / tileWidth); err != nil {
			return last, err
		}
		if b == nil { // there is none, or one that nothing can be read of
			if err := p.r.s.db.Delete(keySeq(tableBundle, p.l.id, first/tileWidth), pebble.NoSync); err != nil {
				return last, err
			}
		}
	}
	for i, want := range hashes {
		index := first + uint64(i)
		problem := ""
		var leaf record.Leaf
		var o opening
		if b != nil {
			leaf, o, err = p.packed(b, i, prev)
			if err == nil && record.LeafHash(leaf.AppendBinary(nil)) != want {
				problem = "the packed bundle does not make what is in the tree"
			}
		} else {
			leaf, o, problem, err = p.rows(index, want)
		}
		prev = want
		switch {
		case p.fenced.at(index) != nil:
			continue
		case err != nil && errors.Is(err, errNoKey) && !errors.Is(err, errOtherKey) && problem == "":
			last = leaf // not damaged: its key is not there
			continue
		case err != nil && problem == "":
			problem = err.Error()
		}
		if problem == "" {
			last = leaf
			if err := p.r.sound(p.l, &leaf, &o); err != nil {
				return last, err
			}
			continue
		}
		if err := p.drop(index, want, full, b != nil, problem); err != nil {
			return last, err
		}
	}
	return last, nil
}

// rows reads the rows of an entry that is not packed.
func (p *logRepair) rows(index uint64, want record.Hash) (leaf record.Leaf, o opening, problem string, err error) {
	row, ok, err := get(p.r.s.db, keySeq(tableEntry, p.l.id, index))
	if err != nil {
		return leaf, o, "", err
	}
	if !ok {
		return leaf, o, "its leaf cannot be read", nil
	}
	if record.LeafHash(row) != want {
		return leaf, o, "its leaf was changed", nil
	}
	if leaf, err = record.ParseLeaf(row); err != nil {
		return leaf, o, err.Error(), nil
	}
	row, ok, err = get(p.r.s.db, keySeq(tablePayload, p.l.id, index))
	if err != nil {
		return leaf, o, "", err
	}
	if !ok {
		return leaf, o, "its payload cannot be read", nil
	}
	if o, err = p.l.openPayload(row, &leaf); err != nil || o.kind == kindErased {
		return leaf, o, "", err
	}
	if salt := o.salt(&leaf.Header); record.Commit(&salt, o.payload) != leaf.Commitment {
		problem = "its payload was changed"
	}
	return leaf, o, problem, nil
}

// drop takes away rows that are wrong, but for a leaf that is right and a bundle
// that others need, and remembers the fence.
func (p *logRepair) drop(index uint64, want record.Hash, full, packed bool, problem string) error {
	f := fence{first: index, last: index, reason: problem}
	if !full {
		f.hashes = []record.Hash{want}
	}
	// Neighbours in a bundle become one: there may be millions of them.
	if n := len(p.dropped); n > 0 && p.dropped[n-1].last+1 == index && p.dropped[n-1].first/tileWidth == index/tileWidth && p.dropped[n-1].reason == problem {
		p.dropped[n-1].last = index
		p.dropped[n-1].hashes = append(p.dropped[n-1].hashes, f.hashes...)
	} else {
		p.dropped = append(p.dropped, f)
	}
	db := p.r.s.db
	if packed {
		return nil
	}
	if err := db.Delete(keySeq(tablePayload, p.l.id, index), pebble.NoSync); err != nil {
		return err
	}
	if row, ok, err := get(db, keySeq(tableEntry, p.l.id, index)); err != nil || !ok || record.LeafHash(row) == want {
		return err
	}
	return db.Delete(keySeq(tableEntry, p.l.id, index), pebble.NoSync)
}

// strayTiles takes away tiles that the log is too short for.
func (p *logRepair) strayTiles() error {
	n := 0
	err := scan(p.r.s.db, keyLog(tableTile, p.l.id), func(key, _ []byte) error {
		if len(key) == keySeqSize+1 && key[5] < 8 && binary.BigEndian.Uint64(key[6:]) < p.size>>(tileHeight*(uint(key[5])+1)) {
			return nil
		}
		n++
		return p.r.s.db.Delete(slices.Clone(key), pebble.NoSync)
	})
	if n > 0 {
		p.r.did(p.l, "tile", 0, 0, "dropped", "%d tiles lie behind the end of the log", n)
	}
	return err
}

// writeFences makes rows of what was dropped.
func (p *logRepair) writeFences() error {
	for _, f := range p.dropped {
		if err := p.r.s.db.Set(keyFence(p.l.id, f.first), f.append(nil), pebble.NoSync); err != nil {
			return err
		}
	}
	for _, f := range p.dropped.spans() {
		p.r.did(p.l, "entry", f.first, f.last, "fenced", "%s", f.reason)
	}
	return nil
}

func (p *logRepair) writeHead(t *tree, last record.Hash, leaf *record.Leaf) error {
	h := head{size: p.size, last: last, mono: leaf.Mono, wall: leaf.Wall, edge: t.edge()}
	if leaf.Index != p.size-1 && p.hasHead { // the last leaf cannot be read
		h.mono, h.wall = max(p.head.mono, leaf.Mono), p.head.wall
	}
	old, ok, err := get(p.r.s.db, keyLog(tableHead, p.l.id))
	if err != nil || ok && string(old) == string(h.append(nil)) {
		return err
	}
	p.r.did(p.l, "head", 0, 0, "rebuilt", "it differed from the tree of %d entries", p.size)
	return p.r.s.db.Set(keyLog(tableHead, p.l.id), h.append(nil), pebble.NoSync)
}
