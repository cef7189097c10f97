package chain

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// bundle is an unpacked B row: 256 entries of a log. It is safe for concurrent
// use.
type bundle struct {
	log    LogID
	first  uint64
	rows   [tileWidth]bundleRow
	weight int // bytes that it holds or will hold, about

	// Of the log's tree: the leaf hashes of the entries, and of the entry
	// ahead of them. They are not in the row.
	hashes []record.Hash
	before record.Hash
}

type bundleRow struct {
	leaf    record.Leaf // without Prev, and without Commitment unless erased
	segment *bundleSegment
	kind    byte
	secret  int // number in the segment
	offset  int // of the payload in the segment
	length  int
	erased  uint64 // index of the entry that erased it
}

// bundleSegment is a segment whose payloads are unpacked at first use.
type bundleSegment struct {
	segment
	place    uint64 // of the bundle's first entry, and how many entries are in segments before it
	once     sync.Once
	secret   []byte
	payloads []byte
	err      error
}

func (s *bundleSegment) open(keys *payloadKeys, id LogID) error {
	s.once.Do(func() {
		plain := s.blob
		if s.form != segmentPlain {
			if keys == nil {
				s.err = errNotEncrypted
			} else {
				plain, s.err = keys.openSegment(&s.segment, id, s.place)
			}
		}
		if s.err == nil {
			s.secret = plain[:32*s.secrets]
			s.payloads, s.err = unpack(plain[32*s.secrets:], s.length)
		}
	})
	return s.err
}

// errNotEncrypted is damage: such a store was never given keys.
var errNotEncrypted = errors.New("it is encrypted, and payloads of this store are not")

// opening returns what opens entry i; for an entry whose payload stays outside
// it says just that. The payload is the bundle's own memory.
func (b *bundle) opening(i int, keys *payloadKeys) (opening, error) {
	r := &b.rows[i]
	o := opening{kind: r.kind, erased: r.erased}
	if !packedKind(r.kind) {
		return o, nil
	}
	if err := r.segment.open(keys, b.log); err != nil {
		return opening{}, err
	}
	copy(o.secret[:], r.segment.secret[32*r.secret:])
	o.payload = r.segment.payloads[r.offset : r.offset+r.length : r.offset+r.length]
	return o, nil
}

// prev returns the leaf hash of the entry before entry i.
func (b *bundle) prev(i int) record.Hash {
	if i == 0 {
		return b.before
	}
	return b.hashes[i-1]
}

// entry makes entry i whole again, for somebody who keeps it.
func (l *Log) entry(b *bundle, i int) (Item, error) {
	leaf, raw, o, err := l.whole(b, i, make([]byte, 0, record.LeafSize))
	if err != nil {
		return Item{}, err
	}
	item := Item{Log: l, Index: leaf.Index, Leaf: leaf, LeafBytes: raw, LeafHash: b.hashes[i]}
	if o.kind == kindErased {
		item.Erased, item.ErasedBy = true, o.erased
		return item, nil
	}
	item.Payload, item.secret, item.seeded = append([]byte{}, o.payload...), o.secret, o.kind == kindSeed
	return item, nil
}

// whole makes the leaf of entry i, its bytes in buf, and what opens it, which is
// the bundle's own memory. The leaf must have the hash that the tree has: nothing
// that was changed or packed wrongly is ever handed out.
func (l *Log) whole(b *bundle, i int, buf []byte) (leaf record.Leaf, raw []byte, o opening, err error) {
	index := b.first + uint64(i)
	if o, err = b.opening(i, l.store.keys); err != nil {
		return leaf, nil, o, l.badPayload(index, &b.rows[i].leaf, err)
	}
	if o.kind == kindOutside {
		if o, err = l.payloadRow(&b.rows[i].leaf); err != nil {
			return leaf, nil, o, err
		}
	}
	leaf = b.rows[i].leaf
	leaf.Prev = b.prev(i)
	if o.kind != kindErased {
		salt := o.salt(&leaf.Header)
		leaf.Commitment = record.Commit(&salt, o.payload)
	}
	raw = leaf.AppendBinary(buf[:0])
	if hash := record.LeafHash(raw); hash != b.hashes[i] {
		return leaf, nil, o, l.missing(index, "entry %d of %s makes a leaf with hash %s, the tree has %s", index, l.origin, hash, b.hashes[i])
	}
	return leaf, raw, o, nil
}

// payloadRow reads a P row.
func (l *Log) payloadRow(leaf *record.Leaf) (opening, error) {
	index := leaf.Index
	row, ok, err := get(l.store.db, keySeq(tablePayload, l.id, index))
	if err != nil {
		return opening{}, err
	}
	if !ok {
		return opening{}, corrupt("payload %d of %s is missing", index, l.origin)
	}
	o, err := l.openPayload(row, leaf)
	if err != nil {
		return opening{}, l.badPayload(index, leaf, err)
	}
	return o, nil
}

// openPayload parses a P row, decrypting it first where it is encrypted.
func (l *Log) openPayload(row []byte, leaf *record.Leaf) (opening, error) {
	if _, _, sealed := rowKey(row, l.id, leaf.Origin); sealed {
		if l.store.keys == nil {
			return opening{}, errNotEncrypted
		}
		var err error
		if row, err = l.store.keys.openRow(row, l.id, leaf); err != nil {
			return opening{}, err
		}
	}
	return parsePayload(row)
}

// badPayload says why a payload cannot be read. A key that is missing, or that
// was drawn anew since, is no damage of the store.
func (l *Log) badPayload(index uint64, leaf *record.Leaf, err error) error {
	if errors.Is(err, errNoKey) {
		return l.noKey(index, leaf, err)
	}
	return l.missing(index, "payload %d of %s: %v", index, l.origin, err)
}

// missing says why an entry is not there, or not what the tree has: it is fenced
// off, or the store is damaged.
func (l *Log) missing(index uint64, format string, args ...any) error {
	if err := l.goneBundle(index / tileWidth); err != nil {
		return err // a moment ago
	}
	if err := l.fenced(index); err != nil {
		return err
	}
	return corrupt(format, args...)
}

// missingIn is missing for some of the entries from first to before end.
func (l *Log) missingIn(first, end uint64, format string, args ...any) error {
	if err := l.goneBundle(first / tileWidth); err != nil {
		return err
	}
	for i := first; i < end; i++ {
		if err := l.fenced(i); err != nil {
			return err
		}
	}
	return corrupt(format, args...)
}

// readItem reads one durable entry, packed or not.
//
// The packer replaces rows by a bundle in one batch and never the other way
// round: who misses a row that must be there finds the bundle. Where there is none
// among the bundles that it has come past, it has left the rows (passOver), and in
// this run it does not come back to them.
//
// A row that was read before an erasure has rewritten it may come to be opened
// when its key is destroyed: then it is read again.
func (l *Log) readItem(index uint64) (Item, error) {
	for {
		epoch := l.store.bundles.rewrites()
		item, err := l.readStored(index)
		if errors.Is(err, errNoKey) && l.store.bundles.rewrites() != epoch {
			continue
		}
		if err == nil {
			err = l.mask(&item)
		}
		return item, err
	}
}

func (l *Log) readStored(index uint64) (Item, error) {
	ahead := index/tileWidth >= l.packed.Load() // of the packer
	if ahead {
		item, ok, err := l.readRows(index)
		if ok || err != nil {
			return item, err
		}
	}
	b, err := l.bundle(index / tileWidth)
	if err != nil {
		return Item{}, err
	}
	if b != nil {
		return l.entry(b, int(index%tileWidth))
	}
	if !ahead {
		item, ok, err := l.readRows(index)
		if ok || err != nil {
			return item, err
		}
	}
	return Item{}, l.missing(index, "entry %d of %s is missing", index, l.origin)
}

// readRows reads an entry that is not packed; ok is false where a row of it is
// missing.
func (l *Log) readRows(index uint64) (item Item, ok bool, err error) {
	leaf, ok, err := get(l.store.db, keySeq(tableEntry, l.id, index))
	if err != nil || !ok {
		return Item{}, false, err
	}
	row, ok, err := get(l.store.db, keySeq(tablePayload, l.id, index))
	if err != nil || !ok {
		return Item{}, false, err
	}
	item = Item{Log: l, Index: index, LeafBytes: leaf, LeafHash: record.LeafHash(leaf)}
	if item.Leaf, err = record.ParseLeaf(leaf); err != nil {
		return Item{}, false, corrupt("leaf %d of %s: %v", index, l.origin, err)
	}
	o, err := l.openPayload(row, &item.Leaf)
	if err != nil {
		return Item{}, false, l.badPayload(index, &item.Leaf, err)
	}
	if o.kind == kindErased {
		item.Erased, item.ErasedBy = true, o.erased
		return item, true, nil
	}
	item.Payload, item.secret, item.seeded = o.payload, o.secret, o.kind == kindSeed
	return item, true, nil
}

// readLeaf is readItem for who wants the leaf alone.
func (l *Log) readLeaf(index uint64) (record.Leaf, error) {
	if index/tileWidth >= l.packed.Load() {
		if leaf, ok, err := l.leafRow(index); ok || err != nil {
			return leaf, err
		}
	}
	item, err := l.readItem(index)
	if errors.Is(err, ErrUnreadable) { // of an entry by itself perhaps the payload only
		if leaf, ok, rerr := l.leafRow(index); ok || rerr != nil {
			return leaf, rerr
		}
	}
	return item.Leaf, err
}

// leafRow reads the leaf of an entry that is not packed; ok is false where it has no
// row of its own.
func (l *Log) leafRow(index uint64) (leaf record.Leaf, ok bool, err error) {
	row, ok, err := get(l.store.db, keySeq(tableEntry, l.id, index))
	if err != nil || !ok {
		return leaf, false, err
	}
	if leaf, err = record.ParseLeaf(row); err != nil {
		return leaf, false, corrupt("leaf %d of %s: %v", index, l.origin, err)
	}
	return leaf, true, nil
}

// readHeader returns origin, times and header of an entry: what a packed
// bundle says without its payloads.
func (l *Log) readHeader(index uint64) (record.Leaf, error) {
	if index/tileWidth >= l.packed.Load() {
		if leaf, ok, err := l.leafRow(index); ok || err != nil {
			return leaf, err
		}
	}
	b, err := l.bundle(index / tileWidth)
	if err != nil {
		return record.Leaf{}, err
	}
	if b != nil {
		return b.rows[index%tileWidth].leaf, nil
	}
	return l.readLeaf(index)
}

// isErased reports whether the payload of an entry is gone.
func (l *Log) isErased(index uint64) (bool, error) {
	row := func() (erased, ok bool, err error) {
		row, ok, err := get(l.store.db, keySeq(tablePayload, l.id, index))
		return ok && len(row) > 0 && row[0] == payloadErased, ok, err
	}
	ahead := index/tileWidth >= l.packed.Load() // of the packer
	if ahead {
		if erased, ok, err := row(); ok || err != nil {
			return erased, err
		}
	}
	b, err := l.bundle(index / tileWidth)
	if err != nil {
		return false, err
	}
	if b != nil {
		return b.rows[index%tileWidth].kind == kindErased, nil
	}
	if !ahead {
		if erased, ok, err := row(); ok || err != nil {
			return erased, err
		}
	}
	return false, l.missing(index, "payload %d of %s is missing", index, l.origin)
}

// bundle returns the packed bundle with the given number, nil where it is not
// packed: the packer has not come to it yet, or has left its rows.
func (l *Log) bundle(n uint64) (*bundle, error) {
	if err := l.goneBundle(n); err != nil {
		return nil, fmt.Errorf("entries %d to %d of %s: %w", n*tileWidth, (n+1)*tileWidth-1, l.origin, err)
	}
	key := bundleKey{l.id, n}
	b, epoch := l.store.bundles.get(key)
	if b != nil {
		return b, nil
	}
	row, ok, err := get(l.store.db, keySeq(tableBundle, l.id, n))
	if err != nil || !ok {
		return nil, err
	}
	if b, err = parseBundle(l.id, n*tileWidth, row); err != nil {
		return nil, corrupt("bundle %d of %s: %v", n, l.origin, err)
	}
	if err := b.place(l.store.db, l.id); err != nil {
		if gone := l.Gone(); gone != nil {
			return nil, gone // a moment ago
		}
		return nil, fmt.Errorf("bundle %d of %s: %w", n, l.origin, err)
	}
	l.store.bundles.put(key, b, epoch)
	return b, nil
}

// place reads what the tree says of the bundle's entries.
func (b *bundle) place(db pebble.Reader, id LogID) (err error) {
	n := b.first / tileWidth
	if b.hashes, err = readTile(db, id, 0, n); err != nil || n == 0 {
		return err
	}
	before, err := readTile(db, id, 0, n-1)
	if err == nil {
		b.before = before[tileWidth-1]
	}
	return err
}

// leafRows calls f with the leaves from index first to before end, which one
// bundle holds, packed or not. What f is given is valid during the call only.
func (l *Log) leafRows(first, end uint64, f func(leaf []byte) error) error {
	rows := 0
	scanRows := func() error {
		return scanRange(l.store.db, keySeq(tableEntry, l.id, first), keySeq(tableEntry, l.id, end), func(_, leaf []byte) error {
			rows++
			return f(leaf)
		})
	}
	n := first / tileWidth
	ahead := n >= l.packed.Load() // of the packer
	if ahead {
		if err := scanRows(); err != nil || rows == int(end-first) {
			return err
		}
	}
	b, err := l.bundle(n)
	if err != nil {
		return err
	}
	if b == nil && !ahead {
		if err := scanRows(); err != nil || rows == int(end-first) {
			return err
		}
	}
	if b == nil || rows > 0 { // else it is packed, maybe since a moment ago
		return l.missingIn(first, end, "%d leaves stand from entry %d of %s on, want %d", rows, first, l.origin, end-first)
	}
	buf := make([]byte, 0, record.LeafSize)
	for i := first; i < end; i++ {
		_, leaf, _, err := l.whole(b, int(i%tileWidth), buf)
		if errors.Is(err, errNoKey) { // perhaps it was rewritten since b was read
			var item Item
			item, err = l.readItem(i)
			leaf = item.LeafBytes
		}
		if err != nil {
			return err
		}
		if err := f(leaf); err != nil {
			return err
		}
	}
	return nil
}

// bundleCacheBytes is about what unpacked bundles may hold in memory: enough
// for a handful of readers that go through logs in order.
const bundleCacheBytes = 12 << 20

type bundleKey struct {
	log LogID
	n   uint64
}

// bundleCache keeps the bundles that were used last.
type bundleCache struct {
	mu    sync.Mutex
	list  []cachedBundle // the one used last is the last
	bytes int
	// epoch counts the rewrites: what was read before one must not be kept
	// after it.
	epoch uint64
}

type cachedBundle struct {
	key bundleKey
	b   *bundle
}

// bundleOverhead is what an unpacked bundle takes beside its payloads.
const bundleOverhead = 56 << 10

func (c *bundleCache) get(key bundleKey) (b *bundle, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.list) - 1; i >= 0; i-- {
		if e := c.list[i]; e.key == key {
			copy(c.list[i:], c.list[i+1:])
			c.list[len(c.list)-1] = e
			return e.b, c.epoch
		}
	}
	return nil, c.epoch
}

// rewrites counts how often rows were rewritten.
func (c *bundleCache) rewrites() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// forget drops what is cached, and what is being read: rows were rewritten.
func (c *bundleCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.list, c.bytes = nil, 0
}

func (c *bundleCache) put(key bundleKey, b *bundle, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	for _, e := range c.list {
		if e.key == key {
			return // somebody else was faster
		}
	}
	c.list = append(c.list, cachedBundle{key, b})
	c.bytes += b.weight + bundleOverhead
	drop := 0
	for ; c.bytes > bundleCacheBytes && drop < len(c.list)-1; drop++ {
		c.bytes -= c.list[drop].b.weight + bundleOverhead
	}
	n := copy(c.list, c.list[drop:])
	clear(c.list[n:])
	c.list = c.list[:n]
}
