package chain

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestFrameEpochs seals frames whose statements name the epoch of the key's
// enrolment, its parent, or another one, and verifies bundles that can and that
// cannot tell.
func TestFrameEpochs(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	first, second, alien := [16]byte{1}, [16]byte{2}, [16]byte{3}
	seal := func(l *Log, class record.Class, m record.Message) {
		e, err := s.Draft(record.OriginHost, class, m)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}})
	}
	// verify exports the whole log, or the frame alone, and returns the epoch
	// that is claimed for the record at index.
	verify := func(l *Log, index uint64, whole bool) (string, error) {
		sel := Selection{Indexes: []uint64{index}}
		if whole {
			sel = Selection{Range: &proof.Range{First: 0, Last: l.Size() - 1}}
		}
		r, err := verifyZip(t, exported(t, s, l, sel), s.HostLog().VerifierKey())
		for _, e := range r.Entries {
			if e.Index == index {
				return e.Epoch, err
			}
		}
		t.Fatalf("entry %d is not in the report: %v", index, err)
		return "", nil
	}
	for n, c := range []struct {
		name    string
		epoch   [16]byte // of the second frame
		sealed  bool     // the host's word on epochs is in the log
		claimed bool
		fault   bool // in a bundle of the whole log
	}{
		{"the enrolment's", second, true, true, false},
		{"the parent's", first, true, false, false},
		{"another, epochs sealed", alien, true, false, true},
		{"another, epochs not sealed", alien, false, false, false},
		{"none", [16]byte{}, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := mustCreateLog(t, s, n+1)
			if c.sealed {
				seal(l, record.ClassVMEpoch, &record.Epoch{Epoch: first[:], Cause: "start"})
				seal(l, record.ClassVMEpoch, &record.Epoch{Epoch: second[:], Parent: first[:], Cause: "reset"})
			}
			a := &testAgent{t: t, s: s, l: l, key: agentKey(7), session: 7, epoch: c.epoch}
			seal(l, record.ClassAgentEnrolled, &record.Enrolled{Key: a.public(), Session: 7, Epoch: second[:]})
			index := a.frame(3) + 1
			for _, whole := range []bool{false, true} {
				claim, err := verify(l, index, whole)
				want := ""
				if c.claimed {
					want = hex.EncodeToString(second[:])
				}
				if claim != want || (err != nil) != (whole && c.fault) {
					t.Errorf("whole %v: epoch %q is claimed, want %q; error %v", whole, claim, want, err)
				}
				if err != nil && !strings.Contains(err.Error(), "never enrolled") {
					t.Errorf("whole %v: %v", whole, err)
				}
			}
		})
	}
}
