package guestagent

import (
	"cmp"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// lanes keeps the books of every lane: what has arrived, what was dropped, and
// how far the lane is accounted for. Next, of which a statement speaks, is the
// largest number below which no more sequences are missing than drops are
// known. So counted - arrived - dropped is never above zero at the host, in
// whatever order records and counts come (invariant I4).
//
// Only the writer uses it.
type lanes struct {
	byNumber map[uint32]*laneBook
	touched  map[uint32]bool // since the last statement
}

type laneBook struct {
	base    uint64 // Next
	missing uint64 // sequences below base that have not arrived
	dropped uint64 // owned up to, over the session
	ahead   []span // arrived at or above base: apart, ascending
	since   uint64 // when the gap below ahead[0] was first seen, boot time
	told    uint64 // Next of the newest statement
	drops   []wire.Drop
}

// span is a run of sequences, to excluded.
type span struct{ from, to uint64 }

func newLanes() *lanes {
	return &lanes{byNumber: map[uint32]*laneBook{}, touched: map[uint32]bool{}}
}

func (l *lanes) book(lane uint32) *laneBook {
	b := l.byNumber[lane]
	if b == nil {
		b = &laneBook{}
		l.byNumber[lane] = b
	}
	l.touched[lane] = true
	return b
}

// arrived enters a record that goes into the frame being made.
func (l *lanes) arrived(lane uint32, sequence, now uint64) {
	if lane == record.NoLane {
		return
	}
	b := l.book(lane)
	switch {
	case sequence < b.base:
		// It had been taken for dropped; so another one was.
		if b.missing > 0 {
			b.missing--
		}
	default:
		b.insert(sequence)
	}
	b.advance(now)
}

// dropped enters n records that will never come.
func (l *lanes) dropped(d wire.Drop, lane uint32, now uint64) {
	if lane == record.NoLane {
		return
	}
	b := l.book(lane)
	b.dropped += d.Count
	for i := range b.drops {
		if b.drops[i].Class == d.Class && b.drops[i].Reason == d.Reason {
			b.drops[i].Count += d.Count
			b.advance(now)
			return
		}
	}
	if len(b.drops) >= wire.MaxDrops {
		b.drops[len(b.drops)-1].Count += d.Count // never fewer, if not by class
	} else {
		b.drops = append(b.drops, d)
	}
	b.advance(now)
}

func (b *laneBook) insert(s uint64) {
	i, found := slices.BinarySearchFunc(b.ahead, s, func(x span, s uint64) int { return cmp.Compare(x.from, s) })
	switch {
	case found: // twice: a source that broke its promise; nothing to count
	case i > 0 && s < b.ahead[i-1].to:
	case i > 0 && s == b.ahead[i-1].to:
		b.ahead[i-1].to++
		if i < len(b.ahead) && b.ahead[i].from == b.ahead[i-1].to {
			b.ahead[i-1].to = b.ahead[i].to
			b.ahead = slices.Delete(b.ahead, i, i+1)
		}
	case i < len(b.ahead) && b.ahead[i].from == s+1:
		b.ahead[i].from = s
	default:
		b.ahead = slices.Insert(b.ahead, i, span{s, s + 1})
	}
}

// advance moves base as far as the books allow.
func (b *laneBook) advance(now uint64) {
	for {
		if len(b.ahead) > 0 && b.ahead[0].from == b.base {
			b.base = b.ahead[0].to
			b.ahead = slices.Delete(b.ahead, 0, 1)
			b.since = 0
			continue
		}
		free := b.dropped - b.missing
		if free == 0 {
			break
		}
		if len(b.ahead) > 0 {
			free = min(free, b.ahead[0].from-b.base)
		}
		b.base += free
		b.missing += free
	}
	if len(b.ahead) > 0 && b.since == 0 {
		b.since = now
	}
}

// own gives up on gaps that are older than patience, on all if that is zero:
// they become drops for which the agent has no reason. It returns them.
func (l *lanes) own(now, patience uint64) []*record.LostCount {
	var counts []*record.LostCount
	for number, b := range l.byNumber {
		for len(b.ahead) > 0 && (patience == 0 || now-b.since > patience) {
			gap := b.ahead[0].from - b.base
			since := b.since
			d := wire.Drop{Reason: record.LossReason_LOSS_REASON_UNEXPLAINED, Count: gap}
			counts = append(counts, &record.LostCount{Lane: number, Reason: d.Reason, Count: gap})
			l.dropped(d, number, now)
			if len(b.ahead) > 0 && b.since == now {
				b.since = since // the next gap is as old as the one before it
			}
		}
	}
	return counts
}

// waiting reports whether a gap is open, so that somebody has to come back.
func (l *lanes) waiting() bool {
	for _, b := range l.byNumber {
		if len(b.ahead) > 0 {
			return true
		}
	}
	return false
}

// statement returns the lanes that have moved since the last one, ascending.
func (l *lanes) statement() []wire.Lane {
	var all []wire.Lane
	for number := range l.touched {
		b := l.byNumber[number]
		all = append(all, wire.Lane{Number: number, First: b.told, Next: b.base, Drops: b.drops})
		b.told, b.drops = b.base, nil
	}
	clear(l.touched)
	slices.SortFunc(all, func(a, b wire.Lane) int { return cmp.Compare(a.Number, b.Number) })
	return all
}
