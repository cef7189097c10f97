package probe

import (
	"fmt"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// finishRounds bounds what Finish reads: more than both rings hold.
const finishRounds = 64

// laneClass is what events that will never come are counted by.
type laneClass struct {
	lane  uint32
	class record.Class
}

// Finish gives account of what Run has left behind: a storm goes on while the
// agent ends. Up to the sequence that each lane has reached when it is called,
// every event has been observed, or is told to be lost now. It is called once,
// after the last Run: what it counts is not observed any more.
func (p *Probe) Finish(sink Sink) error {
	reached, err := p.stats.counted()
	if err != nil {
		return fmt.Errorf("finish probe: %w", err)
	}
	if err := p.takeSums(bootTime(), true); err != nil {
		return fmt.Errorf("finish probe: %w", err)
	}
	p.tellSums(sink)
	left, err := p.leftInRings(reached)
	if err != nil {
		return fmt.Errorf("finish probe: %w", err)
	}
	if err := p.stats.tell(sink); err != nil {
		return fmt.Errorf("finish probe: %w", err)
	}
	const reason = record.LossReason_LOSS_REASON_AGENT_ENDED
	account := map[uint32]uint64{}
	for k, n := range left {
		account[k.lane] += n
		sink.Lose(k.lane, k.class, reason, n)
	}
	for lane, n := range reached {
		known := account[lane] + p.accounted[lane] + p.stats.droppedOf(lane)
		if n > known { // a program has taken the number and not put the event into the ring yet
			sink.Lose(lane, 0, reason, n-known)
		}
	}
	sink.Flush()
	return nil
}

// leftInRings counts what is in the rings below the sequences reached.
func (p *Probe) leftInRings(reached map[uint32]uint64) (map[laneClass]uint64, error) {
	left := map[laneClass]uint64{}
	for range finishRounds {
		_, more, err := p.rings.next(true, func(_ int, b []byte) {
			b, err := unpack(p.unpacked[:0], b)
			if err != nil {
				return
			}
			p.unpacked = b
			h, err := as[bpf.ProbeEventHead](b)
			if err != nil || bpf.ProbeEventFlag(h.Flags)&bpf.ProbeEventFlagFL_NOTE != 0 {
				return
			}
			if l := lane(&h); p.sequence(&h) < reached[l] {
				left[laneClass{l, classOf(h.Type)}]++
			}
		})
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	return left, nil
}
