package guestagent_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

const (
	hostNow = uint64(1_800_000_000e9) // what the test's host says its time is
	bootNow = uint64(50e9)
)

// protection is a Protector that tells the test what was done to it.
type protection struct {
	on       atomic.Bool
	released chan string
	err      error
}

func newProtection(on bool) *protection {
	p := &protection{released: make(chan string, 10)}
	p.on.Store(on)
	return p
}

func (p *protection) Protecting() bool { return p.on.Load() }

func (p *protection) Release(reason string) error {
	if p.err == nil {
		p.on.Store(false)
		p.released <- reason
	}
	return p.err
}

// commander is a host that gives commands to an agent under test.
type commander struct {
	*bench
	key     ed25519.PrivateKey
	send    chan func(*wire.Hello) []byte
	results chan wire.Result
	done    chan struct{} // closed when the agent's source has ended
	boot    atomic.Uint64
	cut     func() error
	told    bool          // heartbeats tell the time
	later   atomic.Uint64 // than hostNow

	incarnation uint64
}

func command(t *testing.T, change func(*guestagent.Config)) *commander {
	t.Helper()
	c := &commander{send: make(chan func(*wire.Hello) []byte), results: make(chan wire.Result, 400), done: make(chan struct{}), told: true}
	c.boot.Store(bootNow)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.key = key
	c.bench = start(t, func(cfg *guestagent.Config) {
		cfg.Boot = c.boot.Load
		source := cfg.Source
		cfg.Source = func(ctx context.Context, a *guestagent.Agent) error {
			defer close(c.done)
			return source(ctx, a)
		}
		if change != nil {
			change(cfg)
		}
	})
	c.again()
	return c
}

// again begins another conversation.
func (c *commander) again() {
	c.t.Helper()
	if c.cut != nil {
		if err := c.cut(); err != nil {
			c.t.Fatal(err)
		}
	}
	n := len(c.books.View().Idents)
	c.cut = c.connect(&agenttest.Host{
		Incarnation: c.incarnation, CommandKey: [32]byte(c.key.Public().(ed25519.PublicKey)), Commands: c.send,
		Answered: func(r wire.Result) { c.results <- r },
		Clock: func() uint64 {
			if !c.told {
				return 0
			}
			return hostNow + c.later.Load()
		},
	})
	c.until("conversation", func(v agenttest.View) bool { return len(v.Idents) > n && v.Frame > 0 })
}

// signCommand is the host's half, as chain/keys has it.
func signCommand(key ed25519.PrivateKey, m *wire.Command) []byte {
	m.Signature = [64]byte(ed25519.Sign(key, append([]byte("provost/command/v1\x00"), m.AppendUnsigned(nil)...)))
	return m.AppendBinary(nil)
}

// give sends one command and returns its answer, verified.
func (c *commander) give(make1 func(*wire.Hello) *wire.Command) wire.Result {
	c.t.Helper()
	var body []byte
	c.send <- func(h *wire.Hello) []byte {
		m := make1(h)
		if m.Signature == [64]byte{} {
			signCommand(c.key, m)
		}
		body = m.AppendBinary(nil)
		return body
	}
	r := <-c.results
	v := c.books.View()
	if err := r.Verify(v.Idents[len(v.Idents)-1].Key[:], body); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// stopCommand is a good one for the conversation.
func stopCommand(h *wire.Hello, id byte) *wire.Command {
	r := wire.Request{Kind: wire.KindStop, Requester: "uid 0", Reason: "kernel upgrade"}
	return &wire.Command{ID: [16]byte{id}, Epoch: h.Epoch, Nonce: h.Nonce, Expiry: hostNow + 60e9, Body: r.AppendBinary(nil)}
}

// No command is carried out but the host's own, for this conversation, in
// time, and once. Each refusal is signed and says why, and the agent goes on.
func TestCommandsRefused(t *testing.T) {
	p := newProtection(true)
	c := command(t, func(cfg *guestagent.Config) { cfg.Protector = p })
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	unknown := wire.Request{Kind: 77, Requester: "a", Reason: "b", Arguments: []byte{1}}
	for _, x := range []struct {
		name   string
		change func(*wire.Command)
		status uint8
		want   string
	}{
		{"forged", func(m *wire.Command) { signCommand(stranger, m) }, wire.ResultRefused, "signature does not match"},
		{"changed", func(m *wire.Command) { signCommand(c.key, m); m.Expiry++ }, wire.ResultRefused, "signature does not match"},
		{"other epoch", func(m *wire.Command) { m.Epoch[0]++ }, wire.ResultRefused, "it is for epoch"},
		{"other conversation", func(m *wire.Command) { m.Nonce[0]++ }, wire.ResultRefused, "another conversation"},
		{"expired", func(m *wire.Command) { m.Expiry = hostNow - 5e6 }, wire.ResultRefused, "it expired 5 ms ago"},
		{"no request", func(m *wire.Command) { m.Body = []byte("now!") }, wire.ResultRefused, "parse request"},
		{"nothing", func(m *wire.Command) { m.Body = nil }, wire.ResultRefused, "parse request"},
		{"unknown kind", func(m *wire.Command) { m.Body = unknown.AppendBinary(nil) }, wire.ResultUnsupported, "knows no kind(77)"},
	} {
		r := c.give(func(h *wire.Hello) *wire.Command {
			m := stopCommand(h, byte(len(x.name)))
			m.ID[1] = x.name[0]
			x.change(m)
			return m
		})
		if r.Status != x.status || !strings.Contains(string(r.Body), x.want) {
			t.Errorf("%s: status %d, %q; want %d with %q", x.name, r.Status, r.Body, x.status, x.want)
		}
	}
	// The clock runs on between heartbeats, on the agent's side.
	c.boot.Add(uint64(time.Second))
	select {
	case why := <-p.released:
		t.Errorf("protection was released: %s", why)
	case <-c.done:
		t.Error("the agent ended")
	default:
	}
}

// An id is spent once it was answered, in whatever way, and a command of a
// former conversation is none.
func TestCommandReplayed(t *testing.T) {
	c := command(t, nil)
	var taped []byte
	unknown := wire.Request{Kind: 77}
	first := c.give(func(h *wire.Hello) *wire.Command {
		m := stopCommand(h, 9)
		m.Body = unknown.AppendBinary(nil)
		taped = signCommand(c.key, m)
		return m
	})
	if first.Status != wire.ResultUnsupported {
		t.Fatalf("%d %s", first.Status, first.Body)
	}
	replay := func(want string) {
		t.Helper()
		c.send <- func(*wire.Hello) []byte { return taped }
		if r := <-c.results; r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), want) {
			t.Errorf("replayed: status %d, %q, want %q", r.Status, r.Body, want)
		}
	}
	replay("answered already")
	c.again()
	replay("another conversation")
	// A forgery must not spend the host's id.
	c.give(func(h *wire.Hello) *wire.Command {
		m := stopCommand(h, 10)
		m.Signature[0] = 1
		return m
	})
	if r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 10) }); r.Status != wire.ResultDone {
		t.Errorf("behind a forgery of its id: status %d, %s", r.Status, r.Body)
	}
}

// Whoever plays the host later, with a key of its own, commands nothing; a
// domain that has come to another host goes by that host's key. Both are told.
func TestAnotherCommandKey(t *testing.T) {
	p := newProtection(true)
	c := command(t, func(cfg *guestagent.Config) { cfg.Protector = p })
	first := c.key
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.key = stranger
	c.again()
	if r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 1) }); r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), "not the one that this run") {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
	told := func(refused bool) {
		t.Helper()
		c.until("it is told", func(v agenttest.View) bool {
			m := lastOf(t, v, record.ClassAgentTamper)
			return m != nil && m.(*record.Event).Tamper.Kind == "command_key" && m.(*record.Event).Tamper.Refused == refused
		})
	}
	told(true)
	// The first one is still believed.
	c.key = first
	c.again()
	unknown := wire.Request{Kind: 77}
	if r := c.give(func(h *wire.Hello) *wire.Command {
		m := stopCommand(h, 2)
		m.Body = unknown.AppendBinary(nil)
		return m
	}); r.Status != wire.ResultUnsupported {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
	if len(p.released) > 0 {
		t.Error("protection was released")
	}
	c.key, c.incarnation = stranger, 2
	c.again()
	told(false)
	if r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 3) }); r.Status != wire.ResultDone {
		t.Errorf("the next host: status %d, %s", r.Status, r.Body)
	}
}

// A host that never told its time cannot say when a command expires.
func TestCommandWithoutClock(t *testing.T) {
	c := command(t, nil)
	c.told = false
	c.again()
	if r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 1) }); r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), "time is not known") {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
}

func TestCommandsAreBounded(t *testing.T) {
	c := command(t, nil)
	unknown := wire.Request{Kind: 77}
	for i := range 300 {
		r := c.give(func(h *wire.Hello) *wire.Command {
			m := stopCommand(h, byte(i))
			m.ID[1], m.Body = byte(i>>8), unknown.AppendBinary(nil)
			return m
		})
		if want := i < 256; (r.Status == wire.ResultUnsupported) != want {
			t.Fatalf("command %d: status %d, %s", i, r.Status, r.Body)
		}
	}
}

// TestKillCommand holds that the agent kills for the host what this session told
// of, where the guest allows it, and tells what came of it.
func TestKillCommand(t *testing.T) {
	var asked []uint32
	answer := error(nil)
	c := command(t, func(cfg *guestagent.Config) {
		cfg.Kill = func(pid uint32, start uint64) error {
			asked = append(asked, pid)
			return answer
		}
	})
	session := c.books.View().Session
	kill := func(id byte, session uint64) wire.Result {
		return c.give(func(h *wire.Hello) *wire.Command {
			m := stopCommand(h, id)
			r := wire.Request{Kind: wire.KindKill, Requester: "policy p", Reason: "verdict 1", Arguments: (&wire.Target{Session: session, Pid: 4711, Start: 99}).AppendBinary(nil)}
			m.Body = r.AppendBinary(nil)
			return m
		})
	}
	if r := kill(1, session); r.Status != wire.ResultDone {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
	if r := kill(2, session+1); r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), "told of the process") {
		t.Errorf("of another session: status %d, %s", r.Status, r.Body)
	}
	answer = fmt.Errorf("process: %w", os.ErrProcessDone)
	if r := kill(3, session); r.Status != wire.ResultGone {
		t.Errorf("of one that has ended: status %d, %s", r.Status, r.Body)
	}
	answer = errors.New("it sleeps")
	if r := kill(4, session); r.Status != wire.ResultFailed || string(r.Body) != "it sleeps" {
		t.Errorf("of one that does not end: status %d, %s", r.Status, r.Body)
	}
	if len(asked) != 3 || asked[0] != 4711 {
		t.Errorf("asked to kill %v", asked)
	}
	c = command(t, nil)
	if r := kill(1, session); r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), "allow-kill") {
		t.Errorf("where the guest does not allow it: status %d, %s", r.Status, r.Body)
	}
}

// TestSpentCommandsExpire: commands without end can be given, and none twice, also
// when the host's clock goes back.
func TestSpentCommandsExpire(t *testing.T) {
	c := command(t, nil)
	unknown := wire.Request{Kind: 77}
	give := func(i int, expiry uint64) wire.Result {
		return c.give(func(h *wire.Hello) *wire.Command {
			m := stopCommand(h, byte(i))
			m.ID[1], m.Body, m.Expiry = byte(i>>8), unknown.AppendBinary(nil), expiry
			return m
		})
	}
	for i := range 600 {
		if i == 200 || i == 400 {
			c.later.Add(100e9)
		}
		if r := give(i, hostNow+60e9+c.later.Load()); r.Status != wire.ResultUnsupported {
			t.Fatalf("command %d: status %d, %s", i, r.Status, r.Body)
		}
	}
	c.later.Store(0)
	if r := give(1, hostNow+60e9); r.Status != wire.ResultRefused || !strings.Contains(string(r.Body), "has expired already") {
		t.Errorf("one that was spent, with the clock gone back: status %d, %s", r.Status, r.Body)
	}
}

// lastOf returns the newest record of a class.
func lastOf(t *testing.T, v agenttest.View, class record.Class) record.Message {
	t.Helper()
	for i := len(v.Records) - 1; i >= 0; i-- {
		if v.Records[i].Header.Class == class {
			m, err := record.Decode(class, v.Records[i].Payload)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	return nil
}

// The host's own stop releases the protection, is answered, and everything
// that was observed is sealed before the last record, which names the command.
func TestStopByHost(t *testing.T) {
	p := newProtection(true)
	c := command(t, func(cfg *guestagent.Config) {
		cfg.Protector, cfg.Grace = p, time.Minute
		inner := cfg.Source
		cfg.Source = func(ctx context.Context, a *guestagent.Agent) error {
			err := inner(ctx, a)
			a.Observe(record.Header{Class: record.ClassProcessExit, Lane: 0, LaneSequence: 500}, nil) // from the rings
			return err
		}
	})
	c.observe(0, 500)
	if r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 3) }); r.Status != wire.ResultDone || len(r.Body) != 0 {
		t.Fatalf("status %d, %s", r.Status, r.Body)
	}
	if why := <-p.released; !strings.Contains(why, "uid 0: kernel upgrade") {
		t.Errorf("released because of %q", why)
	}
	<-c.done
	c.until("the last record", func(v agenttest.View) bool {
		return len(v.Records) > 0 && v.Records[len(v.Records)-1].Header.Class == record.ClassAgentStopped
	})
	v := c.books.View()
	s := lastOf(t, v, record.ClassAgentStopped).(*record.AgentStopped)
	if !s.Authorised || s.Reason != "kernel upgrade" || len(s.Command) != 16 || s.Command[0] != 3 {
		t.Errorf("sealed %v", s)
	}
	if v.Records[len(v.Records)-2].Header.Class != record.ClassProcessExit || v.Lanes[0].Arrived != 501 {
		t.Errorf("%d records arrived", v.Lanes[0].Arrived)
	}
}

func TestStopThatCannotRelease(t *testing.T) {
	p := newProtection(true)
	p.err = errors.New("map is frozen")
	c := command(t, func(cfg *guestagent.Config) { cfg.Protector = p })
	r := c.give(func(h *wire.Hello) *wire.Command { return stopCommand(h, 3) })
	if r.Status != wire.ResultFailed || !strings.Contains(string(r.Body), "map is frozen") {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
	c.observe(0, 1)
	c.until("a record behind it", func(v agenttest.View) bool { return v.Lanes[0].Arrived == 1 })
	if lastOf(t, c.books.View(), record.ClassAgentStopped) != nil {
		t.Error("a stop is sealed that did not happen")
	}
}

// A signal is obeyed where nothing protects the agent or the machine goes
// down, and only told of otherwise.
func TestTerminate(t *testing.T) {
	for _, x := range []struct {
		name              string
		protected, down   bool
		ends, told, freed bool
	}{
		{name: "unprotected", ends: true, told: true},
		{name: "protected", protected: true, told: true},
		{name: "shutdown", protected: true, down: true, ends: true, freed: true},
	} {
		p := newProtection(x.protected)
		var down atomic.Bool
		down.Store(x.down)
		c := command(t, func(cfg *guestagent.Config) {
			cfg.Protector, cfg.GoingDown, cfg.Grace = p, down.Load, time.Minute
		})
		c.observe(0, 10)
		c.a.Terminate(t.Context(), "SIGTERM")
		if x.ends {
			<-c.done
			c.until(x.name+": the last record", func(v agenttest.View) bool { return lastOf(t, v, record.ClassAgentStopped) != nil })
			if s := lastOf(t, c.books.View(), record.ClassAgentStopped).(*record.AgentStopped); s.Authorised || s.Reason == "" {
				t.Errorf("%s: sealed %v", x.name, s)
			}
		} else {
			c.until(x.name+": the attempt", func(v agenttest.View) bool { return lastOf(t, v, record.ClassAgentTamper) != nil })
			c.observe(0, 1)
			c.until(x.name+": it goes on", func(v agenttest.View) bool { return v.Lanes[0].Arrived == 11 })
		}
		v := c.books.View()
		if m := lastOf(t, v, record.ClassAgentTamper); (m != nil) != x.told {
			t.Errorf("%s: tamper record %v", x.name, m)
		} else if m != nil {
			if k := m.(*record.Event).Tamper; k.Kind != "stop_requested" || k.Refused != x.protected {
				t.Errorf("%s: sealed %v", x.name, k)
			}
		}
		if freed := len(p.released) > 0; freed != x.freed {
			t.Errorf("%s: protection released: %v", x.name, freed)
		}
	}
}
