package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Retention says how long parts of VM logs are kept, counted from when an entry was
// sealed, on the host's clocks. Zero means for ever. Checkpoints, level-1 tiles and
// above, and the host log are always kept for ever.
type Retention struct {
	Payloads time.Duration // what guests have said, and verdicts that quote it
	Leaves   time.Duration // entries, with what is left of their payloads
	Tiles    time.Duration // leaf hashes, which prove that an entry was there
}

// Check refuses a retention under which something would be kept longer than what
// proves it (invariant I10).
func (r Retention) Check() error {
	ages := []struct {
		name string
		age  time.Duration
	}{{"payloads", r.Payloads}, {"leaves", r.Leaves}, {"tiles", r.Tiles}}
	for i, a := range ages {
		if a.age < 0 || a.age > 0 && a.age < time.Hour {
			return fmt.Errorf("%s are kept for %s, want an hour or more: %w", a.name, a.age, record.ErrReject)
		}
		if i == 0 || a.age == 0 {
			continue
		}
		switch before := ages[i-1]; {
		case before.age == 0:
			return fmt.Errorf("%s are kept for %s and %s for ever: they cannot outlast them: %w", a.name, a.age, before.name, record.ErrReject)
		case before.age > a.age:
			return fmt.Errorf("%s are kept for %s and %s for %s: they cannot outlast them: %w", a.name, a.age, before.name, before.age, record.ErrReject)
		}
	}
	return nil
}

const (
	// retainScan bounds how many entries of a log one round goes over for each tier.
	retainScan = 1 << 18
	// retainSoon is when the next round comes where one has left something.
	retainSoon = time.Minute
)

// retained is how far the keeper has come in a log, in this run: all entries
// before are old enough, and for payloads erased. Guarded by Store.retainMu.
type retained struct{ payloads, leaves, tiles uint64 }

// RetentionStats are figures of the keeper.
type RetentionStats struct {
	Rounds   atomic.Uint64
	Failures atomic.Uint64 // logs that a round could not deal with
	Erased   atomic.Uint64 // records
	Pruned   atomic.Uint64 // entries
	Tiles    atomic.Uint64 // entries whose leaf hashes are gone
}

// RetentionStats returns the keeper's figures.
func (s *Store) RetentionStats() *RetentionStats { return &s.retention }

// retentionOf returns for how long a log's parts are kept.
func (s *Store) retentionOf(l *Log) Retention {
	if r, ok := s.cfg.DomainRetention[l.name.Domain]; ok {
		return r
	}
	return s.cfg.Retention
}

// retainLoop keeps what the retention says until ctx ends, one round after the
// other. What fails is told, counted, and tried again in the next round.
func (s *Store) retainLoop(ctx context.Context) {
	if s.cfg.unretained || s.cfg.Retention == (Retention{}) && len(s.cfg.DomainRetention) == 0 {
		return
	}
	next := time.NewTimer(min(retainSoon, s.cfg.RetainEvery))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		more, err := s.Retain(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("retention is not kept, it is tried again", slog.Any("error", err))
		}
		if next.Reset(s.cfg.RetainEvery); more {
			next.Reset(min(retainSoon, s.cfg.RetainEvery))
		}
	}
}

// Retain makes one round: of every VM log it erases payloads, and prunes entries
// and tiles, that are older than they are kept. more says that a bound of the round
// has left something.
func (s *Store) Retain(ctx context.Context) (more bool, err error) {
	s.retainMu.Lock()
	defer s.retainMu.Unlock()
	s.retention.Rounds.Add(1)
	// What goes does not come back, so a wall clock that steps forward ages nothing:
	// that of the store goes on as the host does.
	now := s.cfg.Now()
	if mono := time.Unix(0, s.clock.mono()); mono.Before(now) {
		now = mono
	}
	for _, l := range s.Logs() {
		if l.name.IsHost() || l.Gone() != nil {
			continue
		}
		some, lerr := s.retainLog(ctx, l, s.retentionOf(l), now)
		if more = more || some; lerr == nil {
			continue
		}
		// One log that is damaged keeps no other one longer.
		if ctx.Err() != nil || s.Err() != nil || errors.Is(lerr, ErrClosed) {
			return more, errors.Join(err, lerr)
		}
		s.retention.Failures.Add(1)
		err = errors.Join(err, fmt.Errorf("retention of %s: %w", l.origin, lerr))
	}
	return more, err
}

func (s *Store) retainLog(ctx context.Context, l *Log, r Retention, now time.Time) (more bool, err error) {
	if r.Payloads > 0 {
		// Whole hours, so that their keys go with them.
		cutoff := now.Add(-r.Payloads).Truncate(time.Hour)
		if more, err = s.retainPayloads(ctx, l, cutoff, rule("payloads", r.Payloads)); err != nil {
			return more, err
		}
	}
	// No erasure begins while rows go, and none that is not done loses the entry that
	// tells of it.
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	if list := l.erasing.Load(); list != nil && len(*list) > 0 && r.Leaves > 0 {
		return more, fmt.Errorf("nothing is pruned before the erasure in entry %d is finished", (*list)[0].index)
	}
	// An entry goes behind its payload, covered by a checkpoint, and not the last
	// bundle that the packer has come past: the log goes on from there.
	packed := l.packed.Load()
	limit := min(l.kept.payloads, (packed-min(packed, 1))*tileWidth)
	if p := l.published.Load(); p != nil {
		limit = min(limit, p.Size)
	} else {
		limit = 0
	}
	for _, tier := range []struct {
		what string
		keep time.Duration
		at   *uint64
		have func(*pruned) uint64
		n    *atomic.Uint64
	}{
		{prunedLeaves, r.Leaves, &l.kept.leaves, func(p *pruned) uint64 { return p.leaves }, &s.retention.Pruned},
		{prunedTiles, r.Tiles, &l.kept.tiles, func(p *pruned) uint64 { return p.tiles }, &s.retention.Tiles},
	} {
		if tier.keep == 0 {
			break
		}
		have := uint64(0)
		if p := l.pruned.Load(); p != nil {
			have = tier.have(p)
		}
		*tier.at = max(*tier.at, have)
		if tier.what == prunedLeaves {
			some, err := l.aged(ctx, tier.at, limit, now.Add(-tier.keep))
			if more = more || some; err != nil {
				return more, err
			}
		} else if *tier.at, err = l.agedTiles(*tier.at, now.Add(-tier.keep)); err != nil {
			return more, err
		}
		if to := *tier.at / pruneUnit * pruneUnit; to > have {
			if err := s.prune(ctx, l, tier.what, to, now.Add(-tier.keep), rule(tier.what, tier.keep)); err != nil {
				return more, err
			}
			tier.n.Add(to - have)
		}
	}
	return more, nil
}

func rule(what string, keep time.Duration) string {
	age := keep.String()
	if day := 24 * time.Hour; keep%day == 0 {
		age = fmt.Sprintf("%d days", keep/day)
	}
	return "retention: " + what + " are kept for " + age
}

// aged moves at over the entries that were sealed before the cutoff, up to limit
// and at most retainScan of them; more says that it came to that.
func (l *Log) aged(ctx context.Context, at *uint64, limit uint64, cutoff time.Time) (more bool, err error) {
	for end := *at + retainScan; *at < limit; {
		if *at == end {
			return true, nil
		}
		if *at%4096 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if kept := l.nextKept(*at); kept != *at {
			*at = min(kept, limit)
			end = *at + retainScan
			continue
		}
		leaf, err := l.readHeader(*at)
		if errors.Is(err, ErrUnreadable) {
			*at++ // as old as those around it
			continue
		}
		if err != nil {
			return false, err
		}
		// The later of both clocks: the wall clock may have been behind, and was set.
		if !time.Unix(0, max(leaf.Wall, leaf.Mono)).Before(cutoff) {
			return false, nil
		}
		*at++
	}
	return false, nil
}

// agedTiles returns up to where the leaf hashes of pruned entries are old enough.
// The entries are gone, so it goes by how old they were when they went.
func (l *Log) agedTiles(from uint64, cutoff time.Time) (uint64, error) {
	p := l.pruned.Load()
	if p == nil || p.leaves <= from {
		return from, nil
	}
	steps := p.steps
	if len(steps) == 0 {
		// A row of before: they were sealed before the entry that tells of them.
		leaf, err := l.readHeader(p.leavesBy)
		if errors.Is(err, ErrUnreadable) || errors.Is(err, ErrPruned) {
			return from, nil // the next pruning of entries stands for them as well
		}
		if err != nil {
			return from, err
		}
		steps = []pruneStep{{p.leaves, max(leaf.Wall, leaf.Mono)}}
	}
	for _, s := range steps {
		if s.before <= cutoff.UnixNano() {
			from = max(from, s.end)
		}
	}
	return from, nil
}

// retainPayloads erases what guests have said before the cutoff, as far as one
// round goes.
func (s *Store) retainPayloads(ctx context.Context, l *Log, cutoff time.Time, why string) (more bool, err error) {
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	if s.background.Err() != nil {
		return false, ErrClosed
	}
	from := max(l.kept.payloads, l.Minimum())
	to := from
	if more, err = l.aged(ctx, &to, l.Size(), cutoff); err != nil {
		return more, err
	}
	for to > from {
		one, err := s.eraseOf(ctx, l, EraseSelection{Log: l, Range: &proof.Range{First: from, Last: to - 1}}, why, "configuration")
		if errors.Is(err, record.ErrReject) && to-from > 1 {
			to, more = from+(to-from)/2, true // more separate ranges than one entry may list
			continue
		}
		if err != nil {
			return more, err
		}
		s.retention.Erased.Add(one.Records)
		break
	}
	l.kept.payloads = to
	l.verdicts.forget(to)
	return more, nil
}
