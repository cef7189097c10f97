package chain

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/provostd/provost/chain/record"
)

// packMagic begins every packed bundle. Part of the format, like everything in
// this file; docs/formats.md has the table. Bundles of before begin with
// packMagic1: their segments follow the order of the entries.
const (
	packMagic  = "PVB2"
	packMagic1 = "PVB1"
)

const (
	// outsideBytes is the payload size from which on a payload stays in its
	// own row: a packed bundle is read as a whole.
	outsideBytes = 64 << 10
	// segmentBytes ends a segment: what reading one payload unpacks.
	segmentBytes = 128 << 10
	// maxPacked bounds what a packed bundle may claim to unpack to.
	maxPacked = tileWidth*outsideBytes + 1<<20
)

// What stands for the payload of an entry. Part of the format.
const (
	kindSalt    = 1 // the payload and its salt
	kindSeed    = 2 // the payload and the seed its salt derives from
	kindOutside = 3 // a P row
	kindErased  = 4 // nothing any more: the commitment is given
)

// opening is what a P row, or a packed bundle, holds of an entry beside its
// leaf: what opens the leaf's commitment.
type opening struct {
	kind    byte
	secret  [32]byte // salt or seed
	payload []byte
	erased  uint64 // index of the entry that erased it
}

// packed reports whether what opens an entry of this kind stands in the bundle.
func packedKind(kind byte) bool { return kind == kindSalt || kind == kindSeed }

// salt returns the salt of the entry with the given header.
func (o *opening) salt(h *record.Header) record.Salt {
	if o.kind == kindSeed {
		return (*record.Seed)(&o.secret).Salt(h.Sequence)
	}
	return o.secret
}

// packRow is an entry on its way into a bundle. Of its leaf Prev is left out,
// and the commitment unless it is erased.
type packRow struct {
	leaf record.Leaf
	open opening
}

// segment is a run of entries of a bundle whose payloads are packed together.
type segment struct {
	form       byte
	kind       keyKind  // of its entries' key
	hour       int64    // of the key, where it is encrypted
	generation uint32   // likewise
	nonce      [12]byte // likewise
	count      int      // entries
	secrets    int      // different salts and seeds
	length     int      // bytes of payloads
	blob       []byte   // secrets, and payloads compressed
}

// Forms of a segment. Part of the format.
const (
	segmentPlain  = 1
	segmentSealed = 2 // encrypted under the shared key of its log and hour
	segmentKeyed  = 3 // encrypted under the key of its log, hour, kind and generation
)

// The two halves of the compression. Both serve any number of goroutines.
var (
	packer   = sync.OnceValue(newPacker)
	unpacker = sync.OnceValue(newUnpacker)
)

func newPacker() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(segmentBytes*2), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("chain: options of the compression: " + err.Error())
	}
	return e
}

func newUnpacker() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxPacked), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("chain: options of the compression: " + err.Error())
	}
	return d
}

// unpack decompresses b to exactly n bytes.
func unpack(b []byte, n int) ([]byte, error) {
	if n == 0 && len(b) == 0 {
		return nil, nil
	}
	if n < 0 || n > maxPacked {
		return nil, fmt.Errorf("it unpacks to %d bytes, limit %d", n, maxPacked)
	}
	out, err := unpacker().DecodeAll(b, make([]byte, 0, n))
	if err != nil {
		return nil, err
	}
	if len(out) != n {
		return nil, fmt.Errorf("it unpacks to %d bytes, want %d", len(out), n)
	}
	return out, nil
}

// lane is whose counter a lane sequence is.
type packLane struct {
	session uint64
	lane    uint32
}

// packColumns encodes the headers of a bundle, column after column: neighbours
// in a column differ little.
func packColumns(b []byte, rows []packRow) []byte {
	for i := range rows {
		b = append(b, byte(rows[i].leaf.Origin))
	}
	for i := range rows {
		b = binary.AppendUvarint(b, uint64(rows[i].leaf.Header.Class))
	}
	for i := range rows {
		b = binary.AppendUvarint(b, uint64(rows[i].leaf.Header.Lane+1)) // no lane is 0
	}
	sessions := map[uint64]uint64{}
	for i := range rows {
		h := &rows[i].leaf.Header
		n, ok := sessions[h.Session]
		if !ok { // a new number brings its session along
			n = uint64(len(sessions))
			sessions[h.Session] = n
			b = binary.AppendUvarint(b, n)
			b = binary.BigEndian.AppendUint64(b, h.Session)
			continue
		}
		b = binary.AppendUvarint(b, n)
	}
	last := map[uint64]uint64{}
	for i := range rows {
		h := &rows[i].leaf.Header
		b = binary.AppendVarint(b, int64(h.Sequence-last[h.Session]))
		last[h.Session] = h.Sequence
	}
	lanes := map[packLane]uint64{}
	for i := range rows {
		h := &rows[i].leaf.Header
		k := packLane{h.Session, h.Lane}
		b = binary.AppendVarint(b, int64(h.LaneSequence-lanes[k]))
		lanes[k] = h.LaneSequence
	}
	clear(last)
	for i := range rows {
		h := &rows[i].leaf.Header
		b = binary.AppendVarint(b, int64(h.Time-last[h.Session]))
		last[h.Session] = h.Time
	}
	var mono, offset int64
	for i := range rows {
		b = binary.AppendVarint(b, rows[i].leaf.Mono-mono)
		mono = rows[i].leaf.Mono
	}
	for i := range rows {
		o := rows[i].leaf.Wall - rows[i].leaf.Mono
		b = binary.AppendVarint(b, o-offset)
		offset = o
	}
	return b
}

// packBundle encodes a full bundle. keys is nil where payloads are not
// encrypted.
func packBundle(rows []packRow, keys *payloadKeys, id LogID) ([]byte, error) {
	if len(rows) != tileWidth {
		return nil, fmt.Errorf("pack bundle: %d entries, want %d", len(rows), tileWidth)
	}
	b := packColumns(nil, rows)
	for i := range rows {
		b = append(b, rows[i].open.kind)
	}
	segments, refs := packSegments(rows, keys != nil)
	for i, at := 0, rows[0].leaf.Index; keys != nil && i < len(segments); i++ {
		if s := &segments[i]; s.secrets > 0 { // else there is nothing in it, and no key to be drawn
			if err := keys.sealSegment(s, id, at); err != nil {
				return nil, fmt.Errorf("pack bundle: %w", err)
			}
		}
		at += uint64(segments[i].count)
	}
	for i := range rows {
		if packedKind(rows[i].open.kind) {
			b = binary.AppendUvarint(b, uint64(refs[i]))
		}
	}
	for i := range rows {
		if packedKind(rows[i].open.kind) {
			b = binary.AppendUvarint(b, uint64(len(rows[i].open.payload)))
		}
	}
	for i := range rows {
		if rows[i].open.kind == kindErased {
			b = binary.AppendUvarint(b, rows[i].open.erased)
			b = append(b, rows[i].leaf.Commitment[:]...)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(segments)))
	blobs := 0
	for _, s := range segments {
		if b = append(b, s.form); s.form == segmentKeyed {
			b = binary.AppendVarint(b, s.hour)
			b = binary.AppendUvarint(b, uint64(s.generation))
			b = append(b, s.nonce[:]...)
		}
		for _, n := range []int{s.count, s.secrets, s.length, len(s.blob)} {
			b = binary.AppendUvarint(b, uint64(n))
		}
		blobs += len(s.blob)
	}
	columns := packer().EncodeAll(b, nil)
	out := make([]byte, 0, len(packMagic)+2*binary.MaxVarintLen32+len(columns)+blobs)
	out = append(out, packMagic...)
	out = binary.AppendUvarint(out, uint64(len(b)))
	out = binary.AppendUvarint(out, uint64(len(columns)))
	out = append(out, columns...)
	for _, s := range segments {
		out = append(out, s.blob...)
	}
	return out, nil
}

// packOrder is the order of a bundle's entries in its segments: first those of
// the authors whose words are kept, then those that can be erased.
func packOrder(origin func(i int) record.Origin) (order [tileWidth]int) {
	n := 0
	for _, kind := range []keyKind{keyKept, keyErasable} {
		for i := range order {
			if kindOf(origin(i)) == kind {
				order[n] = i
				n++
			}
		}
	}
	return order
}

// packSegments packs the payloads, and returns for each entry the number of
// its salt or seed in its segment. A segment is of one kind of author, and of one
// hour where hours matter.
func packSegments(rows []packRow, hours bool) (segments []segment, refs []int) {
	refs = make([]int, len(rows))
	order := packOrder(func(i int) record.Origin { return rows[i].leaf.Origin })
	for from := 0; from < len(rows); {
		s := segment{form: segmentPlain, kind: kindOf(rows[order[from]].leaf.Origin)}
		var secrets, payloads []byte
		numbers := map[[32]byte]int{}
		for ; from+s.count < len(rows); s.count++ {
			i := order[from+s.count]
			o := &rows[i].open
			if kindOf(rows[i].leaf.Origin) != s.kind {
				break
			}
			if !packedKind(o.kind) {
				continue
			}
			hour := hourOf(rows[i].leaf.Wall)
			if len(numbers) > 0 && (hours && hour != s.hour || s.length > 0 && s.length+len(o.payload) > segmentBytes) {
				break
			}
			s.hour = hour
			n, ok := numbers[o.secret]
			if !ok {
				n = len(numbers)
				numbers[o.secret] = n
				secrets = append(secrets, o.secret[:]...)
			}
			refs[i] = n
			payloads = append(payloads, o.payload...)
			s.length = len(payloads)
		}
		s.secrets = len(numbers)
		s.blob = secrets
		if s.length > 0 {
			s.blob = packer().EncodeAll(payloads, secrets)
		}
		segments = append(segments, s)
		from += s.count
	}
	return segments, refs
}

// packCursor reads a packed bundle. Once it fails it gives zeros.
type packCursor struct {
	b   []byte
	bad bool
}

func (c *packCursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *packCursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *packCursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

// size reads a number that counts bytes or entries in memory.
func (c *packCursor) size() int {
	v := c.uvarint()
	if v > maxPacked {
		c.bad = true
		return 0
	}
	return int(v)
}

// unpackColumns is the inverse of packColumns.
func (c *packCursor) unpackColumns(rows []bundleRow) {
	for i, o := range c.take(len(rows)) {
		rows[i].leaf.Origin = record.Origin(o)
	}
	for i := range rows {
		v := c.uvarint()
		c.bad = c.bad || v > 0xffff
		rows[i].leaf.Header.Class = record.Class(v)
	}
	for i := range rows {
		v := c.uvarint()
		c.bad = c.bad || v > 0xffffffff
		rows[i].leaf.Header.Lane = uint32(v) - 1
	}
	var sessions []uint64
	for i := range rows {
		n := c.uvarint()
		if n > uint64(len(sessions)) {
			c.bad = true
			return
		}
		if n == uint64(len(sessions)) {
			id := c.take(8)
			if c.bad {
				return
			}
			sessions = append(sessions, binary.BigEndian.Uint64(id))
		}
		rows[i].leaf.Header.Session = sessions[n]
	}
	last := map[uint64]uint64{}
	for i := range rows {
		h := &rows[i].leaf.Header
		h.Sequence = last[h.Session] + uint64(c.varint())
		last[h.Session] = h.Sequence
	}
	lanes := map[packLane]uint64{}
	for i := range rows {
		h := &rows[i].leaf.Header
		k := packLane{h.Session, h.Lane}
		h.LaneSequence = lanes[k] + uint64(c.varint())
		lanes[k] = h.LaneSequence
	}
	clear(last)
	for i := range rows {
		h := &rows[i].leaf.Header
		h.Time = last[h.Session] + uint64(c.varint())
		last[h.Session] = h.Time
	}
	var mono, offset int64
	for i := range rows {
		mono += c.varint()
		rows[i].leaf.Mono = mono
	}
	for i := range rows {
		offset += c.varint()
		rows[i].leaf.Wall = rows[i].leaf.Mono + offset
	}
}

// parseBundle decodes a packed bundle of a log whose first entry has the given
// index. Payloads stay packed until they are asked for. The result keeps row.
func parseBundle(id LogID, first uint64, row []byte) (*bundle, error) {
	outer := packCursor{b: row}
	magic := string(outer.take(len(packMagic)))
	if magic != packMagic && magic != packMagic1 {
		return nil, fmt.Errorf("parse packed bundle: it begins neither with %q nor with %q", packMagic, packMagic1)
	}
	length, packed := outer.size(), outer.size()
	columns := outer.take(packed)
	if outer.bad {
		return nil, fmt.Errorf("parse packed bundle: %d bytes end before the columns do", len(row))
	}
	raw, err := unpack(columns, length)
	if err != nil {
		return nil, fmt.Errorf("parse packed bundle: columns: %w", err)
	}
	b := &bundle{log: id, first: first}
	c := packCursor{b: raw}
	c.unpackColumns(b.rows[:])
	for i, k := range c.take(tileWidth) {
		b.rows[i].kind = k
		b.rows[i].leaf.Index = first + uint64(i)
		c.bad = c.bad || k < kindSalt || k > kindErased
	}
	for i := range b.rows {
		if packedKind(b.rows[i].kind) {
			b.rows[i].secret = c.size()
		}
	}
	for i := range b.rows {
		if packedKind(b.rows[i].kind) {
			b.rows[i].length = c.size()
		}
	}
	for i := range b.rows {
		if b.rows[i].kind == kindErased {
			b.rows[i].erased = c.uvarint()
			copy(b.rows[i].leaf.Commitment[:], c.take(len(record.Hash{})))
		}
	}
	order := packOrder(func(int) record.Origin { return record.OriginHost }) // as they come
	if magic == packMagic {
		order = packOrder(func(i int) record.Origin { return b.rows[i].leaf.Origin })
	}
	c.parseSegments(b, &outer, &order)
	if c.bad || outer.bad || len(c.b) != 0 || len(outer.b) != 0 {
		return nil, fmt.Errorf("parse packed bundle: %d bytes do not make %d entries", len(row), tileWidth)
	}
	return b, nil
}

// parseSegments reads where the payloads are and checks that every entry lies
// in its segment.
func (c *packCursor) parseSegments(b *bundle, blobs *packCursor, order *[tileWidth]int) {
	n := c.size()
	next := 0
	for range n {
		s := &bundleSegment{}
		if form := c.take(1); !c.bad {
			s.form, s.place = form[0], b.first+uint64(next)
		}
		tag := 0
		if s.form != segmentPlain {
			s.hour = c.varint()
			if s.form == segmentKeyed {
				generation := c.uvarint()
				c.bad = c.bad || generation > 0xffffffff
				s.generation = uint32(generation)
			}
			copy(s.nonce[:], c.take(len(s.nonce)))
			tag = 16
		}
		s.count, s.secrets, s.length = c.size(), c.size(), c.size()
		s.blob = blobs.take(c.size())
		if c.bad || blobs.bad || s.form < segmentPlain || s.form > segmentKeyed || s.count == 0 || s.count > tileWidth-next || s.secrets > s.count || len(s.blob) < 32*s.secrets+tag {
			c.bad = true
			return
		}
		s.kind = kindOf(b.rows[order[next]].leaf.Origin)
		at := 0
		for _, i := range order[next : next+s.count] {
			r := &b.rows[i]
			r.segment = s
			if !packedKind(r.kind) {
				continue
			}
			r.offset = at
			at += r.length
			c.bad = c.bad || r.secret >= s.secrets || r.length > outsideBytes || s.form == segmentKeyed && kindOf(r.leaf.Origin) != s.kind
		}
		c.bad = c.bad || at != s.length
		b.weight += s.length + len(s.blob)
		next += s.count
	}
	c.bad = c.bad || next != tileWidth
}
