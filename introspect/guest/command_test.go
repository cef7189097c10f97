package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

var askStop = wire.Request{Kind: wire.KindStop, Requester: "uid 0", Reason: "kernel upgrade"}

// commandBench is a bench whose sessions have a key for commands.
func commandBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	k, err := keys.Create(t.TempDir() + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	return newBench(t, func(c *Config) {
		c.Commands = k
		c.SilentAfter = 300 * time.Millisecond
		if change != nil {
			change(c)
		}
	})
}

type outcome struct {
	*Answer
	err error
}

func (b *bench) ask() <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		a, err := b.sessions.Command(context.Background(), b.dom.UUID, askStop)
		done <- outcome{a, err}
	}()
	return done
}

// greeted answers the hello and waits until the daemon has seen that.
func (p *peer) greeted() wire.Hello {
	p.t.Helper()
	h, _ := p.greet(nil)
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.sessions.Status()[0].State != "connected" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatal("the daemon does not take the agent for connected")
		}
	}
	return h
}

// answer reads a command, checks that it is good for this conversation, and
// answers it.
func (p *peer) answer(h *wire.Hello, status uint8, key ed25519.PrivateKey) wire.Command {
	p.t.Helper()
	raw := p.next(wire.TypeCommand)
	c, err := wire.ParseCommand(raw)
	p.must(err)
	p.must(c.Verify(&h.CommandKey))
	if c.Nonce != h.Nonce || c.Epoch != h.Epoch || int64(c.Expiry) < time.Now().UnixNano() {
		p.t.Errorf("command %+v does not fit the conversation", c)
	}
	r := wire.Result{ID: c.ID, Status: status}
	r.Sign(key, raw)
	p.must(p.out.Write(wire.TypeResult, r.AppendBinary(nil)))
	return c
}

func payload[M record.Message](t *testing.T, i *chain.Item) M {
	t.Helper()
	m, err := record.Decode(i.Leaf.Header.Class, i.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return m.(M)
}

// What is asked is sealed as the operator's before it is sent, the answer
// after; an agent that then falls silent has stopped, and is no alarm. The
// next one that is enrolled owes signs of life again.
func TestStopIsSealed(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	done := b.ask()
	c := p.answer(&h, wire.ResultDone, b.key)
	a := <-done
	if a.err != nil || a.Status != wire.ResultDone || a.ID != c.ID || a.Session != b.session {
		t.Fatalf("answer %+v, %v", a.Answer, a.err)
	}
	commands, results := b.await(record.ClassAgentCommand, 1), b.await(record.ClassAgentResult, 1)
	m := payload[*record.AgentCommand](t, &commands[0])
	if commands[0].Leaf.Origin != record.OriginOperator || m.Kind != "stop" || m.Requester != "uid 0" || m.Reason != "kernel upgrade" || m.Session != b.session {
		t.Errorf("sealed as %s: %v", commands[0].Leaf.Origin, m)
	}
	sent, err := wire.ParseCommand(m.Body)
	b.must(err)
	b.must(sent.Verify(&h.CommandKey))
	r := payload[*record.AgentResult](t, &results[0])
	answered, err := wire.ParseResult(r.Body)
	b.must(err)
	b.must(answered.Verify(b.key.Public().(ed25519.PublicKey), m.Body)) // an auditor can
	if commands[0].Index >= results[0].Index || r.Status != 0 || !bytes.Equal(r.Id, c.ID[:]) {
		t.Errorf("result %v at leaf %d, the command at %d", r, results[0].Index, commands[0].Index)
	}

	stopped := b.await(record.ClassAgentStopped, 1)
	s := payload[*record.AgentStopped](t, &stopped[0])
	if stopped[0].Leaf.Origin != record.OriginHost || !s.Authorised || !bytes.Equal(s.Command, c.ID[:]) {
		t.Errorf("sealed as %s: %v", stopped[0].Leaf.Origin, s)
	}
	if st := b.sessions.Status()[0]; st.State != "stopped" || st.Silent {
		t.Errorf("status %+v", st)
	}
	// Another run of the agent.
	b.session++
	p.conn.Close()
	p = b.accept()
	p.greet(nil)
	b.await(record.ClassAgentHeartbeatLost, 1)
	all := b.sealed()
	if n := len(all[record.ClassAgentHeartbeatLost]); n != 1 || all[record.ClassAgentHeartbeatLost][0].Index < stopped[0].Index {
		t.Errorf("%d silences are sealed, want one of the new session", n)
	}
}

// A kill is the policy's, names its process, and its answer is told as it is; one
// that is not answered is waited for as long as a policy waits and no longer.
func TestKillIsSealed(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	target := wire.Target{Session: b.session, Pid: 4711, Start: 99}
	done := make(chan outcome, 1)
	go func() {
		a, err := b.sessions.Kill(context.Background(), b.dom.UUID, target, "policy p", "verdict 7")
		done <- outcome{a, err}
	}()
	c := p.answer(&h, wire.ResultGone, b.key)
	if a := <-done; a.err != nil || a.Status != wire.ResultGone || a.ID != c.ID {
		t.Fatalf("answer %+v, %v", a.Answer, a.err)
	}
	r, err := wire.ParseRequest(c.Body)
	b.must(err)
	if got, err := wire.ParseTarget(r.Arguments); err != nil || got != target || r.Kind != wire.KindKill || int64(c.Expiry) > time.Now().Add(killGood).UnixNano() {
		t.Errorf("asked %+v, %v", r, err)
	}
	sealed := b.await(record.ClassAgentCommand, 1)
	if m := payload[*record.AgentCommand](t, &sealed[0]); sealed[0].Leaf.Origin != record.OriginPolicy || m.Kind != "kill_process" || m.Requester != "policy p" {
		t.Errorf("sealed as %s: %v", sealed[0].Leaf.Origin, m)
	}
	if n := len(b.sealed()[record.ClassAgentStopped]); n != 0 {
		t.Error("the agent is taken for stopped")
	}
}

// A stop outlives the daemon's memory of it: the books of the agent hold it.
func TestStopOutlivesConnection(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	done := b.ask()
	p.answer(&h, wire.ResultDone, b.key)
	if a := <-done; a.err != nil {
		t.Fatal(a.err)
	}
	p.conn.Close()
	b.accept() // it connects again and finds nobody
	b.sessions.Remove(b.dom.UUID)
	d := b.dom
	b.sessions.Set(&d) // a new session, as after a restart
	b.await(record.ClassAgentStopped, 1)
	if n := len(b.sealed()[record.ClassAgentHeartbeatLost]); n != 0 {
		t.Errorf("%d silences of an agent that was told to stop are sealed", n)
	}
}

// An agent that says it stops and goes on is told of, and its silence is an
// alarm again.
func TestStopThatIsNone(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	done := b.ask()
	p.answer(&h, wire.ResultDone, b.key)
	if a := <-done; a.err != nil {
		t.Fatal(a.err)
	}
	for back := false; !back; { // it answers heartbeats as if nothing had been asked
		e, err := p.in.Read()
		b.must(err)
		if e.Type == wire.TypeHeartbeat {
			beat, err := wire.ParseHeartbeat(e.Body)
			b.must(err)
			beat.Session = b.session
			b.must(p.out.Write(wire.TypeHeartbeat, beat.AppendBinary(nil)))
		}
		back = len(b.sealed()[record.ClassAgentHeartbeatBack]) > 0
	}
	if f := b.frame(1, record.Hash{}, 0, 1, nil); p.send(f).Refused {
		t.Error("its frame is refused")
	}
	b.await(record.ClassAgentHeartbeatLost, 1)
	if n := len(b.sealed()[record.ClassAgentStopped]); n != 0 {
		t.Error("its silence is sealed as the stop that it did not make")
	}
}

// A reset guest owes an agent again, whatever was asked of the one before.
func TestStopEndsWithEpoch(t *testing.T) {
	b := commandBench(t, func(c *Config) { c.BootGrace = 300 * time.Millisecond })
	p := b.accept()
	h := p.greeted()
	done := b.ask()
	p.answer(&h, wire.ResultDone, b.key)
	if a := <-done; a.err != nil {
		t.Fatal(a.err)
	}
	b.await(record.ClassAgentStopped, 1)
	d := b.dom
	d.Epoch = [16]byte{2}
	b.sessions.Set(&d)
	b.await(record.ClassAgentAbsent, 1)
}

// An answer that the agent's key did not give is sealed as what it is, and
// nobody takes the agent for stopped.
func TestForgedResult(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	_, stranger, err := ed25519.GenerateKey(nil)
	b.must(err)
	done := b.ask()
	p.answer(&h, wire.ResultDone, stranger)
	if a := <-done; !errors.Is(a.err, record.ErrReject) {
		t.Errorf("answer %+v, %v", a.Answer, a.err)
	}
	found := b.await(record.ClassAgentSignatureInvalid, 1)
	if why := reasonOf(t, found[0].Payload); !strings.Contains(why, "result of a command") {
		t.Errorf("sealed %q", why)
	}
	b.await(record.ClassAgentHeartbeatLost, 1)
	if n := len(b.sealed()[record.ClassAgentResult]); n != 0 {
		t.Errorf("%d results are sealed", n)
	}
}

// A refusal ends nothing; silence behind it is an alarm.
func TestRefusedStop(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	h := p.greeted()
	done := b.ask()
	p.answer(&h, wire.ResultRefused, b.key)
	if a := <-done; a.err != nil || a.Status != wire.ResultRefused {
		t.Errorf("answer %+v, %v", a.Answer, a.err)
	}
	b.await(record.ClassAgentHeartbeatLost, 1)
	if n := len(b.sealed()[record.ClassAgentStopped]); n != 0 {
		t.Error("a refused stop is sealed as a stop")
	}
}

// An agent that does not answer costs a bounded wait, and that it did not is
// sealed. Its answer to the next command is its answer to the next command.
func TestUnansweredCommand(t *testing.T) {
	b := commandBench(t, func(c *Config) { c.CommandTimeout, c.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond })
	p := b.accept()
	p.greeted()
	first := b.ask()
	raw := p.next(wire.TypeCommand)
	a := <-first
	if a.err != nil || a.Status != StatusNoAnswer {
		t.Fatalf("answer %+v, %v", a.Answer, a.err)
	}
	if m := payload[*record.AgentResult](t, &b.await(record.ClassAgentResult, 1)[0]); m.Status != StatusNoAnswer || len(m.Body) != 0 {
		t.Errorf("sealed %v", m)
	}
	c, err := wire.ParseCommand(raw)
	b.must(err)
	late := wire.Result{ID: c.ID}
	late.Sign(b.key, raw)
	p.must(p.out.Write(wire.TypeResult, late.AppendBinary(nil)))
	f := b.frame(1, record.Hash{}, 0, 1, nil)
	if ack := p.send(f); ack.Refused { // read behind the late answer
		t.Errorf("ack %+v", ack)
	}
	if n := len(b.sealed()[record.ClassAgentResult]); n != 1 {
		t.Errorf("%d results are sealed", n)
	}
}

// Without a conversation nothing is asked, and nothing sealed.
func TestCommandWithoutAgent(t *testing.T) {
	b := commandBench(t, nil)
	p := b.accept()
	if a := <-b.ask(); !errors.Is(a.err, record.ErrRetry) {
		t.Errorf("answer %+v, %v", a.Answer, a.err)
	}
	other := b.dom.UUID
	other[0]++
	if _, err := b.sessions.Command(t.Context(), other, askStop); !errors.Is(err, record.ErrRetry) {
		t.Errorf("unknown domain: %v", err)
	}
	long := askStop
	long.Reason = strings.Repeat("x", wire.MaxText+1)
	if _, err := b.sessions.Command(t.Context(), b.dom.UUID, long); !errors.Is(err, record.ErrReject) {
		t.Errorf("long reason: %v", err)
	}
	h := p.greeted()
	first := b.ask()
	b.await(record.ClassAgentCommand, 1)
	if a := <-b.ask(); !errors.Is(a.err, record.ErrRetry) {
		t.Errorf("second command: %+v, %v", a.Answer, a.err)
	}
	p.answer(&h, wire.ResultDone, b.key)
	if a := <-first; a.err != nil {
		t.Error(a.err)
	}
	if n := len(b.sealed()[record.ClassAgentCommand]); n != 1 {
		t.Errorf("%d commands are sealed, want 1", n)
	}
}
