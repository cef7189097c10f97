package chain

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestEraseTakesVerdictsOfTheMoment erases a record while verdicts on it are being sealed,
// as a judge does: none that quotes it is left, whenever it came. One that comes behind
// the erasing entry is refused, see Erasures.
func TestEraseTakesVerdictsOfTheMoment(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	for n := range 8 {
		l := mustCreateLog(t, s, n+1)
		newTestAgent(t, s, l, 1).frame(200)
		cause := l.Size() - 5
		verdicts(t, s, l, cause)
		before := s.Erasures()
		ctx, cancel := context.WithCancel(t.Context())
		var judging sync.WaitGroup
		for range 4 {
			judging.Go(func() {
				for ctx.Err() == nil {
					e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{Policy: "p", CauseIndex: cause, Title: "quotes it"})
					if err != nil {
						t.Error(err)
						return
					}
					_, err = s.Append(t.Context(), Batch{Log: l, Entries: []Entry{e}, Check: func(Head) error {
						if s.Erasures() != before {
							return record.ErrRetry
						}
						return nil
					}})
					if err != nil {
						return
					}
				}
			})
		}
		done, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 1, Last: cause}}, "r", "a")
		cancel()
		judging.Wait()
		if err != nil {
			t.Fatal(err)
		}
		gone := uint64(0)
		for i := uint64(1); i < l.Size(); i++ {
			it, err := l.Item(i)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case it.Leaf.Header.Class != record.ClassPolicyVerdict:
			case it.Erased:
				gone++
			default:
				t.Fatalf("round %d: entry %d still quotes the record that entry %d erased", n, i, done[0].Entry)
			}
		}
		if gone != done[0].Verdicts {
			t.Errorf("round %d: %d verdicts are gone, told are %d", n, gone, done[0].Verdicts)
		}
	}
}
