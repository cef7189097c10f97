package index

import (
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// maxChunkBytes bounds what the open chunk holds in memory.
const maxChunkBytes = 24 << 20

// termCost is what a term costs in memory besides its bytes.
const termCost = 96

// zone is what is known of a chunk without looking into it.
type zone struct {
	first    uint64 // ordinal of its first entry
	count    uint32
	min, max int64 // wall time
	end      chain.Position
	last     place // of its last entry
	lastHash record.Hash
}

// place says where an entry stands.
type place struct {
	log   chain.LogID
	index uint64
}

const zoneSize = 8 + 4 + 8 + 8 + 8 + 4 + 4 + 8 + 32

func (z *zone) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, z.first)
	b = binary.BigEndian.AppendUint32(b, z.count)
	b = binary.BigEndian.AppendUint64(b, uint64(z.min))
	b = binary.BigEndian.AppendUint64(b, uint64(z.max))
	b = binary.BigEndian.AppendUint64(b, z.end.Commit)
	b = binary.BigEndian.AppendUint32(b, z.end.Offset)
	b = binary.BigEndian.AppendUint32(b, uint32(z.last.log))
	b = binary.BigEndian.AppendUint64(b, z.last.index)
	return append(b, z.lastHash[:]...)
}

func parseZone(b []byte) (zone, error) {
	if len(b) != zoneSize {
		return zone{}, fmt.Errorf("parse zone: %d bytes, want %d", len(b), zoneSize)
	}
	z := zone{
		first: binary.BigEndian.Uint64(b), count: binary.BigEndian.Uint32(b[8:]),
		min: int64(binary.BigEndian.Uint64(b[12:])), max: int64(binary.BigEndian.Uint64(b[20:])),
		end:  chain.Position{Commit: binary.BigEndian.Uint64(b[28:]), Offset: binary.BigEndian.Uint32(b[36:])},
		last: place{chain.LogID(binary.BigEndian.Uint32(b[40:])), binary.BigEndian.Uint64(b[44:])}, lastHash: record.Hash(b[52:]),
	}
	if z.count == 0 || z.count > chunkSize {
		return zone{}, fmt.Errorf("parse zone: %d entries, want 1 to %d", z.count, chunkSize)
	}
	return z, nil
}

// run is a stretch of entries of one log.
type run struct {
	place
	at, count uint32 // places at to at+count-1
}

func appendRuns(b []byte, runs []run) []byte {
	for _, r := range runs {
		b = binary.AppendUvarint(b, uint64(r.log))
		b = binary.AppendUvarint(b, r.index)
		b = binary.AppendUvarint(b, uint64(r.count))
	}
	return b
}

func parseRuns(b []byte, count uint32) ([]run, error) {
	var runs []run
	at := uint64(0)
	for len(b) > 0 {
		var v [3]uint64
		for i := range v {
			n := 0
			if v[i], n = binary.Uvarint(b); n <= 0 {
				return nil, fmt.Errorf("parse runs: cut off")
			}
			b = b[n:]
		}
		if v[0] > 1<<32-1 || v[2] == 0 || v[2] > chunkSize || at+v[2] > uint64(count) {
			return nil, fmt.Errorf("parse runs: %d entries of log %d behind %d cannot be", v[2], v[0], at)
		}
		runs = append(runs, run{place{chain.LogID(v[0]), v[1]}, uint32(at), uint32(v[2])})
		at += v[2]
	}
	if at != uint64(count) {
		return nil, fmt.Errorf("parse runs: %d entries, want %d", at, count)
	}
	return runs, nil
}

// openChunk is the newest chunk: in memory only.
type openChunk struct {
	zone
	runs     []run
	terms    map[string]*[]uint16 // by kind and term
	sessions map[sessionKey][16]byte
	bytes    int
}

type sessionKey struct {
	log     chain.LogID
	session uint64
}

func newChunk(first uint64) *openChunk {
	return &openChunk{zone: zone{first: first}, terms: map[string]*[]uint16{}, sessions: map[sessionKey][16]byte{}}
}

func (c *openChunk) full() bool { return c.count == chunkSize || c.bytes >= maxChunkBytes }

// add takes an entry in. m is nil where the payload is erased or cannot be
// read: the entry is found by what its leaf says.
func (c *openChunk) add(i *chain.Item, m record.Message) {
	id, n := i.Log.ID(), uint16(c.count)
	if r := len(c.runs) - 1; r >= 0 && c.runs[r].log == id && c.runs[r].index+uint64(c.runs[r].count) == i.Index {
		c.runs[r].count++
	} else {
		c.runs = append(c.runs, run{place{id, i.Index}, c.count, 1})
		c.bytes += 24
	}
	if c.count == 0 {
		c.min, c.max = i.Leaf.Wall, i.Leaf.Wall
	}
	c.min, c.max = min(c.min, i.Leaf.Wall), max(c.max, i.Leaf.Wall)
	c.count++
	c.end, c.last, c.lastHash = i.Pos, place{id, i.Index}, i.LeafHash
	var key [1 + maxTerm]byte
	terms(id, i.Leaf.Header.Class, m, func(kind byte, term []byte) {
		key[0] = kind
		c.put(key[:1+copy(key[1:], term)], n)
	})
	if e, ok := m.(*record.Enrolled); ok && len(e.BootId) == 16 {
		c.sessions[sessionKey{id, e.Session}] = [16]byte(e.BootId)
		c.bytes += termCost
	}
}

func (c *openChunk) put(key []byte, n uint16) {
	list := c.terms[string(key)]
	if list == nil {
		list = new([]uint16)
		c.terms[string(key)] = list
		c.bytes += len(key) + termCost
	}
	if k := len(*list); k == 0 || (*list)[k-1] != n {
		*list = append(*list, n)
		c.bytes += 4 // append may have taken twice of what is needed
	}
}
