package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const (
	bundleWidth  = 1 << bundleHeight
	bundleHeight = 8
	// bundleBytes bounds an entry bundle of our logs, foreignBytes one of any log,
	// and openingBytes an opening bundle.
	bundleBytes  = bundleWidth * (2 + record.LeafSize)
	foreignBytes = bundleWidth * (2 + 0xffff)
	openingBytes = 32 << 20
)

// bundle is an entry bundle on its way: a worker reads and hashes it, then the
// log's check takes it in its turn.
type bundle struct {
	n     uint64 // number
	width int
	done  chan struct{} // closed behind read

	hashes []record.Hash // of the leaves
	root   record.Hash   // over them; of a full bundle only
	leaves []record.Leaf // zero where a leaf cannot be read; none of a foreign log
	opened []opened      // what verification looks into, by place
	texts  [][]byte      // all payloads, by place, where Options.Entry wants them
	match  int           // payloads that are what the leaf commits to
	bare   bool          // there is no opening bundle
	none   *missing      // why; nil: none was asked for
	pruned bool          // entries are gone; root is what the tile above has of them
	lost   []int         // places of entries that are left out, of which the tile has the hashes
	faults []fault
	err    error // nothing of it can be used
}

// opened is a payload that verification looks into.
type opened struct {
	at      int // place in the bundle
	message record.Message
	// What a worker has verified ahead with a key that it found.
	key   []byte
	frame proof.Frame      // of a *record.Frame
	note  proof.Checkpoint // of a *record.VMCheckpoint
}

// fault is something wrong with one entry by itself.
type fault struct {
	at      int
	problem string
}

func (b *bundle) first() uint64 { return b.n * bundleWidth }

func (b *bundle) fault(at int, format string, args ...any) {
	b.faults = append(b.faults, fault{at, fmt.Sprintf(format, args...)})
}

// missing says that the mirror does not have a resource which its checkpoint
// covers, or has something else in its place.
type missing struct {
	problem string
	absent  bool       // there is nothing, rather than something wrong
	at      *uint64    // the entry to name; nil: the one that comes next
	gone    *GoneError // what the server says of it, if it does
}

func (m *missing) Error() string { return m.problem }

// read fetches and hashes a bundle. It is what workers do.
func (c *logCheck) read(ctx context.Context, b *bundle) {
	limit := bundleBytes
	if !c.ours {
		limit = foreignBytes
	}
	data, whole, err := c.fetch(ctx, "entries", b, limit)
	var none *missing
	if errors.As(err, &none) && none.absent && none.gone == nil && c.name.Domain != "" && b.width == bundleWidth {
		b.err = c.above(ctx, b, none)
		return
	}
	if err != nil {
		b.err = err
		return
	}
	if b.err = c.leaves(ctx, b, data, whole); b.err != nil || !c.ours {
		return
	}
	if c.bare.Load() {
		b.bare = true
		return
	}
	data, whole, err = c.fetch(ctx, "openings", b, openingBytes)
	switch {
	case errors.As(err, &none):
		b.bare, b.none = true, none
	case err != nil:
		b.err = err
	default:
		b.err = c.openings(b, data, whole)
	}
}

// fetch reads a bundle. A partial one may have been replaced by the full one:
// whole says that more entries than wanted may follow.
func (c *logCheck) fetch(ctx context.Context, kind string, b *bundle, limit int) (data []byte, whole bool, err error) {
	path := c.prefix + Path(kind, b.n, b.width)
	data, err = c.v.src.Fetch(ctx, path, limit)
	var gone *GoneError
	if b.width < bundleWidth && errors.Is(err, fs.ErrNotExist) && !errors.As(err, &gone) {
		whole = true
		data, err = c.v.src.Fetch(ctx, c.prefix+Path(kind, b.n, bundleWidth), limit)
	}
	switch errors.As(err, &gone); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, &missing{problem: fmt.Sprintf("entries %d to %d are missing: there is no %s", b.first(), b.first()+uint64(b.width)-1, path), absent: true, gone: gone}
	case unusable(err):
		return nil, false, &missing{problem: fmt.Sprintf("entries %d to %d cannot be read: %v", b.first(), b.first()+uint64(b.width)-1, err)}
	}
	return data, whole, err
}

// leaves splits and hashes an entry bundle, and checks what one bundle shows.
func (c *logCheck) leaves(ctx context.Context, b *bundle, data []byte, whole bool) error {
	b.hashes, b.leaves = b.hashes[:0], b.leaves[:0]
	var tile []byte
	for i := range b.width {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return &missing{problem: fmt.Sprintf("entries %d to %d are missing: their bundle ends before them", b.first()+uint64(i), b.first()+uint64(b.width)-1)}
		}
		n := int(binary.BigEndian.Uint16(data))
		entry := data[2 : 2+n]
		data = data[2+n:]
		if n == 0 && c.mayLack() {
			if tile == nil {
				var err error
				if tile, err = c.hashesOf(ctx, b); err != nil {
					return err
				}
			}
			b.lost = append(b.lost, i)
			b.hashes = append(b.hashes, record.Hash(tile[i*len(record.Hash{}):][:len(record.Hash{})]))
			b.leaves = append(b.leaves, record.Leaf{})
			continue
		}
		b.hashes = append(b.hashes, record.LeafHash(entry))
		if !c.ours {
			continue
		}
		leaf, err := record.ParseLeaf(entry)
		if err != nil {
			b.fault(i, "%v", err)
		} else if want := b.first() + uint64(i); leaf.Index != want {
			b.fault(i, "the leaf says that it is entry %d: entries were put in another order, or are missing", leaf.Index)
		}
		b.leaves = append(b.leaves, leaf)
	}
	if len(data) > 0 && !whole {
		return &missing{problem: fmt.Sprintf("behind entry %d its bundle goes on with %d bytes that are no entry", b.first()+uint64(b.width)-1, len(data))}
	}
	if b.width == bundleWidth {
		var nodes [bundleWidth]record.Hash
		copy(nodes[:], b.hashes)
		b.root = perfect(nodes[:])
	}
	return nil
}

// openings checks an opening bundle against the leaves, and decodes what
// verification looks into.
func (c *logCheck) openings(b *bundle, data []byte, whole bool) error {
	for i := range b.width {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return &missing{problem: fmt.Sprintf("the payloads of entries %d to %d are missing: their bundle ends before them", b.first()+uint64(i), b.first()+uint64(b.width)-1)}
		}
		n := int(binary.BigEndian.Uint32(data))
		opening := data[4 : 4+n]
		data = data[4+n:]
		if n > 0 {
			c.opening(b, i, opening)
		}
	}
	if len(data) > 0 && !whole {
		return &missing{problem: fmt.Sprintf("behind the payload of entry %d its bundle goes on with %d bytes", b.first()+uint64(b.width)-1, len(data))}
	}
	return nil
}

func (c *logCheck) opening(b *bundle, at int, opening []byte) {
	var salt record.Salt
	if len(opening) < len(salt) {
		b.fault(at, "the payload has %d bytes, want a salt of %d and the payload", len(opening), len(salt))
		return
	}
	copy(salt[:], opening)
	payload, leaf := opening[len(salt):], &b.leaves[at]
	if len(b.lost) > 0 && slices.Contains(b.lost, at) {
		b.fault(at, "there is a payload of an entry that is left out")
		return
	}
	if record.Commit(&salt, payload) != leaf.Commitment {
		b.fault(at, "salt and payload are not what the leaf commits to")
		return
	}
	b.match++
	if c.v.opts.Entry != nil {
		if b.texts == nil {
			b.texts = make([][]byte, b.width)
		}
		b.texts[at] = payload
	}
	if leaf.Origin != record.OriginHost || !looked(leaf.Header.Class) && !c.covers(leaf.Header.Class) {
		return
	}
	m, err := record.Decode(leaf.Header.Class, payload)
	if err != nil {
		b.fault(at, "%v", err)
		return
	}
	o := opened{at: at, message: m}
	c.ahead(&o)
	b.opened = append(b.opened, o)
}

// looked reports whether verification looks into payloads of a class, where they
// are of the host.
func looked(c record.Class) bool {
	return c == record.ClassGenesis || c == record.ClassVMEpoch || c == record.ClassDamage || needed(c)
}

// hashTile is a tile of level 1, which workers read entries that were pruned from.
type hashTile struct {
	mu   sync.Mutex
	n    uint64 // of the one in data, + 1
	data []byte
}

// above takes the root over a bundle whose entries are not there from the tile above.
// Whether they may be gone is for the log itself to say, further on.
func (c *logCheck) above(ctx context.Context, b *bundle, none *missing) error {
	t := &c.parent
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := b.n / bundleWidth; t.n != n+1 {
		data, err := c.v.src.Fetch(ctx, c.prefix+Path("1", n, bundleWidth), bundleWidth*len(record.Hash{}))
		if errors.Is(err, fs.ErrNotExist) || unusable(err) || err == nil && len(data) != bundleWidth*len(record.Hash{}) {
			return none
		}
		if err != nil {
			return err
		}
		t.n, t.data = n+1, data
	}
	b.root = record.Hash(t.data[b.n%bundleWidth*uint64(len(b.root)):][:len(b.root)])
	b.pruned = true
	return nil
}

// needed reports whether a log cannot be verified without the payloads of a
// class. They hold keys, signatures and checkpoints, and are never erased.
func needed(c record.Class) bool {
	switch c {
	case record.ClassKeyCertificate, record.ClassVMCheckpoint, record.ClassAgentFrame, record.ClassAgentEnrolled, record.ClassPruned, record.ClassDropped:
		return true
	}
	return false
}

// ahead verifies the signature in a payload with the keys that are known by
// now. Which key it must be is decided in the order of the log: this only takes
// the work off that.
func (c *logCheck) ahead(o *opened) {
	switch m := o.message.(type) {
	case *record.Frame:
		if c.v.opts.Frame == nil {
			return
		}
		for _, key := range c.known.get() {
			if f, err := c.v.opts.Frame(m.Statement, m.Signature, key); err == nil {
				o.key, o.frame = key, f
				return
			}
		}
	case *record.VMCheckpoint:
		for _, key := range c.known.get() {
			if p, err := openNote(m, key); err == nil {
				o.key, o.note = key, p
				return
			}
		}
	}
}

// openNote verifies a quoted checkpoint with a key of the VM logs.
func openNote(m *record.VMCheckpoint, key []byte) (proof.Checkpoint, error) {
	v, err := proof.NewVerifier(m.Origin, key)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	p, err := proof.OpenCheckpoint(m.Note, v)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	if p.Size != m.Size {
		return proof.Checkpoint{}, fmt.Errorf("the checkpoint has size %d, the entry says %d: %w", p.Size, m.Size, record.ErrReject)
	}
	return p, nil
}
