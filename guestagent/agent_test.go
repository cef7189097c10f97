package guestagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// bench is an agent with a source in the test's hands and a port that the test
// connects and disconnects.
type bench struct {
	t     *testing.T
	a     *guestagent.Agent
	books *agenttest.Books
	ports chan guestagent.Port
	end   func() error
	next  map[uint32]uint64
}

func start(t *testing.T, change func(*guestagent.Config)) *bench {
	t.Helper()
	b := &bench{t: t, books: agenttest.NewBooks(), ports: make(chan guestagent.Port, 1), next: map[uint32]uint64{}}
	cfg := guestagent.Config{
		Open: func() (guestagent.Port, error) {
			select {
			case p := <-b.ports:
				return p, nil
			default:
				return nil, errors.New("no port is plugged in")
			}
		},
		Source:  func(ctx context.Context, _ *guestagent.Agent) error { <-ctx.Done(); return nil },
		Hooks:   &record.Hooks{Os: "linux", Mode: "test"},
		Version: "test",
		Retry:   time.Millisecond,
		Grace:   time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.a, err = guestagent.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.a.Run(ctx) }()
	b.end = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// connect plugs a port in and serves it as a host. The returned function cuts
// the connection and returns what the host had to say.
func (b *bench) connect(h *agenttest.Host) func() error {
	b.t.Helper()
	h.Books = b.books
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	guest, host := conn(b.t, pair[0]), conn(b.t, pair[1])
	done := make(chan error, 1)
	var cut atomic.Bool
	go func() {
		err := h.Serve(context.Background(), host)
		if cut.Load() {
			err = nil
		}
		done <- err
	}()
	b.ports <- guest
	disconnect := sync.OnceValue(func() error {
		cut.Store(true)
		host.Close()
		return <-done
	})
	b.t.Cleanup(func() { _ = disconnect() })
	return disconnect
}

func conn(t *testing.T, fd int) net.Conn {
	f := osFile(fd)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// observe gives the agent n records of a lane.
func (b *bench) observe(lane uint32, n int) {
	for range n {
		p, err := record.Encode(&record.Event{Reason: fmt.Sprint(b.next[lane])})
		if err != nil {
			b.t.Fatal(err)
		}
		b.a.Observe(record.Header{Class: record.ClassFileModify, Lane: lane, LaneSequence: b.next[lane]}, p)
		b.next[lane]++
	}
	b.a.Flush()
}

func (b *bench) until(what string, f func(agenttest.View) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	if err := b.books.Until(ctx, f); err != nil {
		v := b.books.View()
		b.t.Fatalf("%s: %v; frame %d, %d records, lanes %v", what, err, v.Frame, len(v.Records), v.Lanes)
	}
}

// reasons are the numbers of the sealed events of a lane, in order.
func reasons(t *testing.T, v agenttest.View, lane uint32) []string {
	var all []string
	for _, r := range v.Records {
		if r.Header.Lane != lane {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m.(*record.Event).Reason)
	}
	return all
}

func inOrder(t *testing.T, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, r := range got {
		if r != fmt.Sprint(i) {
			t.Fatalf("record %d is number %s", i, r)
		}
	}
}

func TestHooksComeFirst(t *testing.T) {
	b := start(t, nil)
	b.observe(0, 3)
	b.connect(&agenttest.Host{})
	b.until("records", func(v agenttest.View) bool { return len(v.Records) == 4 })
	v := b.books.View()
	if c := v.Records[0].Header.Class; c != record.ClassAgentHooks {
		t.Errorf("first record is %s", c)
	}
	if v.Session != b.a.Session() || v.Idents[0].AgentVersion != "test" {
		t.Errorf("ident %+v", v.Idents[0])
	}
	inOrder(t, reasons(t, v, 0), 3)
	if v.Frame != 1 {
		t.Errorf("%d frames for what waited before the host came, want 1", v.Frame)
	}
}

// Frames which the host has not sealed are sent again, those it has are not
// sealed twice, wherever the connection was cut.
func TestReconnect(t *testing.T) {
	b := start(t, nil)
	total := 0
	for round := range 20 {
		answered := 0
		h := &agenttest.Host{Answer: func(*wire.Statement) (bool, string) {
			answered++
			return answered <= round%4, "" // then falls silent
		}}
		cut := b.connect(h)
		for range 5 {
			b.observe(0, 7)
			total += 7
		}
		if round%4 > 0 {
			b.until("some frame", func(v agenttest.View) bool { return v.Frame > 0 })
		}
		if err := cut(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	b.connect(&agenttest.Host{})
	b.until("all records", func(v agenttest.View) bool { return len(v.Records) == total+1 })
	v := b.books.View()
	inOrder(t, reasons(t, v, 0), total)
	if v.Lanes[0].Counted != uint64(total) || v.Lanes[0].Dropped != 0 {
		t.Errorf("lane %+v, want %d counted and none dropped", v.Lanes[0], total)
	}
}

// A host with a new store knows nothing of the session. It gets what is not
// acknowledged, and cannot get what was.
func TestHostThatForgot(t *testing.T) {
	b := start(t, nil)
	// With a window of one frame the second shows that the first is acknowledged.
	cut := b.connect(&agenttest.Host{Welcome: wire.Welcome{WindowFrames: 1}})
	b.until("first frame", func(v agenttest.View) bool { return v.Frame == 1 })
	b.observe(0, 5)
	b.until("second frame", func(v agenttest.View) bool { return v.Frame == 2 })
	if err := cut(); err != nil {
		t.Fatal(err)
	}
	old := b.books.View()
	b.books = agenttest.NewBooks()
	h := &agenttest.Host{}
	b.observe(0, 2)
	pair := b.connect(h)
	b.until("ident", func(v agenttest.View) bool { return len(v.Idents) == 1 })
	id := b.books.View().Idents[0]
	if id.Session != old.Session || id.AckedFrame == 0 || id.AckedFrame > old.Frame || id.AckedHash.IsZero() {
		t.Errorf("ident says frame %d, acked %d: want acked 1 or %d", id.Frame, id.AckedFrame, old.Frame)
	}
	// Its next frame follows one that this host does not have: the host
	// finds that out, not the agent.
	err := pair()
	v := b.books.View()
	if v.Frame != 0 || len(v.Records) != 0 {
		t.Errorf("sealed up to frame %d (%v), though what goes before is unknown", v.Frame, err)
	}
}

// Frames name the epoch they were made in, whenever they are sent.
func TestEpochChange(t *testing.T) {
	b := start(t, nil)
	silent := &agenttest.Host{Answer: func(*wire.Statement) (bool, string) { return false, "" }}
	cut := b.connect(silent)
	b.observe(0, 1)
	b.until("ident", func(v agenttest.View) bool { return len(v.Idents) == 1 })
	if err := cut(); err != nil {
		t.Fatal(err)
	}
	old := b.books.Epoch
	b.books.Epoch = [16]byte{1}
	var mu sync.Mutex
	epochs := map[uint64][16]byte{}
	b.connect(&agenttest.Host{Answer: func(s *wire.Statement) (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		epochs[s.Frame] = s.Epoch
		return true, ""
	}})
	b.until("new handshake", func(v agenttest.View) bool { return len(v.Idents) == 2 })
	b.observe(0, 1)
	b.until("records", func(v agenttest.View) bool { return len(v.Records) == 3 })
	mu.Lock()
	defer mu.Unlock()
	newest := b.books.View().Frame
	if epochs[newest] != b.books.Epoch {
		t.Errorf("newest frame names epoch %x, want the new one", epochs[newest])
	}
	if newest > 1 && epochs[1] != old {
		t.Errorf("a frame made in the old epoch names %x", epochs[1])
	}
}

func TestWindow(t *testing.T) {
	b := start(t, func(c *guestagent.Config) { c.FrameBytes = 8192 })
	var mu sync.Mutex
	seen := 0
	h := &agenttest.Host{Welcome: wire.Welcome{WindowFrames: 3, WindowBytes: 1 << 20},
		Answer: func(*wire.Statement) (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			seen++
			return false, ""
		}}
	cut := b.connect(h)
	beats := make(chan struct{}, 100)
	h2 := &agenttest.Host{Welcome: wire.Welcome{WindowFrames: 3, WindowBytes: 1 << 20, HeartbeatMilli: 100}, Beaten: func(wire.Heartbeat) {
		select {
		case beats <- struct{}{}:
		default:
		}
	}, Answer: h.Answer}
	b.observe(0, 2000)
	b.until("ident", func(v agenttest.View) bool { return len(v.Idents) == 1 })
	if err := cut(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	seen = 0
	mu.Unlock()
	cut = b.connect(h2)
	// Two heartbeats behind the frames: nothing more was under way.
	for range 2 {
		<-beats
	}
	mu.Lock()
	if seen != 3 {
		t.Errorf("%d frames under way, the window is 3", seen)
	}
	mu.Unlock()
	if err := cut(); err != nil {
		t.Fatal(err)
	}
	b.connect(&agenttest.Host{})
	b.until("all", func(v agenttest.View) bool { return len(v.Records) == 2001 })
	inOrder(t, reasons(t, b.books.View(), 0), 2000)
}

func TestRefused(t *testing.T) {
	b := start(t, nil)
	refused := 0
	b.connect(&agenttest.Host{Answer: func(s *wire.Statement) (bool, string) {
		if s.Frame == 2 {
			refused++
			return true, "not to my taste"
		}
		return true, ""
	}})
	for i := 1; i <= 3; i++ {
		b.observe(0, 1)
		b.until("frame", func(v agenttest.View) bool { return v.Sequence >= uint64(1+i) })
	}
	if refused != 1 {
		t.Errorf("%d refusals, want 1: a refused frame is not sent again", refused)
	}
	if v := b.books.View(); v.Frame < 3 {
		t.Errorf("agent stopped at frame %d", v.Frame)
	}
}

// What finds no room is counted by lane and class, in the statement and in a
// record, and the counts are exact (I4). Processes keep the last quarter.
func TestOverflow(t *testing.T) {
	b := start(t, func(c *guestagent.Config) { c.QueueBytes = 64 << 10 })
	const files, procs = 5000, 50
	b.observe(1<<16, files)
	b.observe(0, procs)
	b.connect(&agenttest.Host{})
	b.until("everything accounted for", func(v agenttest.View) bool {
		bulk, crit := v.Lanes[1<<16], v.Lanes[0]
		return bulk.Arrived+bulk.Dropped == files && crit.Arrived+crit.Dropped == procs
	})
	v := b.books.View()
	if v.Lanes[0].Dropped != 0 {
		t.Errorf("%d process records dropped behind file records", v.Lanes[0].Dropped)
	}
	if v.Lanes[1<<16].Dropped == 0 || v.Lanes[1<<16].Counted != files {
		t.Errorf("bulk lane %+v", v.Lanes[1<<16])
	}
	var told uint64
	for _, r := range v.Records {
		if r.Header.Class != record.ClassAgentDropped {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.(*record.Lost).Counts {
			if c.Lane != 1<<16 || record.Class(c.Class) != record.ClassFileModify || c.Reason != record.LossReason_LOSS_REASON_QUEUE_FULL {
				t.Errorf("lost %v", c)
			}
			told += c.Count
		}
	}
	if told != v.Lanes[1<<16].Dropped {
		t.Errorf("records tell of %d lost, statements of %d", told, v.Lanes[1<<16].Dropped)
	}
}

func TestTooLarge(t *testing.T) {
	b := start(t, nil)
	b.connect(&agenttest.Host{})
	b.a.Observe(record.Header{Class: record.ClassProcessExec, Lane: 0}, make([]byte, record.MaxPayload+1))
	b.a.Flush()
	b.until("loss", func(v agenttest.View) bool { return v.Lanes[0].Dropped == 1 })
}

func TestHeartbeat(t *testing.T) {
	b := start(t, nil)
	got := make(chan wire.Heartbeat, 1000)
	b.connect(&agenttest.Host{Beat: 20 * time.Millisecond, Beaten: func(h wire.Heartbeat) { got <- h }})
	var last uint64
	for range 5 {
		h := <-got
		if h.Session != b.a.Session() || h.Nonce < last || h.Time == 0 {
			t.Fatalf("heartbeat %+v after nonce %d", h, last)
		}
		last = h.Nonce
	}
	if last == 0 {
		t.Error("the host's nonces are not echoed")
	}
}

// At the end the agent sends what it has, and does not wait for a host that
// is not there.
func TestEnd(t *testing.T) {
	b := start(t, func(c *guestagent.Config) { c.Grace = time.Minute })
	b.connect(&agenttest.Host{})
	b.until("connection", func(v agenttest.View) bool { return v.Frame == 1 })
	b.observe(0, 3000)
	if err := b.end(); err != nil {
		t.Fatal(err)
	}
	b.until("records after the end", func(v agenttest.View) bool { return len(v.Records) == 3001 })

	b = start(t, nil)
	b.observe(0, 1)
	if err := b.end(); err != nil {
		t.Fatal(err)
	}
}

func TestSourceFails(t *testing.T) {
	broken := errors.New("ring is broken")
	a, err := guestagent.New(guestagent.Config{
		Open:   func() (guestagent.Port, error) { return nil, errors.New("none") },
		Source: func(context.Context, *guestagent.Agent) error { return broken },
		Hooks:  &record.Hooks{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
}

// However records of a lane come (out of order, late, dropped in the kernel or
// at the queue, cut off by a host that goes away), what statements count is
// never more than what arrived and what is owned up to, and in the end both
// are all there is (I4). The host's side of the bench checks each frame.
func TestLaneAccounting(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		b := start(t, func(c *guestagent.Config) { c.QueueBytes = 32 << 10 })
		const lanes, n = 3, 600
		var cut func() error
		type step struct {
			lane uint32
			seq  uint64
		}
		var steps []step
		for lane := range uint32(lanes) {
			for seq := range uint64(n) {
				steps = append(steps, step{lane<<16 | 1, seq})
			}
		}
		// Out of order by a little, as rings deliver.
		for i := range steps {
			j := min(len(steps)-1, i+rnd.IntN(8))
			steps[i], steps[j] = steps[j], steps[i]
		}
		for i, s := range steps {
			switch {
			case rnd.IntN(20) == 0:
				b.a.Lose(s.lane, record.ClassFileModify, record.LossReason_LOSS_REASON_RING_FULL, 1)
			default:
				b.a.Observe(record.Header{Class: record.ClassFileModify, Lane: s.lane, LaneSequence: s.seq}, nil)
			}
			if rnd.IntN(10) == 0 {
				b.a.Flush()
			}
			if i%400 == 0 {
				if cut != nil {
					if err := cut(); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
				if i < len(steps)-400 {
					answered := 0
					cut = b.connect(&agenttest.Host{Answer: func(*wire.Statement) (bool, string) { answered++; return answered < 10, "" }})
				} else {
					cut = nil
				}
			}
		}
		if cut != nil {
			if err := cut(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		last := b.connect(&agenttest.Host{})
		b.a.Flush()
		b.until(fmt.Sprintf("seed %d: all lanes whole", seed), func(v agenttest.View) bool {
			for lane := range uint32(lanes) {
				x := v.Lanes[lane<<16|1]
				if x.Counted != n || x.Arrived+x.Dropped != n {
					return false
				}
			}
			return true
		})
		if err := last(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := b.end(); err != nil {
			t.Fatal(err)
		}
	}
}

// A hole that nothing explains is owned up to after a while, without a reason.
func TestUnexplained(t *testing.T) {
	now := atomic.Uint64{}
	now.Store(1e9)
	b := start(t, func(c *guestagent.Config) { c.Boot = now.Load })
	b.connect(&agenttest.Host{})
	b.observe(0, 3)
	b.next[0] = 5 // 3 and 4 never come
	b.observe(0, 1)
	b.until("records", func(v agenttest.View) bool { return len(v.Records) == 5 })
	if x := b.books.View().Lanes[0]; x.Counted != 3 {
		t.Errorf("counted %d, want 3: the hole may still be filled", x.Counted)
	}
	now.Add(10e9)
	b.observe(0, 1)
	b.until("the hole is told", func(v agenttest.View) bool { return v.Lanes[0].Counted == 7 && v.Lanes[0].Dropped == 2 })
}
