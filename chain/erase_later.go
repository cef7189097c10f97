package chain

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// eraseLater takes along, in the later shards of the log's incarnation, what quotes the
// erased records: verdicts, and what policies remember, which goes on from shard to
// shard. In each of those that has any, and in the newest, where policies remember, an
// entry says so. A shard that begins later begins without it: the entry that it follows
// from is sealed. A crash amid it has those sealed again that were, which changes
// nothing.
func (s *Store) eraseLater(ctx context.Context, p *erasure) error {
	if len(p.m.GetRanges()) == 0 {
		return nil // it follows another one
	}
	later := s.laterShards(p.log)
	for i, l := range later {
		if err := s.eraseIn(ctx, l, p, i == len(later)-1); err != nil {
			return fmt.Errorf("erase from %s what quotes it: %w", l.origin, err)
		}
	}
	return nil
}

// eraseMissed takes along the verdicts that quote the erased records and were sealed
// behind the look for them, ahead of the entry that erases: nothing keeps those who judge
// from going on meanwhile. Behind that entry nobody seals any, see Erasures. A crash
// amid it has them looked for again.
func (s *Store) eraseMissed(ctx context.Context, p *erasure) error {
	ranges := p.m.GetRanges()
	if len(ranges) == 0 {
		return nil // it follows another one
	}
	var all []*record.Erased
	var g verdictGroups
	err := p.log.eachQuoting(ctx, &p.log.verdicts, quoting{ranges: ranges, first: ranges[0].First + 1}, func(at uint64, v *record.Verdict) error {
		if len(all) == 0 || g.n == maxEraseVerdicts {
			m := &record.Erased{Reason: p.m.Reason, Authority: p.m.Authority}
			g = verdictGroups{m: m, groups: map[string]*record.ErasedVerdicts{}}
			all = append(all, m)
		}
		p.missed++
		g.add(at, v)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for verdicts that quote it: %w", err)
	}
	return s.eraseAll(ctx, p.log, all)
}

// eraseAll does erasures of verdicts, one after the other. The caller holds eraseMu.
func (s *Store) eraseAll(ctx context.Context, l *Log, all []*record.Erased) error {
	for _, m := range all {
		p, err := s.sealErasure(ctx, l, m)
		if err != nil {
			return err
		}
		if err := s.finishErasure(s.background, p); err != nil {
			return fmt.Errorf("entry %d; it is finished at the next start: %w", p.index, err)
		}
	}
	return nil
}

// laterShards returns the shards behind a log in its incarnation, in order.
func (s *Store) laterShards(l *Log) (later []*Log) {
	for _, o := range s.Logs() {
		if o.name.Domain == l.name.Domain && o.name.Incarnation == l.name.Incarnation && o.name.Shard > l.name.Shard && !o.name.IsHost() && o.Gone() == nil {
			later = append(later, o)
		}
	}
	slices.SortFunc(later, func(a, b *Log) int { return cmp.Compare(a.name.Shard, b.name.Shard) })
	return later
}

// eraseIn is eraseLater for one of the shards. The caller holds eraseMu.
func (s *Store) eraseIn(ctx context.Context, l *Log, of *erasure, newest bool) error {
	var all []*record.Erased
	var g verdictGroups
	begin := func() {
		m := &record.Erased{EarlierShard: of.log.name.Shard, Earlier: of.m.Ranges, Reason: of.m.Reason, Authority: of.m.Authority}
		g = verdictGroups{m: m, groups: map[string]*record.ErasedVerdicts{}}
		all = append(all, m)
	}
	if newest {
		begin()
	}
	err := l.eachQuoting(ctx, &l.abroad, quoting{shard: of.log.name.Shard, ranges: of.m.Ranges, first: 1}, func(at uint64, v *record.Verdict) error {
		if len(all) == 0 || g.n == maxEraseVerdicts {
			begin()
		}
		g.add(at, v)
		return nil
	})
	if err != nil {
		return err
	}
	return s.eraseAll(ctx, l, all)
}
