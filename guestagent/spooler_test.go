package guestagent_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// spooled is a bench whose agent has a spool.
type spooled struct {
	*bench
	dir   string
	queue int
	made  map[classLane]uint64
	next  map[uint32]uint64
}

func startSpooled(t *testing.T, queue int, spool int64, change func(*guestagent.Config)) *spooled {
	t.Helper()
	s := &spooled{dir: filepath.Join(t.TempDir(), "spool"), queue: queue, made: map[classLane]uint64{}, next: map[uint32]uint64{}}
	s.bench = start(t, func(c *guestagent.Config) {
		c.QueueBytes, c.SpoolBytes, c.SpoolDirectory = queue, spool, s.dir
		if change != nil {
			change(c)
		}
	})
	return s
}

// storm observes n file events on two lanes, with a fork for every tenth and a
// change of credentials for every hundredth. With patience it waits for the
// spooler wherever the queue is half full.
func (s *spooled) storm(n int, patient bool) {
	s.t.Helper()
	payload := make([]byte, 120)
	one := func(lane uint32, class record.Class) {
		s.a.Observe(record.Header{Class: class, Lane: lane, LaneSequence: s.next[lane]}, payload)
		s.next[lane]++
		s.made[classLane{lane, class}]++
	}
	for i := range n {
		one(1<<16|uint32(i&1), record.ClassFileModify)
		if i%10 == 0 {
			one(0, record.ClassProcessFork)
		}
		if i%100 == 0 {
			one(0, record.ClassKernelModuleLoad)
		}
		if i%100 == 0 && patient {
			s.waiting("the spooler", func(bytes, _ int) bool { return bytes < s.queue/2 || s.a.SpoolFull() })
		}
	}
	s.a.Flush()
}

func (s *spooled) waiting(what string, f func(bytes, chunks int) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f(s.a.Waiting()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			bytes, chunks := s.a.Waiting()
			s.t.Fatalf("%s: %d bytes wait in memory, %d chunks on the disk", what, bytes, chunks)
		}
	}
}

// settled waits until every record is sealed or declared, checks it by lane
// and class, and returns what was declared, by reason.
func (s *spooled) settled() map[record.LossReason]uint64 {
	s.t.Helper()
	s.until("everything is accounted for", func(v agenttest.View) bool {
		for lane, n := range s.next {
			if x := v.Lanes[lane]; x.Arrived+x.Dropped != n || x.Counted != n {
				return false
			}
		}
		return true
	})
	v := s.books.View()
	arrived, lost := arrivedCounts(s.t, v), lostCounts(s.t, v)
	for k, n := range s.made {
		if arrived[k]+lost[k] != n {
			s.t.Errorf("lane %x, %s: %d made, %d sealed, %d declared lost", k.lane, k.class, n, arrived[k], lost[k])
		}
	}
	reasons := map[record.LossReason]uint64{}
	for _, r := range v.Records {
		if r.Header.Class != record.ClassAgentDropped {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, c := range m.(*record.Lost).Counts {
			reasons[c.Reason] += c.Count
		}
	}
	return reasons
}

// An outage that makes ten times what the memory holds loses nothing: it comes
// back whole and in order, and what is made meanwhile comes behind it.
func TestSpoolBridgesOutage(t *testing.T) {
	s := startSpooled(t, 1<<20, 64<<20, nil)
	s.storm(60_000, true)
	if _, chunks := s.a.Waiting(); chunks < 100 {
		t.Errorf("%d chunks on the disk: the test spooled nothing", chunks)
	}
	s.connect(&agenttest.Host{})
	s.storm(10_000, true)
	if lost := s.settled(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
	s.waiting("the disk is empty", func(_, chunks int) bool { return chunks == 0 })
	if names, err := os.ReadDir(s.dir); err != nil || len(names) != 0 {
		t.Errorf("left in the directory: %v, %v", names, err)
	}
	if files := openFiles(t, s.dir); len(files) != 0 {
		t.Errorf("still open: %v", files)
	}
}

// A host that comes and goes, and does not always answer, in a storm that
// waits for nobody: order and accounts hold whatever way the records took.
func TestSpoolWithHostThatComesAndGoes(t *testing.T) {
	s := startSpooled(t, 1<<20, 64<<20, nil)
	for round := range 6 {
		answered := 0
		cut := s.connect(&agenttest.Host{Answer: func(*wire.Statement) (bool, string) {
			answered++
			return answered < 10*round, ""
		}})
		s.storm(8_000, round%2 == 0)
		if err := cut(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.storm(8_000, round%2 == 1)
	}
	s.connect(&agenttest.Host{})
	s.settled()
}

// A spool that is full drops what the memory behind it cannot hold, bulk first,
// and says that the spool was too small.
func TestSpoolFull(t *testing.T) {
	s := startSpooled(t, 1<<20, 1<<20, nil)
	for n := 0; !s.a.SpoolFull(); n++ {
		if n > 2000 {
			t.Fatal("the spool does not get full")
		}
		s.storm(1000, true)
	}
	s.storm(20_000, false)
	s.connect(&agenttest.Host{})
	lost := s.settled()
	if lost[record.LossReason_LOSS_REASON_SPOOL_FULL] == 0 {
		t.Errorf("lost %v: nothing for the spool's bound", lost)
	}
	k := classLane{0, record.ClassKernelModuleLoad}
	if n := lostCounts(t, s.books.View())[k]; n != 0 {
		t.Errorf("%d loads of modules are lost to a storm of file events", n)
	}
}

// openFiles are the nameless files that this process has in dir, as root in the
// guest finds them.
func openFiles(t *testing.T, dir string) []string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, fd := range fds {
		path := "/proc/self/fd/" + fd.Name()
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, dir) {
			found = append(found, path)
		}
	}
	return found
}

// What the guest's root does to the disk is lost, declared with its reason to
// the record, and nothing else is.
func TestSpoolTampered(t *testing.T) {
	s := startSpooled(t, 1<<20, 64<<20, nil)
	s.storm(30_000, true)
	files := openFiles(t, s.dir)
	if len(files) == 0 {
		t.Fatal("nothing is on the disk")
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{100_000, 1_000_000} {
		if _, err := f.WriteAt([]byte("tampered"), at); err != nil {
			t.Fatal(err)
		}
	}
	s.connect(&agenttest.Host{})
	lost := s.settled()
	n := lost[record.LossReason_LOSS_REASON_SPOOL_DAMAGED]
	if n == 0 || n > 1000 || len(lost) != 1 {
		t.Errorf("lost %v, want two chunks' worth for damage alone", lost)
	}
}

// Without a disk the agent goes on in memory, and says once what is wrong.
func TestSpoolWithoutDisk(t *testing.T) {
	var log lockedBuffer
	s := startSpooled(t, 1<<20, 8<<20, func(c *guestagent.Config) {
		c.SpoolDirectory = "/proc/no/such/place"
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s.storm(40_000, false)
	s.connect(&agenttest.Host{})
	lost := s.settled()
	if lost[record.LossReason_LOSS_REASON_QUEUE_FULL] == 0 || len(lost) != 1 {
		t.Errorf("lost %v", lost)
	}
	if n := strings.Count(log.String(), "spool takes no more"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

// What is on the disk is sent at the end as well, as far as the host takes it.
func TestSpoolAtTheEnd(t *testing.T) {
	s := startSpooled(t, 1<<20, 64<<20, func(c *guestagent.Config) { c.Grace = time.Minute })
	s.storm(20_000, true)
	s.connect(&agenttest.Host{Welcome: wire.Welcome{WindowFrames: 1}})
	s.until("the conversation", func(v agenttest.View) bool { return v.Frame > 0 })
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	if lost := s.settled(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}
