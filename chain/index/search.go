package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Found is an entry that a query wants.
type Found struct {
	chain.Item
	Ordinal uint64 // its place in the order of the whole ledger
	// Message is the payload; nil where it was erased or cannot be read.
	Message record.Message
}

// Stats says what a search has cost.
type Stats struct {
	Chunks   int // looked into
	Examined int // entries read
	// Cut says that the budget is spent, and Next where to go on.
	Cut  bool
	Next uint64
}

// Find yields what the query wants, in its order, read from the ledger and
// checked. An error ends it. stats may be nil.
func (x *Index) Find(ctx context.Context, q *Query, stats *Stats) iter.Seq2[*Found, error] {
	if stats == nil {
		stats = &Stats{}
	}
	s := &search{x: x, q: q, probes: q.probes(), stats: stats}
	return func(yield func(*Found, error) bool) {
		if q.NoLog {
			return
		}
		x.mu.RLock()
		last := len(x.zones) // the open chunk
		x.mu.RUnlock()
		for k := 0; k <= last; k++ {
			chunk := last - k
			if q.Oldest {
				chunk = k
			}
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			if !s.chunk(ctx, uint32(chunk), yield) {
				return
			}
		}
	}
}

type search struct {
	x      *Index
	q      *Query
	probes []probe
	stats  *Stats
}

// chunk yields what one chunk holds and reports whether to go on.
func (s *search) chunk(ctx context.Context, chunk uint32, yield func(*Found, error) bool) bool {
	z, runs, set, err := s.candidates(chunk)
	if err != nil {
		yield(nil, err)
		return false
	}
	if set == nil {
		return true
	}
	at, step := 0, func(n int) int { return set.next(n + 1) }
	if s.q.Oldest {
		at = set.next(s.bound(z, 0))
	} else {
		at, step = set.before(s.bound(z, chunkSize-1)), func(n int) int { return set.before(n - 1) }
	}
	for ; at >= 0; at = step(at) {
		if ctx.Err() != nil {
			yield(nil, context.Cause(ctx))
			return false
		}
		if s.q.Budget > 0 && s.stats.Examined >= s.q.Budget {
			s.stats.Cut, s.stats.Next = true, z.first+uint64(at)
			return false
		}
		f, err := s.read(z, runs, uint32(at))
		if err != nil {
			yield(nil, err)
			return false
		}
		if f != nil && !yield(f, nil) {
			return false
		}
	}
	return true
}

// bound is where in a chunk the query begins.
func (s *search) bound(z *zone, otherwise int) int {
	if s.q.From == nil {
		return otherwise
	}
	switch from := *s.q.From; { // chunks that lie beyond it are excluded already
	case from < z.first:
		return 0
	case from-z.first >= chunkSize:
		return chunkSize - 1
	default:
		return int(from - z.first)
	}
}

// excluded tells a chunk that cannot hold anything wanted.
func (s *search) excluded(z *zone) bool {
	q := s.q
	if z.count == 0 || q.Since != 0 && z.max < q.Since || q.Until != 0 && z.min > q.Until {
		return true
	}
	if q.From == nil {
		return false
	}
	return q.Oldest && *q.From >= z.first+uint64(z.count) || !q.Oldest && *q.From < z.first
}

// candidates returns the places of a chunk that all filters admit, as far as
// its terms tell; nil where there are none.
func (s *search) candidates(chunk uint32) (*zone, []run, *places, error) {
	x := s.x
	x.mu.RLock()
	if int(chunk) == len(x.zones) {
		defer x.mu.RUnlock()
		z := x.open.zone
		if s.excluded(&z) {
			return nil, nil, nil, nil
		}
		s.stats.Chunks++
		set, err := s.intersect(&z, x.open.collect)
		return &z, slices.Clone(x.open.runs), set, err
	}
	z := x.zones[chunk]
	x.mu.RUnlock()
	if s.excluded(&z) {
		return nil, nil, nil, nil
	}
	s.stats.Chunks++
	set, err := s.intersect(&z, func(p *probe, into *places) error { return x.collect(chunk, p, into) })
	if err != nil || set == nil {
		return nil, nil, nil, err
	}
	var runs []run
	ok, err := x.get(keyChunk(tableRuns, chunk), func(b []byte) (err error) {
		runs, err = parseRuns(b, z.count)
		return err
	})
	if err == nil && !ok {
		err = damaged(keyChunk(tableRuns, chunk), errors.New("row is missing"))
	}
	return &z, runs, set, err
}

func (s *search) intersect(z *zone, collect func(*probe, *places) error) (*places, error) {
	set := &places{}
	set.fill(int(z.count))
	for i := range s.probes {
		var one places
		if err := collect(&s.probes[i], &one); err != nil {
			return nil, err
		}
		if !set.and(&one) {
			return nil, nil
		}
	}
	return set, nil
}

// cut is a term as it is kept.
func cut(term []byte) []byte { return term[:min(len(term), maxTerm)] }

// takes decides on a kept term: one that was cut may be anything.
func (p *probe) takes(term []byte) bool { return p.ok == nil || len(term) == maxTerm || p.ok(term) }

// collect adds the places which a probe admits. The index must be locked.
func (c *openChunk) collect(p *probe, into *places) error {
	add := func(list *[]uint16) {
		if list != nil {
			for _, n := range *list {
				into.add(n)
			}
		}
	}
	if p.exact != nil {
		for _, t := range p.exact {
			add(c.terms[string(p.kind)+string(cut(t))])
		}
		return nil
	}
	prefix := string(p.kind) + string(cut(p.prefix))
	for t, list := range c.terms {
		if strings.HasPrefix(t, prefix) && p.takes([]byte(t[1:])) {
			add(list)
		}
	}
	return nil
}

// collect adds the places of a chunk on disk which a probe admits.
func (x *Index) collect(chunk uint32, p *probe, into *places) error {
	if p.exact != nil {
		for _, t := range p.exact {
			key := keyTerm(chunk, append([]byte{p.kind}, cut(t)...))
			if _, err := x.get(key, into.addPlaces); err != nil {
				return err
			}
		}
		return nil
	}
	lower := keyTerm(chunk, append([]byte{p.kind}, cut(p.prefix)...))
	return x.scan(lower, endOf(lower), func(key, value []byte) (bool, error) {
		if !p.takes(key[termPrefix+1:]) {
			return true, nil
		}
		return true, into.addPlaces(value)
	})
}

// read reads a candidate and checks it; nil where it is not wanted.
func (s *search) read(z *zone, runs []run, n uint32) (*Found, error) {
	if n >= z.count {
		return nil, nil
	}
	r := runs[sort.Search(len(runs), func(i int) bool { return runs[i].at > n })-1]
	l, ok := s.x.cfg.Store.LogByID(r.log)
	if !ok {
		return nil, fmt.Errorf("entry of log number %d, which the ledger has not: %w", r.log, ErrDamaged)
	}
	s.stats.Examined++
	i, err := l.Look(r.index + uint64(n-r.at))
	if errors.Is(err, chain.ErrPruned) {
		return nil, nil // since the place was found
	}
	if err != nil {
		return nil, err
	}
	f := &Found{Item: i, Ordinal: z.first + uint64(n), Message: decode(&i)}
	if ok, err := s.wants(f); err != nil || !ok {
		return nil, err
	}
	return f, nil
}

// wants decides on the entry itself.
func (s *search) wants(f *Found) (bool, error) {
	q, l := s.q, &f.Leaf
	if q.Since != 0 && l.Wall < q.Since || q.Until != 0 && l.Wall > q.Until {
		return false, nil
	}
	var met uint64 // bit i: probe i; there are far fewer than 64
	terms(f.Log.ID(), l.Header.Class, f.Message, func(kind byte, term []byte) {
		for i := range s.probes {
			if p := &s.probes[i]; p.kind == kind && p.admits(term) {
				met |= 1 << i
			}
		}
	})
	if met != 1<<len(s.probes)-1 {
		return false, nil
	}
	for _, p := range []*Process{&q.Process, &q.parent, &q.object} {
		if p.Boot == [16]byte{} {
			continue
		}
		boot, ok, err := s.x.bootOf(f.Log.ID(), l.Header.Session)
		if err != nil || !ok || boot != p.Boot {
			return false, err
		}
	}
	return true, nil
}
