package chain

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// TestIndexRuns wants every index back, in order, in a few bytes for each run.
func TestIndexRuns(t *testing.T) {
	if got := slices.Collect((&indexRuns{}).all()); got != nil {
		t.Errorf("nothing comes back as %d", got)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var want []uint64
		r, at, runs := &indexRuns{}, rng.Uint64N(3), 0
		for range rng.IntN(40) {
			runs++
			for range 1 + rng.IntN(300) {
				want = append(want, at)
				r.add(at)
				at++
			}
			at += 1 + rng.Uint64N(5)
		}
		if got := slices.Collect(r.all()); !slices.Equal(got, want) {
			t.Fatalf("%d come back as %d", want, got)
		}
		if len(r.done) > 3*runs {
			t.Errorf("%d runs take %d bytes", runs, len(r.done))
		}
		for i := range r.all() { // who stops is given no more
			if i != want[0] {
				t.Errorf("the first is %d", i)
			}
			break
		}
	}
}

// TestFrameKeysBounded enrols more sessions than are held: those that were enrolled last
// stay, and one that is enrolled again is among them.
func TestFrameKeysBounded(t *testing.T) {
	c := frameCheck{keys: map[uint64][]byte{}}
	for session := range uint64(maxSessions) {
		c.enroll(&record.Enrolled{Session: session, Key: []byte{1}})
	}
	c.enroll(&record.Enrolled{Session: 0, Key: []byte{2}})
	for session := range uint64(10) {
		c.enroll(&record.Enrolled{Session: maxSessions + session, Key: []byte{3}})
	}
	if len(c.keys) != maxSessions || len(c.newest) != maxSessions {
		t.Errorf("%d keys of %d sessions are held", len(c.keys), len(c.newest))
	}
	if k := c.keys[0]; len(k) != 1 || k[0] != 2 || c.keys[1] != nil || c.keys[10] != nil || c.keys[11] == nil || c.keys[maxSessions+9] == nil {
		t.Error("it is not the oldest that went")
	}
}
