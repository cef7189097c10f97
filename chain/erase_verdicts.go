package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/provostd/provost/chain/record"
)

// judged is a verdict that quotes a record: the one which it judges, or an
// earlier step of the sequence that this one ended. shard is where the record stands, 0
// for the log of the verdict.
type judged struct {
	at, cause uint64
	shard     uint32
}

// quoted returns the records that a verdict quotes: those of its own log, or those of
// earlier shards.
func quoted(v *record.Verdict, at uint64, earlier bool) (all []judged) {
	add := func(shard uint32, index uint64) {
		if shard != 0 == earlier {
			all = append(all, judged{at, index, shard})
		}
	}
	add(v.CauseShard, v.CauseIndex)
	for _, s := range v.Steps {
		add(s.Shard, s.Index)
	}
	return all
}

// verdictsOf is which verdicts of a log are known, in this run: all that stand from
// entry since to before entry scanned, and quote its own records, or those of earlier
// shards. Retention asks each round for those on what has
// become too old since the round before, which may stand anywhere behind: it reads only
// what is new of the log. Guarded by Store.eraseMu.
type verdictsOf struct {
	since, scanned uint64
	all            []judged
}

// maxJudged bounds how many verdicts of one log are remembered, a megabyte: what stands
// behind them is read anew each time.
const maxJudged = 1 << 16

// forget drops what stands before an entry: the records before it have no words any more.
func (v *verdictsOf) forget(before uint64) {
	if before <= v.since {
		return
	}
	n, _ := slices.BinarySearchFunc(v.all, before, func(j judged, at uint64) int { return cmp.Compare(j.at, at) })
	v.since, v.scanned, v.all = before, max(v.scanned, before), slices.Delete(v.all, 0, n)
}

// selectVerdicts adds the verdicts on selected records: they quote them. All
// stand behind the record. One that is sealed behind the erasing entry quotes
// nothing, see Erasures. The caller holds eraseMu.
func (s *Store) selectVerdicts(ctx context.Context, l *Log, m *record.Erased) error {
	g := verdictGroups{m: m, groups: map[string]*record.ErasedVerdicts{}}
	return l.eachQuoting(ctx, &l.verdicts, quoting{ranges: m.Ranges, first: m.Ranges[0].First + 1}, func(at uint64, v *record.Verdict) error {
		if g.n == maxEraseVerdicts {
			return fmt.Errorf("more than %d verdicts are on the selected records; erase in parts: %w", maxEraseVerdicts, record.ErrReject)
		}
		g.add(at, v)
		return nil
	})
}

// quoting says which verdicts are looked for: from entry first on, on these records of
// the log, or of an earlier shard.
type quoting struct {
	shard  uint32 // 0: the log itself
	ranges []*record.EntryRange
	first  uint64
}

func (q *quoting) names(j judged) bool {
	return j.at >= q.first && j.shard == q.shard && inRanges(q.ranges, j.cause)
}

// eachQuoting calls add with the verdicts of the log that quote records, in order. The
// caller holds eraseMu, which guards known.
func (l *Log) eachQuoting(ctx context.Context, known *verdictsOf, q quoting, add func(at uint64, v *record.Verdict) error) error {
	if q.first < known.since || known.scanned == 0 {
		*known = verdictsOf{since: q.first, scanned: q.first}
	}
	last := uint64(0) // no verdict is entry 0
	for _, j := range known.all {
		if j.at == last || !q.names(j) || l.nextKept(j.at) != j.at {
			continue
		}
		v, err := l.verdict(j.at)
		if err == nil && v != nil {
			err = add(j.at, v)
			last = j.at
		}
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return err
		}
	}
	// What cannot be read for want of a key may be readable the next time.
	remember := true
	for i := l.nextKept(known.scanned); i < l.Size(); i = l.nextKept(i + 1) {
		if i%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v, err := l.verdict(i)
		switch {
		case errors.Is(err, ErrUnreadable):
			remember = remember && l.fenced(i) != nil
		case err != nil:
			return err
		case v == nil:
		default:
			causes := quoted(v, i, q.shard != 0)
			if remember = remember && len(known.all)+len(causes) <= maxJudged; remember {
				known.all = append(known.all, causes...)
			}
			if slices.ContainsFunc(causes, q.names) {
				if err := add(i, v); err != nil {
					return err
				}
			}
		}
		if remember {
			known.scanned = i + 1
		}
	}
	return nil
}

// verdict returns the verdict that an entry is, nil where it is something else, was
// erased before, or is of a newer version, whose words nobody can tell.
func (l *Log) verdict(i uint64) (*record.Verdict, error) {
	leaf, err := l.readHeader(i)
	if err != nil || !isVerdict(&leaf) {
		return nil, err
	}
	item, err := l.Item(i)
	if err != nil {
		return nil, err
	}
	decoded, err := item.Decode()
	v, ok := decoded.(*record.Verdict)
	if err != nil || !ok {
		return nil, nil
	}
	return v, nil
}

// verdictGroups makes groups of the verdicts that an erasure takes along.
type verdictGroups struct {
	m      *record.Erased
	groups map[string]*record.ErasedVerdicts
	n      int
}

func (g *verdictGroups) add(i uint64, v *record.Verdict) {
	g.n++
	one := &record.ErasedVerdicts{Policy: v.Policy, Severity: v.Severity, Mode: v.Mode, Error: v.Error != "", WouldHave: v.WouldHave}
	for _, a := range v.Actions {
		one.Actions = append(one.Actions, a.Kind)
	}
	key := fmt.Sprintf("%q %q %q %q %v %v", one.Policy, one.Severity, one.Mode, one.Actions, one.Error, one.WouldHave)
	if g.groups[key] == nil {
		g.groups[key] = one
		g.m.Verdicts = append(g.m.Verdicts, one)
	}
	g.groups[key].Entries = append(g.groups[key].Entries, i)
}

// isVerdict reports whether an entry may quote the record that it judges.
func isVerdict(leaf *record.Leaf) bool {
	c := leaf.Header.Class
	return leaf.Origin == record.OriginPolicy && (c == record.ClassPolicyVerdict || c == record.ClassPolicyError || c == record.ClassPolicyMismatch)
}

// inRanges reports whether an entry is in one of the ranges, which ascend.
func inRanges(ranges []*record.EntryRange, index uint64) bool {
	i := sort.Search(len(ranges), func(i int) bool { return ranges[i].Last >= index })
	return i < len(ranges) && ranges[i].First <= index
}
