package mirror

import (
	"errors"
	"testing"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestKeyBehindGap has a key be unknown for a gap that is told of until the next one is
// enrolled, and no longer: entries that are pruned behind it are no such gap.
func TestKeyBehindGap(t *testing.T) {
	const origin, frame = "a log", 2 * pruneUnit
	check := func(enrolled bool) *logCheck {
		v := &verification{r: &Report{}, vouched: &evidence{manifest: Manifest{Damage: []uint64{7}}}}
		v.opts.Frame = func(_, _, _ []byte) (proof.Frame, error) { return proof.Frame{}, errors.New("it is forged") }
		v.damaged.add(7, &record.Damage{Origin: origin, First: 1, Last: 1, Done: "fenced"})
		v.damaged.sort()
		c := &logCheck{v: v, origin: origin, r: &LogReport{}, agents: &agents{parents: map[string][]byte{}}}
		entry := func(index uint64, class record.Class, m record.Message) {
			leaf := record.Leaf{Origin: record.OriginHost, Index: index, Header: record.Header{Class: class}}
			c.agents.entry(c, &leaf, index, &opened{message: m})
		}
		c.lack(1, "it is left out")
		if enrolled {
			entry(2, record.ClassAgentEnrolled, &record.Enrolled{Key: []byte("a key"), Session: 1})
		}
		c.agents.cut()
		c.pruned.end = pruneUnit
		entry(frame, record.ClassAgentFrame, &record.Frame{})
		c.agents.settle(c)
		c.endLost()
		return c
	}
	if c := check(false); c.v.told != len(c.v.r.Failures) || c.lost.frames != 1 {
		t.Errorf("no key was enrolled behind the gap: %v", c.v.r.Failures)
	}
	c := check(true)
	if n := len(c.v.r.Failures); c.v.told != 1 || n != 2 || c.v.r.Failures[n-1].Kind != KindSignature || *c.v.r.Failures[n-1].Index != frame {
		t.Errorf("a key was enrolled behind the gap, and a forged frame is taken for a part of it: %v", c.v.r.Failures)
	}
}
