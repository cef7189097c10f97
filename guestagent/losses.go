package guestagent

import (
	"cmp"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// maxLostCounts bounds a Lost payload; the rest is summed up without its class.
const maxLostCounts = 1000

type lossKey struct {
	lane   uint32
	class  record.Class
	reason record.LossReason
}

// losses gathers what was lost until the next frame tells of it. The agent's
// lock guards it.
type losses struct {
	counts   map[lossKey]uint64
	from, to uint64
}

func (l *losses) add(k lossKey, n, now uint64) {
	if l.counts == nil {
		l.counts = map[lossKey]uint64{}
	}
	if len(l.counts) == 0 {
		l.from, l.to = now, now
	}
	l.from, l.to = min(l.from, now), max(l.to, now)
	if len(l.counts) >= maxLostCounts {
		if _, ok := l.counts[k]; !ok {
			k.class = 0 // one for each lane and reason remains
		}
	}
	l.counts[k] += n
}

func (l *losses) any() bool { return len(l.counts) > 0 }

// take empties l into a payload. Order is fixed, so that equal losses have
// equal bytes.
func (l *losses) take() *record.Lost {
	p := &record.Lost{From: l.from, To: l.to, Author: "guest"}
	for k, n := range l.counts {
		p.Counts = append(p.Counts, &record.LostCount{Class: uint32(k.class), Lane: k.lane, Reason: k.reason, Count: n})
	}
	sortCounts(p.Counts)
	l.counts = nil
	return p
}

func sortCounts(c []*record.LostCount) {
	slices.SortFunc(c, func(a, b *record.LostCount) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Reason, b.Reason))
	})
}
