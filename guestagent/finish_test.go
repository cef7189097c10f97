package guestagent_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// onMessage calls f for every line of the log that holds a text.
type onMessage struct {
	slog.Handler
	text string
	f    func()
}

func (h onMessage) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.f()
	}
	return nil
}

func (h onMessage) Enabled(context.Context, slog.Level) bool { return true }

// An agent that ends while the host does not take its records tells in its last
// frame how many of each lane and class these were, wherever they waited, and
// why it stopped: expected is what arrived and what is declared, to the last (I4).
func TestEndTellsWhatIsLeft(t *testing.T) {
	for _, spool := range []bool{false, true} {
		release := make(chan struct{})
		change := func(c *guestagent.Config) {
			c.Grace, c.Account = time.Minute+50*time.Millisecond, time.Minute
			c.Log = slog.New(onMessage{slog.DiscardHandler, "the time is over", sync.OnceFunc(func() { close(release) })})
		}
		var s *spooled
		if spool {
			s = startSpooled(t, 1<<20, 64<<20, change)
		} else {
			s = &spooled{made: map[classLane]uint64{}, next: map[uint32]uint64{}}
			s.bench = start(t, func(c *guestagent.Config) { c.QueueBytes = 1 << 20; change(c) })
		}
		s.connect(&agenttest.Host{Welcome: wire.Welcome{WindowFrames: 2}, Answer: func(f *wire.Statement) (bool, string) {
			if f.Frame > 1 {
				<-release
			}
			return true, ""
		}})
		s.until("the hooks", func(v agenttest.View) bool { return v.Frame >= 1 })
		s.storm(20_000, spool)
		// A sum stands for many acts, in no lane.
		sum, err := record.Encode(&record.Event{Count: 70, Flags: record.EventAggregated})
		if err != nil {
			t.Fatal(err)
		}
		s.a.Observe(record.Header{Class: record.ClassFileDelete, Lane: record.NoLane}, sum)
		s.a.Terminate(t.Context(), "terminated")
		if err := s.end(); err != nil {
			t.Fatal(err)
		}
		lost := s.settled()
		if lost[record.LossReason_LOSS_REASON_AGENT_ENDED] < 1000 {
			t.Errorf("spool %v: lost %v: the test left nothing behind", spool, lost)
		}
		v := s.books.View()
		last := v.Records[len(v.Records)-1].Header.Class
		if last != record.ClassAgentStopped {
			t.Errorf("spool %v: the last record is %s", spool, last)
		}
		if n := lostCounts(t, v)[classLane{record.NoLane, record.ClassFileDelete}]; n != 70 {
			t.Errorf("spool %v: %d acts of a sum are declared lost, want 70", spool, n)
		}
	}
}
