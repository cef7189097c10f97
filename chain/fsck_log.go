package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

func iterBounds(prefix []byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: prefix, UpperBound: endOf(prefix)}
}

// logCheck is the check of one log: one pass over its leaves and payloads,
// which builds the tree anew.
type logCheck struct {
	f      *fsck
	l      *Log
	head   head
	tree   tree
	claims *claims // what was signed
	last   record.Hash
	mono   int64
	wall   int64
	tiles  uint64
	next   uint64 // entry that comes next: all before are in the tree
	err    error  // of reading tiles and payloads

	rowIters

	frames frameCheck

	fences  fences
	blind   bool // entries of this log cannot be read
	keyless map[int64]*keyless

	erased   map[uint64]*indexRuns // what bears the mark of each erasing entry
	erasures map[uint64]*record.Erased

	gap      *pruned // nil: nothing
	prunings map[uint64]*record.Pruned
	closedBy uint64 // entry that closed the log; 0: none so far
}

// keyless is an hour whose payload key is not there.
type keyless struct{ first, last, count uint64 }

func (f *fsck) log(ctx context.Context, l *Log) error {
	c := &logCheck{f: f, l: l, head: f.heads[l.id], frames: frameCheck{keys: map[uint64][]byte{}}, keyless: map[int64]*keyless{}, erased: map[uint64]*indexRuns{}, erasures: map[uint64]*record.Erased{}, prunings: map[uint64]*record.Pruned{}}
	var err error
	if c.claims, err = c.gather(); err != nil {
		return err
	}
	defer func() { _ = c.claims.close() }() // it was only read, and its errors were asked for
	if gone, err := c.dropped(); gone || err != nil {
		return err
	}
	if err := c.fenceRows(); err != nil {
		return err
	}
	if err := c.beginPruned(); err != nil {
		return err
	}
	if err := c.openRows(); err != nil {
		return err
	}
	defer c.closeRows()
	if err := c.bundles(ctx); err != nil {
		return err
	}
	c.next = c.standIn(c.next, c.head.size)
	if err := c.strayPayloads(); err != nil {
		return err
	}
	if err := errors.Join(c.err, c.progress(ctx, c.next)); err != nil {
		return err
	}
	return c.finish(c.next)
}

// progress tells how far the check is, and ends it with ctx.
func (c *logCheck) progress(ctx context.Context, n uint64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.f.opts.Progress != nil {
		c.f.opts.Progress(c.l.origin, n, c.head.size)
	}
	return nil
}

// leaf checks the rows of an entry and adds it to the tree.
func (c *logCheck) leaf(index uint64, row, payload []byte) {
	f, l := c.f, c.l
	f.r.Entries++
	leaf, err := record.ParseLeaf(row)
	if err != nil {
		f.find("leaf", l, &index, "%v", err)
	} else {
		if leaf.Index != index {
			f.find("leaf", l, &index, "it says that it is leaf %d", leaf.Index)
		}
		if leaf.Prev != c.last {
			f.find("leaf", l, &index, "it follows a leaf with hash %s, leaf %d has %s: one of the two was changed", leaf.Prev, int64(index)-1, c.last)
		}
		c.times(&leaf)
		if payload != nil {
			c.payloadRow(&leaf, payload)
		}
	}
	c.grow(record.LeafHash(row))
}

// times checks that the time of a leaf does not step back.
func (c *logCheck) times(leaf *record.Leaf) {
	if leaf.Mono < c.mono {
		c.f.find("leaf", c.l, &leaf.Index, "the host's monotone time steps back, from %d to %d", c.mono, leaf.Mono)
	}
	c.mono, c.wall = leaf.Mono, leaf.Wall
	c.checkClosed(leaf)
}

// grow adds a leaf to the tree.
func (c *logCheck) grow(hash record.Hash) {
	c.last = hash
	c.tree.push(hash, c.tile)
	c.check()
}

// payloadRow checks a P row against its leaf.
func (c *logCheck) payloadRow(leaf *record.Leaf, row []byte) {
	index := leaf.Index
	o, err := c.l.openPayload(row, leaf)
	if err != nil {
		c.closed(leaf, err)
		return
	}
	if o.kind == kindErased {
		c.gone(leaf, o.erased)
		return
	}
	c.f.r.Payloads++
	if salt := o.salt(&leaf.Header); record.Commit(&salt, o.payload) != leaf.Commitment {
		c.f.find("payload", c.l, &index, "salt and payload are not what leaf %d commits to", index)
		return
	}
	c.opened(leaf, o.payload)
}

// opened takes from a payload what other checks need. It is what its leaf
// commits to.
func (c *logCheck) opened(leaf *record.Leaf, payload []byte) {
	f, l, index := c.f, c.l, leaf.Index
	m, err := record.Decode(leaf.Header.Class, payload)
	if err != nil {
		// A guest may seal what it likes: that is its word, not damage.
		if leaf.Origin != record.OriginGuest {
			f.find("payload", l, &index, "%v", err)
			return
		}
		f.r.Unreadable++
	}
	if digest, ok := proof.BundleOf(leaf, m); ok && !f.bundles[digest] {
		f.bundles[digest] = true
		f.r.Policies = append(f.r.Policies, NamedBundle{Digest: digest, Log: l.origin, Index: index})
	}
	switch m := m.(type) {
	case *record.Genesis:
		if index == 0 && m.Origin != l.origin {
			f.find("payload", l, &index, "the genesis is that of %s", m.Origin)
		}
	case *record.VMCheckpoint:
		c.quoted(index, m)
	case *record.Dropped:
		if l.name.IsHost() && leaf.Origin == record.OriginHost {
			f.drops[index] = m
		}
	case *record.Restore:
		if l.name.IsHost() && leaf.Origin == record.OriginOperator {
			f.restored = leaf.Mono
		}
	case *record.Erased:
		c.erasures[index] = m
		if at := (erasingEntry{l.id, index}); len(f.erasing) > 0 {
			if _, asked := f.erasing[at]; asked {
				f.erasing[at] = true
			}
		}
	case *record.Pruned:
		c.checkPruned(index, m)
	case *record.KeyCertificate:
		if l.name.IsHost() {
			f.certified[index] = string(m.PublicKey)
			if err := f.keys.Add(index, m); err != nil {
				f.find("certificate", l, &index, "%v", err)
			}
		}
	}
	if f.opts.Frame != nil && !l.name.IsHost() {
		if problem := c.frames.entry(f, leaf, m); problem != "" {
			f.find("frame", l, &index, "%s", problem)
		}
	}
}

// quoted takes a VM log's checkpoint from the host log.
func (c *logCheck) quoted(index uint64, m *record.VMCheckpoint) {
	if !c.l.name.IsHost() {
		c.f.find("payload", c.l, &index, "a checkpoint is quoted outside of a host log")
		return
	}
	c.f.r.Checkpoints++
	vm, ok := c.f.s.LogByOrigin(m.Origin)
	if !ok {
		c.f.quotes[m.Origin] = nil // reported as a missing log
		return
	}
	q := c.f.quotes[m.Origin]
	if q == nil {
		q = &quotedLog{}
		c.f.quotes[m.Origin] = q
	}
	// A key that was retired signs nothing any more.
	key, ok := c.f.keys.At(index)
	if !ok && c.blind {
		return // its certificate cannot be read
	}
	if !ok {
		c.f.find("payload", c.l, &index, "it quotes a checkpoint of %s before any key is certified", m.Origin)
		return
	}
	p, err := vm.openWith(m.Note, key.Key)
	if err != nil && c.blind {
		p, _, err = c.f.s.openNote(vm, m.Note, c.f.s.vmKeys) // a certificate in between cannot be read
	}
	if err != nil || p.Size != m.Size {
		c.f.find("payload", c.l, &index, "the checkpoint of %s that it quotes has size %d, the entry says %d (%v)", m.Origin, p.Size, m.Size, err)
		return
	}
	if now := (quote{size: p.Size, index: index}); c.f.newestQuotes[m.Origin] == now {
		delete(c.f.newestQuotes, m.Origin)
	}
	if p.Size < q.last.size {
		c.f.find("payload", c.l, &index, "it quotes %s at %d entries, entry %d has quoted it at %d: the VM log went back", m.Origin, p.Size, q.last.entry, q.last.size)
		return
	}
	c.err = errors.Join(c.err, q.add(c.f.spool, claim{size: p.Size, root: p.Root, entry: index}))
}

// tile compares a tile that the leaves make with the stored one. A hash that
// differs only because a tile below it was changed is not reported again.
func (c *logCheck) tile(t fullTile) {
	c.tiles++
	c.f.r.Tiles++
	stored, err := readTile(c.f.s.db, c.l.id, t.level, t.index)
	if errors.Is(err, record.ErrFatal) {
		c.f.find("tile", c.l, nil, "%v", err)
		return
	}
	if err != nil {
		c.err = err
		return
	}
	for i := range stored {
		if stored[i] == t.hashes[i] {
			continue
		}
		at := t.index*tileWidth + uint64(i)
		if t.level == 0 {
			c.f.find("tile", c.l, &at, "level 0 index %d holds hash %s, leaf %d has %s: tile or leaf was changed", t.index, stored[i], at, t.hashes[i])
			continue
		}
		below, err := tileRoot(c.f.s.db, c.l.id, t.level-1, at)
		if err == nil && below == stored[i] {
			continue
		}
		c.f.find("tile", c.l, nil, "level %d index %d holds hash %s at %d, the tile below it makes %s", t.level, t.index, stored[i], i, t.hashes[i])
	}
}

// check compares the tree with what was signed for its present size.
func (c *logCheck) check() {
	for c.err == nil {
		k, err := c.claims.next()
		if err == nil && (k == nil || k.size > c.tree.size) {
			return
		}
		if err == nil {
			if k.size < c.tree.size || k.root != c.tree.root() {
				c.f.find(k.table, c.l, nil, "%sat size %d it has root %s, the leaves make %s", k.where(), k.size, k.root, c.tree.root())
			}
			err = c.claims.skip()
		}
		c.err = err
	}
}

// finish compares the end of the log with its head and looks for tiles that
// should not be.
func (c *logCheck) finish(n uint64) error {
	f, l := c.f, c.l
	for {
		k, err := c.claims.next()
		if err != nil {
			return err
		}
		if k == nil {
			break
		}
		f.find(k.table, l, nil, "%sit has size %d, the log has %d leaves: the end is cut off", k.where(), k.size, n)
		if err := c.claims.skip(); err != nil {
			return err
		}
	}
	c.checkErased()
	for _, hour := range slices.Sorted(maps.Keys(c.keyless)) {
		k := c.keyless[hour]
		f.find("key", l, &k.first, "the payload key of the hour from %s is not there: %d payloads of entries %d to %d cannot be read or checked; bring the directory of payload keys back", time.Unix(hour*3600, 0).UTC().Format(time.RFC3339), k.count, k.first, k.last)
	}
	c.finishPruned()
	if err := c.closedRow(); err != nil {
		return err
	}
	h := c.head
	if h.size != n {
		f.find("head", l, nil, "it says size %d, there are %d leaves", h.size, n)
	}
	if h.last != c.last {
		f.find("head", l, nil, "it says that the last leaf has hash %s, it has %s", h.last, c.last)
	}
	if (h.mono != c.mono || h.wall != c.wall) && c.fences.at(max(h.size, 1)-1) == nil {
		f.find("head", l, nil, "it says monotone time %d and wall time %d, the last leaf %d and %d", h.mono, h.wall, c.mono, c.wall)
	}
	if !slices.Equal(h.edge, c.tree.edge()) {
		f.find("head", l, nil, "its right edge has root %s, the leaves make %s", foldEdge(h.edge), c.tree.root())
	}
	tiles := uint64(0)
	err := scan(f.s.db, keyLog(tableTile, l.id), func(key, value []byte) error {
		// Those before the first that the check has made were compared by themselves.
		if level, index := key[5], binary.BigEndian.Uint64(key[6:]); c.gap == nil || index >= c.gap.tiles>>(tileHeight*(level+1)) {
			tiles++
		} else if level == 0 && !c.gap.keepsTile(index) && !c.gap.pending {
			f.find("tile", l, nil, "level 0 index %d was pruned, by entry %d, and is still there", index, c.gap.tilesBy)
		}
		return nil
	})
	if err == nil && tiles != c.tiles {
		f.find("tile", l, nil, "there are %d full tiles, %d leaves fill %d", tiles, n, c.tiles)
	}
	return errors.Join(err, c.roots())
}

// frameCheck verifies the statements of guest agents as they come by.
type frameCheck struct {
	keys    map[uint64][]byte // by session
	newest  []uint64          // these sessions, the one that was enrolled last is the last
	records []record.Hash     // of the guest entries since the last statement
	first   record.Header     // of the first of them
	blind   bool              // an entry could not be read: it may have been an enrolment
	broken  bool              // likewise, since the last statement: records may lack
	cut     bool              // entries before them were pruned
}

// entry takes one entry and returns what is wrong, or nothing.
func (c *frameCheck) entry(f *fsck, leaf *record.Leaf, m record.Message) string {
	if leaf.Origin == record.OriginGuest {
		if len(c.records) == 0 {
			c.first = leaf.Header
		}
		if len(c.records) < MaxBatchEntries {
			c.records = append(c.records, leaf.RecordHash())
		}
		return ""
	}
	switch m := m.(type) {
	case *record.Enrolled:
		c.enroll(m)
	case *record.Frame:
		records, broken := c.records, c.broken
		c.records, c.broken = nil, false
		if broken {
			return ""
		}
		if cut := c.cut; cut {
			if c.cut = false; uint64(m.Count) > uint64(len(records)) {
				return "" // what else it covers is gone
			}
		}
		f.r.Frames++
		return c.verify(f, m, records)
	}
	if len(c.records) > 0 && !c.broken {
		c.records = nil
		return "entries of the guest stand before it without a signed statement over them"
	}
	return ""
}

// maxSessions bounds how many keys of agents are held: of an agent that connects anew the
// newest has signed, or nearly.
const maxSessions = 4096

// enroll takes the key of a session.
func (c *frameCheck) enroll(m *record.Enrolled) {
	if _, again := c.keys[m.Session]; again {
		c.newest = slices.DeleteFunc(c.newest, func(s uint64) bool { return s == m.Session })
	}
	c.keys[m.Session] = bytes.Clone(m.Key)
	if c.newest = append(c.newest, m.Session); len(c.newest) > maxSessions {
		delete(c.keys, c.newest[0])
		c.newest = slices.Delete(c.newest, 0, 1)
	}
}

func (c *frameCheck) verify(f *fsck, m *record.Frame, records []record.Hash) string {
	var signed proof.Frame
	err := errors.New("no key was enrolled for it")
	// The records say which session it is; a statement over none is tried with all
	// keys.
	for _, session := range slices.Backward(c.newest) {
		if len(records) > 0 && session != c.first.Session {
			continue
		}
		if signed, err = f.opts.Frame(m.Statement, m.Signature, c.keys[session]); err == nil && signed.Session == session {
			break
		}
	}
	switch {
	case err != nil && c.blind:
		f.r.Frames--
		return ""
	case err != nil:
		return fmt.Sprintf("no enrolled key verifies the statement: %v", err)
	case c.keys[signed.Session] == nil:
		return fmt.Sprintf("it is of session %x, which was not enrolled", signed.Session)
	case uint64(signed.Count) != uint64(len(records)) || m.Count != signed.Count:
		return fmt.Sprintf("the statement covers %d records, the entry says %d, there are %d", signed.Count, m.Count, len(records))
	case record.Root(records) != signed.Root:
		return "the records before it are not those that the agent signed"
	case len(records) > 0 && (c.first.Session != signed.Session || c.first.Sequence != signed.First):
		return fmt.Sprintf("the records before it begin with session %x sequence %d, the agent signed session %x sequence %d", c.first.Session, c.first.Sequence, signed.Session, signed.First)
	}
	return ""
}
