package guestagent_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

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
	made := make(chan struct{})
	var once sync.Once
	silent := &agenttest.Host{Answer: func(*wire.Statement) (bool, string) {
		once.Do(func() { close(made) })
		return false, ""
	}}
	cut := b.connect(silent)
	b.observe(0, 1)
	<-made // in the old epoch
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
