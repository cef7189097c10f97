package rules

import (
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

// TestErasedCooldowns has an entry erase records on which cooldowns hang: those
// whose newest record it names end, with a report of what they swallowed.
func TestErasedCooldowns(t *testing.T) {
	policies, _, _ := strings.Cut(replayPolicies, `policy "by_nothing"`)
	f := &feed{}
	f.genesis(t, tagged)
	modify := func(path string) uint64 {
		fl := file(path)
		fl.Inode = 5
		f.add(t, time.Millisecond, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: fl})
		return uint64(len(f.leaves) - 1)
	}
	gone := modify("/etc/gone")
	modify("/etc/swallowed")
	swallowed := modify("/etc/swallowed")
	modify("/etc/kept")
	e, st := engine(t, load(t, policies), Options{}), &State{}
	if n := len(run(t, e, st, f)); n != 3 {
		t.Fatalf("%d verdicts before the erasure", n)
	}
	before := st.Cooldowns()
	more := &feed{}
	*more = *f
	more.add(t, time.Millisecond, record.OriginOperator, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: gone, Last: gone}, {First: swallowed, Last: swallowed}}})
	i := len(more.leaves) - 1
	verdicts, err := e.Eval(st, more.leaves[i], more.hashes[i], more.payloads[i])
	if err != nil || len(verdicts) != 1 || verdicts[0].Suppressed != 1 || verdicts[0].CauseIndex != swallowed {
		t.Fatalf("the erasure gives %v, %v", verdicts, err)
	}
	if got := st.Cooldowns(); got != before-2 {
		t.Errorf("%d cooldowns are left of %d", got, before)
	}
	b, err := st.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := new(State).UnmarshalBinary(b); err != nil {
		t.Error(err)
	}
}
