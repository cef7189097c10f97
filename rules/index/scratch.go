package index

import (
	"math/bits"
	"unicode/utf8"
	"unsafe"
)

// Scratch holds the answer of one Find, and the memory to make it in. The zero
// value is ready; it belongs to one goroutine at a time.
type Scratch struct {
	x *Index
	// One bit for each part, and one for each word of them that has any set: so
	// each part is named once, in order, and nothing is sorted or cleared.
	parts, summary []uint64
	// seen tells which postings were named for the newest event, so that a
	// text full of the same word costs no more than one.
	seen       []uint32
	generation uint32
	low        []byte
}

// begin forgets what the last Find named.
func (s *Scratch) begin(x *Index) {
	for _, ok := s.Next(); ok; _, ok = s.Next() {
	}
	if s.x != x {
		words := (x.parts + 63) / 64
		s.x, s.generation = x, 0
		s.parts, s.summary = make([]uint64, words), make([]uint64, (words+63)/64)
		s.seen = make([]uint32, len(x.postings))
	}
	if s.generation++; s.generation == 0 { // after 2^32 events
		clear(s.seen)
		s.generation = 1
	}
}

func (s *Scratch) post(posting int32) {
	if s.seen[posting] == s.generation {
		return
	}
	s.seen[posting] = s.generation
	for _, p := range s.x.postings[posting] {
		s.name(p)
	}
}

func (s *Scratch) name(p int32) {
	s.parts[p>>6] |= 1 << (p & 63)
	s.summary[p>>12] |= 1 << (p >> 6 & 63)
}

// Next takes out the part with the least number; false where none is left.
func (s *Scratch) Next() (int, bool) {
	for i, words := range s.summary {
		if words == 0 {
			continue
		}
		w := i<<6 | bits.TrailingZeros64(words)
		p := w<<6 | bits.TrailingZeros64(s.parts[w])
		if s.parts[w] &= s.parts[w] - 1; s.parts[w] == 0 {
			s.summary[i] &= words - 1
		}
		return p, true
	}
	return 0, false
}

// lower returns t with its ASCII letters in lower case, valid until the next
// call, and whether it has nothing but ASCII.
func (s *Scratch) lower(t string) (low string, ascii bool) {
	ascii = true
	upper := false
	for i := 0; i < len(t); i++ {
		ascii = ascii && t[i] < utf8.RuneSelf
		upper = upper || 'A' <= t[i] && t[i] <= 'Z'
	}
	if !upper {
		return t, ascii
	}
	b := append(s.low[:0], t...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	s.low = b
	// Sound because nobody keeps the string: it is only searched.
	return unsafe.String(&b[0], len(b)), ascii
}
