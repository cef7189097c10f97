package guest

import (
	"crypto/ed25519"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

// hooksFrame is a frame whose first record says what the agent covers.
func (b *bench) hooksFrame(number uint64, prev record.Hash, first uint64, h *record.Hooks) *wire.Frame {
	payload, err := h.MarshalVT()
	b.must(err)
	return b.frame(number, prev, first, 1, func(f *wire.Frame, s *wire.Statement) {
		f.Records[0].Header.Class = record.ClassAgentHooks
		f.Records[0].Header.Lane = record.NoLane
		f.Records[0].Payload = payload
		b.root(f, s)
	})
}

// root has a statement speak for the records as they are now, none of them on a lane.
func (b *bench) root(f *wire.Frame, s *wire.Statement) {
	s.Lanes = nil
	hashes := make([]record.Hash, len(f.Records))
	for i, r := range f.Records {
		salt := f.Seed.Salt(r.Header.Sequence)
		hashes[i] = record.RecordHash(r.Header, record.Commit(&salt, r.Payload))
	}
	s.Root = record.Root(hashes)
}

func hooksOf(mode, by string, classes ...record.Class) *record.Hooks {
	h := &record.Hooks{Mode: mode}
	for _, c := range classes {
		h.Hooks = append(h.Hooks, &record.Hook{Class: uint32(c), Name: by})
	}
	return h
}

// TestCoverageIsWatched follows one domain's agents: below its minimum, as it should be,
// with less than before in another boot, and one that says nothing.
func TestCoverageIsWatched(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Duty = func(domain.UUID) Duty {
			return Duty{Covers: []record.Class{record.ClassProcessExec, record.ClassFileRename}, LSM: true}
		}
	})
	session := func(key uint64) *peer {
		b.session = key
		p := b.accept()
		p.greet(nil)
		return p
	}
	p := session(1)
	if a := p.send(b.hooksFrame(1, record.Hash{}, 0, hooksOf("tracepoint", "tracepoint/x", record.ClassProcessExec))); a.Refused {
		t.Fatal(a.Reason)
	}
	got := b.sealed()
	if n := got[record.ClassAgentCoverageLow]; len(n) != 1 || reasonOf(t, n[0].Payload) != `the probe observes by "tracepoint", lsm is wanted; no hook sees file.rename` {
		t.Fatalf("%d findings of too little", len(n))
	}
	if n := len(got[record.ClassAgentCoverageLost]); n != 0 {
		t.Errorf("%d losses in the first session", n)
	}
	full := hooksOf("lsm", "lsm/y", record.ClassProcessExec, record.ClassFileRename)
	p.conn.Close()
	p = session(2)
	f := b.hooksFrame(1, record.Hash{}, 0, full)
	if a := p.send(f); a.Refused {
		t.Fatal(a.Reason)
	}
	if got := b.sealed(); len(got[record.ClassAgentCoverageLow]) != 1 || len(got[record.ClassAgentCoverageLost]) != 0 {
		t.Error("full coverage is a finding")
	}
	// In the same session: hooks were taken away.
	less := b.hooksFrame(2, wire.FrameHash(f.Statement), 1, hooksOf("lsm", "lsm/y", record.ClassProcessExec))
	if a := p.send(less); a.Refused {
		t.Fatal(a.Reason)
	}
	lost := b.sealed()[record.ClassAgentCoverageLost]
	if len(lost) != 1 || reasonOf(t, lost[0].Payload) != "no hook sees any more file.rename" {
		t.Fatalf("%d losses", len(lost))
	}
	// Back, and then another boot without BPF LSM.
	if a := p.send(b.hooksFrame(3, wire.FrameHash(less.Statement), 2, full)); a.Refused {
		t.Fatal(a.Reason)
	}
	p.conn.Close()
	p = session(3)
	if a := p.send(b.hooksFrame(1, record.Hash{}, 0, hooksOf("tracepoint", "tracepoint/x", record.ClassProcessExec, record.ClassFileRename))); a.Refused {
		t.Fatal(a.Reason)
	}
	lost = b.sealed()[record.ClassAgentCoverageLost]
	if len(lost) != 2 || reasonOf(t, lost[1].Payload) != `the probe observes by "tracepoint", it was lsm; not seen by BPF LSM any more process.exec, file.rename` {
		t.Fatalf("%d losses: %s", len(lost), reasonOf(t, lost[len(lost)-1].Payload))
	}
	p.conn.Close()
	p = session(4)
	if a := p.send(b.frame(1, record.Hash{}, 0, 1, nil)); a.Refused {
		t.Fatal(a.Reason)
	}
	low := b.sealed()[record.ClassAgentCoverageLow]
	if n := len(low); !strings.Contains(reasonOf(t, low[n-1].Payload), "does not say") {
		t.Errorf("an agent that says nothing of its hooks: %q", reasonOf(t, low[n-1].Payload))
	}
	// A finding never stands between the records and their statement.
	for i := range b.log.Size() {
		it, err := b.log.Item(i)
		b.must(err)
		if it.Leaf.Header.Class != record.ClassAgentFrame {
			continue
		}
		before, err := b.log.Item(i - 1)
		b.must(err)
		if before.Leaf.Origin != record.OriginGuest {
			t.Errorf("the statement at %d stands behind a %s", i, before.Leaf.Header.Class)
		}
	}
}

// TestCoverageOfAnything takes whatever an agent may write.
func TestCoverageOfAnything(t *testing.T) {
	h := &record.Hooks{Mode: strings.Repeat("m", 1000), Hooks: []*record.Hook{nil, {Class: 1 << 20, Name: "x"},
		{Class: uint32(record.ClassVMStart), Name: "x"}, {Class: 0x0fff, Name: "x"}, {Class: uint32(record.ClassProcessExec)}}}
	for range 500 {
		h.Hooks = append(h.Hooks, &record.Hook{Class: uint32(record.ClassFileRename), Name: "lsm/x"})
	}
	c := coverageOf(h)
	want := []record.Class{record.ClassFileRename}
	if len(c.Mode) > 16 || !slices.Equal(c.Seen, want) || !slices.Equal(c.LSM, want) {
		t.Errorf("%+v", c)
	}
}

// TestRestartIsSealed tells an agent that came back from one that was told to stop, a
// kernel booted behind the host's back, and a session that has another key.
func TestRestartIsSealed(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	p.send(b.frame(1, record.Hash{}, 0, 1, nil))
	p.conn.Close()
	b.session = 0x77
	p = b.accept()
	p.greet(nil)
	again := b.await(record.ClassAgentRestarted, 1)
	if r := reasonOf(t, again[0].Payload); !strings.Contains(r, "nobody had told it") {
		t.Errorf("sealed as %q", r)
	}
	p.conn.Close()
	b.session = 0x78
	p = b.accept()
	p.greet(func(id *wire.Ident) { id.BootID[0]++ })
	again = b.await(record.ClassAgentRestarted, 2)
	if r := reasonOf(t, again[1].Payload); !strings.Contains(r, "another kernel") {
		t.Errorf("sealed as %q", r)
	}
	p.conn.Close()
	_, key, err := ed25519.GenerateKey(nil)
	b.must(err)
	b.key = key
	p = b.accept()
	p.greet(nil)
	changed := b.await(record.ClassAgentKeyChanged, 1)
	if r := reasonOf(t, changed[0].Payload); !strings.Contains(r, "another key") {
		t.Errorf("sealed as %q", r)
	}
	if n := len(b.sealed()[record.ClassAgentRestarted]); n != 2 {
		t.Errorf("%d restarts, want 2", n)
	}
}

// TestAbsentIsNotDead tells an agent that was never there from one that went silent, also
// behind another start of the daemon.
func TestAbsentIsNotDead(t *testing.T) {
	short := func(c *Config) {
		c.Duty = func(domain.UUID) Duty {
			return Duty{SilentAfter: 200 * time.Millisecond, BootGrace: 200 * time.Millisecond}
		}
	}
	b := newBench(t, short)
	p := b.accept()
	absent := b.await(record.ClassAgentAbsent, 1)
	if r := reasonOf(t, absent[0].Payload); !strings.Contains(r, "never heard") {
		t.Errorf("sealed as %q", r)
	}
	p.greet(nil)
	b.await(record.ClassAgentHeartbeatBack, 1)
	b.await(record.ClassAgentHeartbeatLost, 1)
	b.sessions.Remove(b.dom.UUID)
	d := b.dom
	b.sessions.Set(&d) // as another start does: the books know that it was there
	b.await(record.ClassAgentHeartbeatLost, 2)
	if n := len(b.sealed()[record.ClassAgentAbsent]); n != 1 {
		t.Errorf("%d agents that were never there, want 1", n)
	}
}

// TestGuestClock holds what is a jump and what is not.
func TestGuestClock(t *testing.T) {
	const slack = 9 * time.Second
	type beat struct {
		guest, host time.Duration // since the beat before
		pauses      uint64
		want        time.Duration
	}
	even := func(n int) (all []beat) {
		for range n {
			all = append(all, beat{2 * time.Second, 2 * time.Second, 0, 0})
		}
		return all
	}
	drift := make([]beat, 10000) // 0.1 %
	for i := range drift {
		drift[i] = beat{2*time.Second + 2*time.Millisecond, 2 * time.Second, 0, 0}
	}
	slow := make([]beat, 10000)
	for i := range slow {
		slow[i] = beat{2*time.Second - 2*time.Millisecond, 2 * time.Second, 0, 0}
	}
	for name, beats := range map[string][]beat{
		"even":           even(100),
		"drifts":         drift,
		"drifts back":    slow,
		"an answer late": append(even(3), beat{2 * time.Second, 10 * time.Second, 0, 0}, beat{10 * time.Second, 2 * time.Second, 0, 0}),
		"ahead":          append(append(even(3), beat{time.Hour, 2 * time.Second, 0, time.Hour - 2*time.Second}), even(3)...),
		"behind":         append(append(even(3), beat{2 * time.Second, time.Minute, 0, -58 * time.Second}), even(3)...),
		"known pause":    append(even(3), beat{2 * time.Second, time.Hour, 2, 0}),
		"once a minute": append(even(3), beat{time.Hour, 2 * time.Second, 0, time.Hour - 2*time.Second}, beat{time.Hour, 2 * time.Second, 0, 0},
			beat{time.Hour + 61*time.Second, 61 * time.Second, 0, time.Hour}),
	} {
		t.Run(name, func(t *testing.T) {
			c := &guestClock{}
			guest, host := time.Hour, time.Minute
			c.jump(1, 0, [16]byte{1}, uint64(guest), host, slack)
			for i, x := range beats {
				guest, host = guest+x.guest, host+x.host
				if by, ok := c.jump(1, x.pauses, [16]byte{1}, uint64(guest), host, slack); by != x.want || ok != (x.want != 0) {
					t.Fatalf("beat %d: jumped %v (%v), want %v", i, by, ok, x.want)
				}
			}
			// Others are never held against this one, and no number is too large.
			for _, other := range []struct {
				session uint64
				epoch   [16]byte
			}{{2, [16]byte{1}}, {2, [16]byte{2}}} {
				if by, ok := c.jump(other.session, 0, other.epoch, math.MaxUint64, host, slack); ok {
					t.Errorf("session %d in epoch %x: jumped %v", other.session, other.epoch[:1], by)
				}
			}
		})
	}
}

// TestClockJumpIsSealed answers heartbeats with a clock that jumps.
func TestClockJumpIsSealed(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	for i := range 3 {
		h, err := wire.ParseHeartbeat(p.next(wire.TypeHeartbeat))
		b.must(err)
		h.Session, h.Time = b.session, uint64(time.Hour)
		if i == 2 {
			h.Time *= 2
		}
		b.must(p.out.Write(wire.TypeHeartbeat, h.AppendBinary(nil)))
	}
	jumps := b.await(record.ClassAgentClockJump, 1)
	if r := reasonOf(t, jumps[0].Payload); !strings.Contains(r, "s ahead of the host's") {
		t.Errorf("sealed as %q", r)
	}
}
