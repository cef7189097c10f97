package guestagent_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// classLane is what the storm of one class is counted by.
type classLane struct {
	lane  uint32
	class record.Class
}

// lostCounts sums what the agent's own records say was lost.
func lostCounts(t *testing.T, v agenttest.View) map[classLane]uint64 {
	t.Helper()
	sums := map[classLane]uint64{}
	for _, r := range v.Records {
		if r.Header.Class != record.ClassAgentDropped {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.(*record.Lost).Counts {
			sums[classLane{c.Lane, record.Class(c.Class)}] += c.Count
		}
	}
	return sums
}

// arrivedCounts counts the records that are sealed, and checks their order.
func arrivedCounts(t *testing.T, v agenttest.View) map[classLane]uint64 {
	t.Helper()
	sums := map[classLane]uint64{}
	last := map[uint32]uint64{}
	for _, r := range v.Records {
		if r.Header.Lane == record.NoLane {
			continue
		}
		if before, ok := last[r.Header.Lane]; ok && r.Header.LaneSequence <= before {
			t.Fatalf("lane %x: record %d is sealed behind %d", r.Header.Lane, r.Header.LaneSequence, before)
		}
		last[r.Header.Lane] = r.Header.LaneSequence
		sums[classLane{r.Header.Lane, r.Header.Class}]++
	}
	return sums
}

// A host that stops reading in the middle of a storm costs the source nothing:
// everything is observed while the host stands still, which is only let go
// when the last record was given. What found no room is declared to the
// record, by lane and class, and what is rare is all there (I4).
func TestHostStopsReading(t *testing.T) {
	b := start(t, func(c *guestagent.Config) { c.QueueBytes = 1 << 20 })
	release := make(chan struct{})
	var once sync.Once
	stopped := make(chan struct{})
	b.connect(&agenttest.Host{Answer: func(s *wire.Statement) (bool, string) {
		if s.Frame >= 2 {
			once.Do(func() { close(stopped) })
			<-release // the socket fills behind this
		}
		return true, ""
	}})
	made := map[classLane]uint64{}
	next := map[uint32]uint64{}
	payload := make([]byte, 100)
	make1 := func(lane uint32, class record.Class) {
		b.a.Observe(record.Header{Class: class, Lane: lane, LaneSequence: next[lane]}, payload)
		next[lane]++
		made[classLane{lane, class}]++
	}
	b.until("the hooks", func(v agenttest.View) bool { return v.Frame >= 1 })
	for n, still := 0, false; n < 300_000; n++ {
		make1(1<<16|uint32(n&1), record.ClassFileModify)
		if n%4 == 0 {
			make1(uint32(n>>2&1), record.ClassProcessFork)
		}
		if n%1000 == 0 {
			make1(0, record.ClassKernelModuleLoad)
		}
		if n%50 == 0 {
			b.a.Flush()
		}
		if !still {
			b.a.Flush()
			<-stopped // from here on nothing is read
			still = true
		}
	}
	close(release)
	b.a.Flush()
	b.until("everything is accounted for", func(v agenttest.View) bool {
		for lane, n := range next {
			if x := v.Lanes[lane]; x.Arrived+x.Dropped != n || x.Counted != n {
				return false
			}
		}
		return true
	})
	v := b.books.View()
	arrived, lost := arrivedCounts(t, v), lostCounts(t, v)
	for k, n := range made {
		if arrived[k]+lost[k] != n {
			t.Errorf("lane %x, %s: %d made, %d sealed, %d declared lost", k.lane, k.class, n, arrived[k], lost[k])
		}
		if k.class == record.ClassKernelModuleLoad && lost[k] != 0 {
			t.Errorf("%d loads of modules were lost in a storm of others", lost[k])
		}
	}
	if lost[classLane{1 << 16, record.ClassFileModify}] == 0 {
		t.Error("nothing was lost: the test did not fill the queue")
	}
}

// lockedBuffer is a log that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
