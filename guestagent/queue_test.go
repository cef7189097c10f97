package guestagent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// One class of each tier, lowest first.
var tierClasses = [...]record.Class{record.ClassFileModify, record.ClassProcessFork, record.ClassKernelModuleLoad}

// A storm of one tier, however long and of whatever sizes, leaves to the tiers
// above it what is theirs: their records go in until they fill their own share.
func TestStormLeavesRoom(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		q := queue{limit: 64<<10 + rnd.IntN(4<<20)}
		for tier, class := range tierClasses {
			before := q.bytes
			for refused := 0; refused < 1000; {
				if !q.push(queued{record.Header{Class: class}, make([]byte, rnd.IntN(600))}) {
					refused++
				}
			}
			if want := q.limit / 100 * shares[tier]; q.bytes > want || q.bytes < want-recordBytes(600) {
				t.Fatalf("seed %d: %s fills the queue up to %d of %d, its share is %d", seed, class, q.bytes, q.limit, want)
			}
			if got, want := q.bytes-before, (shares[tier]-share(tier-1))*(q.limit/100)-recordBytes(600); got < want {
				t.Fatalf("seed %d: %s found room for %d bytes behind the storms below it, want %d", seed, class, got, want)
			}
		}
	}
}

func share(tier int) int {
	if tier < 0 {
		return 0
	}
	return shares[tier]
}

// What an attack is made of, and what the agent says of itself, is critical:
// so is every class that the table does not name.
func TestTiers(t *testing.T) {
	for _, c := range []record.Class{
		record.ClassProcessTrace, record.ClassNetworkRaw,
		record.ClassKernelModuleLoad, record.ClassKernelModuleUnload, record.ClassKernelParamChange, record.ClassKernelKexec,
		record.ClassAgentHooks, record.ClassAgentDropped, record.ClassAgentTamper, record.ClassAgentStopped,
		record.ClassAgentAggregating, 0x0fff,
	} {
		if got := tierOf(c); got != tierCritical {
			t.Errorf("%s has tier %d: a storm can push it out", c, got)
		}
	}
	// Who may write to audit, as root of a container may, can make any number of
	// logins, and any user of these.
	for _, c := range []record.Class{record.ClassAuthLogin, record.ClassProcessCreds, record.ClassProcessNamespace, record.ClassFileMount,
		record.ClassKernelBPF, record.ClassKernelUserfaultfd, record.ClassKernelIOUring} {
		if got := tierOf(c); got != tierProcess {
			t.Errorf("%s has tier %d", c, got)
		}
	}
	for i, c := range tierClasses {
		if got := tierOf(c); got != tier(i) {
			t.Errorf("%s has tier %d, want %d", c, got, i)
		}
	}
}

// Whatever goes in comes out, in order and unchanged, and the books of the
// queue are right at every step.
func TestQueueModel(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		q := queue{limit: 300 << 10}
		var model []queued
		size := 0
		for step := range 20000 {
			if rnd.IntN(100) < 40+20*(step/5000%2) {
				r := queued{record.Header{Class: tierClasses[rnd.IntN(3)], Lane: rnd.Uint32(), LaneSequence: uint64(step), Time: rnd.Uint64()},
					bytes.Repeat([]byte{byte(step)}, rnd.IntN(rnd.IntN(4000)+1))}
				if q.push(r) {
					model = append(model, r)
					size += recordBytes(len(r.payload))
				} else if size+recordBytes(len(r.payload)) <= q.limit/100*shares[tierOf(r.header.Class)] {
					t.Fatalf("seed %d step %d: refused at %d of %d bytes", seed, step, size, q.limit)
				}
			} else if q.len() > 0 {
				got := q.take()
				if got.header != model[0].header || !bytes.Equal(got.payload, model[0].payload) {
					t.Fatalf("seed %d step %d: took %+v, want %+v", seed, step, got.header, model[0].header)
				}
				size -= recordBytes(len(got.payload))
				model = model[1:]
			}
			if q.len() != len(model) || q.bytes != size {
				t.Fatalf("seed %d step %d: %d records of %d bytes, want %d of %d", seed, step, q.len(), q.bytes, len(model), size)
			}
		}
	}
}

// Chunks that are detached are the queue's oldest records, read or not.
func TestQueueDetach(t *testing.T) {
	q := queue{limit: 1 << 20}
	for i := range 2000 {
		q.push(queued{record.Header{Class: record.ClassProcessCreds, LaneSequence: uint64(i)}, []byte(fmt.Sprint(i))})
	}
	next := uint64(0)
	for range 10 {
		if got := q.take().header.LaneSequence; got != next {
			t.Fatalf("took %d, want %d", got, next)
		}
		next++
	}
	for c := q.detach(); ; c = q.detach() {
		for c.count > 0 {
			if r := c.take(); r.header.LaneSequence != next || string(r.payload) != fmt.Sprint(next) {
				t.Fatalf("detached %d, want %d", r.header.LaneSequence, next)
			}
			next++
		}
		if q.head() == nil {
			break
		}
	}
	if next != 2000 || q.len() != 0 || q.bytes != 0 {
		t.Errorf("%d of 2000 records came out, %d records of %d bytes are left", next, q.len(), q.bytes)
	}
}

// What a process makes beyond its budget leaves room for the same kind of
// record of others.
func TestHeavyLeavesRoom(t *testing.T) {
	q := queue{limit: 1 << 20}
	r := queued{record.Header{Class: record.ClassFileRename}, make([]byte, 100)}
	for q.pushWithin(r, heavyShare) {
	}
	heavy := q.bytes
	for q.push(r) {
	}
	if want := (shares[tierBulk] - heavyShare) * (1 << 20) / 100; q.bytes-heavy < want-2*recordBytes(100) {
		t.Errorf("%d bytes found room behind those beyond a budget, want %d", q.bytes-heavy, want)
	}
}

// A storm of written files makes a digest of each, and a storm of destinations
// a sum of each: no more than other records of the storm may they push out what
// matters more.
func TestOwnRecordsLeaveRoom(t *testing.T) {
	for _, class := range []record.Class{record.ClassFileDigest, record.ClassFileModify, record.ClassNetworkFlow} {
		q := queue{limit: 1 << 20}
		for q.push(queued{record.Header{Class: class, Lane: record.NoLane}, make([]byte, 1000)}) {
		}
		if !q.push(queued{record.Header{Class: record.ClassProcessFork}, make([]byte, 100)}) {
			t.Errorf("%s of the agent's own fills the queue against forks", class)
		}
	}
}
