package index

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// chunkSize is the largest number of entries of a chunk. Part of the format.
const chunkSize = 1 << 15

// places is a set of places in a chunk.
type places [chunkSize / 64]uint64

func (p *places) add(n uint16) { p[n/64] |= 1 << (n % 64) }

func (p *places) has(n uint16) bool { return p[n/64]&(1<<(n%64)) != 0 }

// and keeps what is in q as well and reports whether anything is left.
func (p *places) and(q *places) bool {
	var any uint64
	for i := range p {
		p[i] &= q[i]
		any |= p[i]
	}
	return any != 0
}

// fill adds all places below n.
func (p *places) fill(n int) {
	for i := range p {
		switch {
		case n >= 64:
			p[i], n = ^uint64(0), n-64
		default:
			p[i], n = 1<<n-1, 0
		}
	}
}

// next returns the smallest member that is at least from, or -1.
func (p *places) next(from int) int {
	for from < chunkSize {
		if w := p[from/64] >> (from % 64); w != 0 {
			return from + bits.TrailingZeros64(w)
		}
		from = (from/64 + 1) * 64
	}
	return -1
}

// before returns the greatest member that is at most from, or -1.
func (p *places) before(from int) int {
	for from >= 0 {
		if w := p[from/64] << (63 - from%64); w != 0 {
			return from - bits.LeadingZeros64(w)
		}
		from = from/64*64 - 1
	}
	return -1
}

// Forms of a places row. Part of the format.
const (
	placesVarint = 0
	placesBitmap = 1

	maxVarint = chunkSize / 8 // members of the first form: more take less as bits
)

// appendPlaces encodes ascending places.
func appendPlaces(b []byte, list []uint16) []byte {
	if len(list) <= maxVarint {
		b = append(b, placesVarint)
		last := -1
		for _, n := range list {
			b = binary.AppendUvarint(b, uint64(int(n)-last))
			last = int(n)
		}
		return b
	}
	b = append(b, placesBitmap)
	at := len(b)
	b = append(b, make([]byte, chunkSize/8)...)
	for _, n := range list {
		b[at+int(n/8)] |= 1 << (n % 8)
	}
	return b
}

// addPlaces adds the places of a row to p.
func (p *places) addPlaces(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("parse places: no byte")
	}
	form, b := b[0], b[1:]
	switch {
	case form == placesVarint:
		last := -1
		for len(b) > 0 {
			d, n := binary.Uvarint(b)
			if n <= 0 || d == 0 || d > chunkSize || last+int(d) >= chunkSize {
				return fmt.Errorf("parse places: a difference behind place %d cannot be", last)
			}
			last += int(d)
			p.add(uint16(last))
			b = b[n:]
		}
		return nil
	case form == placesBitmap && len(b) == chunkSize/8:
		for i := range p {
			p[i] |= binary.LittleEndian.Uint64(b[8*i:])
		}
		return nil
	}
	return fmt.Errorf("parse places: form %d of %d bytes is unknown", form, len(b))
}

// list returns the members in order.
func (p *places) list() []uint16 {
	var out []uint16
	for n := p.next(0); n >= 0; n = p.next(n + 1) {
		out = append(out, uint16(n))
	}
	return out
}
