package guest

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

func reasonOf(t *testing.T, payload []byte) string {
	t.Helper()
	var m record.AgentState
	if err := m.UnmarshalVT(payload); err != nil {
		t.Fatal(err)
	}
	return m.Reason
}

// TestFramesAreSealedWholeAndAcknowledged follows frames into the log: the
// records in order, the statement right behind them, the ack after both.
func TestFramesAreSealedWholeAndAcknowledged(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	h, w := p.greet(nil)
	if h.Domain != b.dom.UUID || h.Origin != b.log.Origin() || w.Refused {
		t.Fatalf("hello %+v, welcome %+v", h, w)
	}
	f1 := b.frame(1, record.Hash{}, 0, 3, nil)
	a1 := p.send(f1)
	f2 := b.frame(2, wire.FrameHash(f1.Statement), 3, 2, nil)
	a2 := p.send(f2)
	if a1.Refused || a2.Refused || a2.Index != a1.Index+3 {
		t.Fatalf("acks %+v and %+v", a1, a2)
	}
	for _, a := range []wire.Ack{a1, a2} {
		i, err := b.log.Item(a.Index)
		if err != nil {
			t.Fatal(err)
		}
		if i.LeafHash != a.Hash || i.Leaf.Header.Class != record.ClassAgentFrame {
			t.Errorf("the ack of frame %d names leaf %d, which is a %s", a.Frame, a.Index, i.Leaf.Header.Class)
		}
	}
	execs := b.sealed()[record.ClassProcessExec]
	if len(execs) != 5 {
		t.Fatalf("%d records are sealed, want 5", len(execs))
	}
	for n, i := range execs {
		if i.Leaf.Origin != record.OriginGuest || i.Leaf.Header.Sequence != uint64(n) {
			t.Errorf("record %d: origin %s, sequence %d", n, i.Leaf.Origin, i.Leaf.Header.Sequence)
		}
	}
}

// TestFramesInFlightKeepTheirBytes sends many frames without waiting for acks:
// each payload must be sealed as it was signed, whatever was read behind it.
func TestFramesInFlightKeepTheirBytes(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	const frames, records = 40, 30
	prev := record.Hash{}
	for n := range uint64(frames) {
		f := b.frame(n+1, prev, n*records, records, nil)
		b.must(p.out.Write(wire.TypeFrame, f.AppendBinary(nil)))
		prev = wire.FrameHash(f.Statement)
	}
	for range frames {
		if a, err := wire.ParseAck(p.next(wire.TypeAck)); err != nil || a.Refused {
			t.Fatalf("ack %+v: %v", a, err)
		}
	}
	got := b.sealed()[record.ClassProcessExec]
	if len(got) != frames*records {
		t.Fatalf("%d records are sealed, want %d", len(got), frames*records)
	}
	for _, i := range got {
		salt := i.Salt()
		if c := record.Commit(&salt, i.Payload); c != i.Leaf.Commitment {
			t.Fatalf("payload of leaf %d is not what was committed to", i.Index)
		}
	}
}

// TestResendAfterReconnect shows that what was sealed and not heard to be is
// acknowledged again and not sealed again.
func TestResendAfterReconnect(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 2, nil)
	p.send(f1)
	p.conn.Close()

	p = b.accept()
	h, _ := p.greet(func(id *wire.Ident) { id.Frame, id.FrameHash = 1, wire.FrameHash(f1.Statement) })
	if h.LastSession != b.session || h.LastFrame != 1 || h.LastFrameHash != wire.FrameHash(f1.Statement) {
		t.Fatalf("the second hello knows session %x frame %d", h.LastSession, h.LastFrame)
	}
	if a := p.send(f1); a.Refused || a.Frame != 1 {
		t.Fatalf("ack of the frame sent again: %+v", a)
	}
	if a := p.send(b.frame(2, wire.FrameHash(f1.Statement), 2, 1, nil)); a.Refused {
		t.Fatalf("next frame refused: %s", a.Reason)
	}
	got := b.sealed()
	if n := len(got[record.ClassProcessExec]); n != 3 {
		t.Errorf("%d records are sealed, want 3", n)
	}
	if n := len(got[record.ClassAgentEnrolled]); n != 2 {
		t.Errorf("%d enrolments are sealed, want 2: one new, one resumed", n)
	}
}

// TestHostileFrames sends what no honest agent sends. Each is sealed as a
// finding, refused, and none of its records is sealed.
func TestHostileFrames(t *testing.T) {
	cases := []struct {
		name   string
		class  record.Class
		reason string
		change func(*wire.Frame, *wire.Statement)
		after  func(*wire.Frame) // behind the signature
	}{
		{"another domain", record.ClassAgentRefused, "names domain", func(_ *wire.Frame, s *wire.Statement) { s.Domain[0]++ }, nil},
		{"another session", record.ClassAgentRefused, "names session", func(_ *wire.Frame, s *wire.Statement) { s.Session++ }, nil},
		{"another epoch", record.ClassAgentStale, "stale", func(_ *wire.Frame, s *wire.Statement) { s.Epoch[3]++ }, nil},
		{"wrong root", record.ClassAgentSignatureInvalid, "root", func(_ *wire.Frame, s *wire.Statement) { s.Root[0]++ }, nil},
		{"wrong signature", record.ClassAgentSignatureInvalid, "signature", nil, func(f *wire.Frame) { f.Signature[5]++ }},
		{"swapped payload", record.ClassAgentSignatureInvalid, "root", nil, func(f *wire.Frame) { f.Records[0].Payload = f.Records[1].Payload }},
		{"forged verdict", record.ClassAgentSignatureInvalid, "no guest may write", nil, func(f *wire.Frame) { f.Records[1].Header.Class = record.ClassPolicyVerdict }},
		{"another history", record.ClassAgentForked, "two histories", func(_ *wire.Frame, s *wire.Statement) { s.Prev[0]++ }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			p := b.accept()
			p.greet(nil)
			f := b.frame(1, record.Hash{}, 0, 2, c.change)
			if c.after != nil {
				c.after(f)
			}
			a := p.send(f)
			if !a.Refused || !strings.Contains(a.Reason, c.reason) {
				t.Errorf("ack %+v, want a refusal with %q", a, c.reason)
			}
			got := b.sealed()
			if n := len(got[record.ClassProcessExec]); n != 0 {
				t.Errorf("%d records of a refused frame are sealed", n)
			}
			if len(got[c.class]) != 1 || !strings.Contains(reasonOf(t, got[c.class][0].Payload), c.reason) {
				t.Errorf("%d findings of class %s are sealed, want 1 with %q", len(got[c.class]), c.class, c.reason)
			}
		})
	}
}

// TestHoles shows that what is missing and not owned up to is sealed (I4), and
// that owned drops are none.
func TestHoles(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	owned := b.frame(1, record.Hash{}, 0, 2, func(_ *wire.Frame, s *wire.Statement) {
		s.Lanes[0].Next = 7
		s.Lanes[0].Drops = []wire.Drop{{Class: record.ClassProcessExec, Reason: record.LossReason_LOSS_REASON_RING_FULL, Count: 5}}
	})
	p.send(owned)
	if n := len(b.sealed()[record.ClassAgentSequenceGap]); n != 0 {
		t.Fatalf("%d gaps are sealed for drops that were owned up to", n)
	}
	p.send(b.frame(2, wire.FrameHash(owned.Statement), 2, 1, func(_ *wire.Frame, s *wire.Statement) { s.Lanes[0].Next = 12 }))
	gaps := b.sealed()[record.ClassAgentSequenceGap]
	if len(gaps) != 1 {
		t.Fatalf("%d gaps are sealed, want 1", len(gaps))
	}
	var m record.AgentState
	if err := m.UnmarshalVT(gaps[0].Payload); err != nil || m.Count != 4 {
		t.Errorf("the gap counts %d events (%v), want 4: lane at 12, 3 arrived, 5 dropped", m.Count, err)
	}
	p.send(b.frame(9, record.Hash{9}, 40, 1, nil))
	if gaps = b.sealed()[record.ClassAgentSequenceGap]; len(gaps) != 2 || !strings.Contains(reasonOf(t, gaps[1].Payload), "frames 3 to 8") {
		t.Errorf("%d gaps are sealed after frames 3 to 8 went missing, want 2", len(gaps))
	}
}

// TestRollback shows that an agent which holds an ack that the log does not
// bear out raises an alarm.
func TestRollback(t *testing.T) {
	b := newBench(t, nil)
	b.accept().greet(func(id *wire.Ident) { id.AckedFrame, id.AckedIndex, id.AckedHash = 7, 4711, record.Hash{1} })
	if got := b.await(record.ClassAgentRollback, 1); !strings.Contains(reasonOf(t, got[0].Payload), "4711") {
		t.Errorf("sealed as %q", reasonOf(t, got[0].Payload))
	}
}

// TestAnotherHistory sends other content under a number that is sealed: it is
// refused and never acknowledged as a duplicate (I7).
func TestAnotherHistory(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 1, nil)
	p.send(f1)
	p.send(b.frame(2, wire.FrameHash(f1.Statement), 1, 1, nil))
	if a := p.send(f1); a.Refused {
		t.Errorf("a frame sent again is refused: %s", a.Reason)
	}
	other := b.frame(1, record.Hash{}, 0, 2, nil)
	if a := p.send(other); !a.Refused {
		t.Error("other content under the number of a sealed frame is acknowledged")
	}
}

// TestCopiedMemory and TestRestoredMemory follow an agent that is an earlier
// state of itself: in the same epoch it is turned away, in a new one, which is
// what a restore opens, it goes on from where it was.
func TestCopiedMemory(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 1, nil)
	p.send(f1)
	p.send(b.frame(2, wire.FrameHash(f1.Statement), 1, 1, nil))
	p.conn.Close()
	back := func(id *wire.Ident) { id.Frame, id.FrameHash = 1, wire.FrameHash(f1.Statement) }
	_, w := b.accept().greet(back)
	if !w.Refused || !strings.Contains(w.Reason, "copied or restored") {
		t.Errorf("welcome %+v", w)
	}
	if n := len(b.sealed()[record.ClassAgentForked]); n != 1 {
		t.Errorf("%d alarms are sealed, want 1", n)
	}
	if s := b.sessions.Status(); len(s) != 1 || s[0].WentBack != b.dom.Epoch {
		t.Fatalf("the status does not say that memory went back: %+v", s)
	}
	d := b.dom // what the registry makes of it
	d.ParentEpoch, d.Epoch = d.Epoch, [16]byte{2}
	b.sessions.Set(&d)
	b.dom = d
	for { // connections that were refused before may still be answered
		if _, w := b.accept().greet(back); !w.Refused {
			break
		}
	}
	if n := len(b.sealed()[record.ClassAgentRewound]); n != 1 {
		t.Errorf("%d rewound agents are sealed, want 1", n)
	}
}

// TestTakenBackUnseen follows an agent whose memory is taken back while it talks, and
// which has made more frames than are sealed when that is dealt with.
func TestTakenBackUnseen(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 1, nil)
	p.send(f1)
	p.send(b.frame(2, wire.FrameHash(f1.Statement), 1, 1, nil))
	other := b.frame(2, wire.FrameHash(f1.Statement), 1, 2, nil)
	if a := p.send(other); !a.Refused {
		t.Fatal("a second frame 2 is taken")
	}
	if s := b.sessions.Status(); s[0].WentBack != b.dom.Epoch {
		t.Fatalf("the status does not say that memory went back: %+v", s)
	}
	d := b.dom
	d.ParentEpoch, d.Epoch = d.Epoch, [16]byte{2}
	b.sessions.Set(&d)
	b.dom = d
	third := wire.FrameHash(b.frame(3, wire.FrameHash(other.Statement), 3, 1, nil).Statement)
	if _, w := p.greet(func(id *wire.Ident) { id.Frame, id.FrameHash = 3, third }); w.Refused {
		t.Fatalf("refused: %s", w.Reason)
	}
	if a := p.send(b.frame(4, third, 4, 1, nil)); a.Refused {
		t.Errorf("the first frame of the new epoch is refused: %s", a.Reason)
	}
	got := b.sealed()
	for c, want := range map[record.Class]int{record.ClassAgentForked: 1, record.ClassAgentRewound: 1, record.ClassAgentSequenceGap: 0, record.ClassProcessExec: 3} {
		if len(got[c]) != want {
			t.Errorf("%d entries of %s, want %d", len(got[c]), c, want)
		}
	}
}

// TestArrivedMemory follows an agent that comes with frames of another log behind it:
// its session goes on here, and what it says of the other log is sealed.
func TestArrivedMemory(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	source := [16]byte{9}
	d := b.dom
	d.ParentEpoch, d.Epoch, d.From = source, [16]byte{2}, "other.host/vm/"+d.UUID.String()+"/3/1"
	b.sessions.Set(&d)
	b.dom = d
	acked := func(id *wire.Ident) {
		id.Frame, id.AckedFrame, id.AckedIndex, id.AckedHash = 8, 7, 4711, record.Hash{1}
	}
	if _, w := p.greet(acked); w.Refused {
		t.Fatalf("refused: %s", w.Reason)
	}
	p.conn.Close()
	p = b.accept() // before anything is acknowledged here
	h, w := p.greet(acked)
	if w.Refused || h.LastFrame != 7 || h.LastSession != b.session {
		t.Fatalf("the second hello knows session %x frame %d, welcome %+v", h.LastSession, h.LastFrame, w)
	}
	f8 := b.frame(8, record.Hash{5}, 100, 2, func(_ *wire.Frame, s *wire.Statement) { s.Epoch = source })
	if a := p.send(f8); a.Refused {
		t.Fatalf("the frame that was on its way is refused: %s", a.Reason)
	}
	other := func(_ *wire.Frame, s *wire.Statement) { // a lane that was not in the first frame
		s.Lanes = append(s.Lanes, wire.Lane{Number: 4, First: 50, Next: 50})
	}
	if a := p.send(b.frame(9, wire.FrameHash(f8.Statement), 102, 1, other)); a.Refused {
		t.Fatalf("the next frame is refused: %s", a.Reason)
	}
	got := b.sealed()
	for c, want := range map[record.Class]int{record.ClassAgentArrived: 1, record.ClassAgentRollback: 0, record.ClassAgentSequenceGap: 0, record.ClassProcessExec: 3} {
		if len(got[c]) != want {
			t.Errorf("%d entries of %s, want %d", len(got[c]), c, want)
		}
	}
	m, err := got[record.ClassAgentArrived][0].Decode()
	if err != nil {
		t.Fatal(err)
	}
	if a := m.(*record.Handover); a.Origin != d.From || a.Index != 4711 || a.Frame != 7 || string(a.Epoch) != string(source[:]) {
		t.Errorf("sealed as %v", a)
	}
	if a := p.send(b.frame(8, record.Hash{5}, 100, 2, func(_ *wire.Frame, s *wire.Statement) { s.Epoch = source; s.Time = 1 })); !a.Refused {
		t.Error("another frame of the epoch before is taken")
	}
	if n := len(b.sealed()[record.ClassAgentStale]); n != 1 {
		t.Errorf("%d stale frames are sealed, want 1", n)
	}
}

// TestCopiedKey shows one domain's agent with the key of another's.
func TestCopiedKey(t *testing.T) {
	o := &owners{keys: map[[32]byte]domain.UUID{}}
	a, b := domain.UUID{1}, domain.UUID{2}
	first, second := [32]byte{1}, [32]byte{2}
	if _, ok := o.claim(first, nil, a); !ok {
		t.Error("a new key is another's")
	}
	if other, ok := o.claim(first, nil, b); ok || other != a {
		t.Error("the key of another domain is taken")
	}
	if _, ok := o.claim(second, first[:], a); !ok || len(o.keys) != 1 {
		t.Errorf("%d keys behind a new one, want 1", len(o.keys))
	}
	bench := newBench(t, nil)
	p := bench.accept()
	bench.sessions.owners.claim([32]byte(bench.key.Public().(ed25519.PublicKey)), nil, a)
	p.greet(nil)
	if n := len(bench.sealed()[record.ClassAgentCloned]); n != 1 {
		t.Errorf("%d copied keys are sealed, want 1", n)
	}
}

func TestRestoredMemory(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 1, nil)
	p.send(f1)
	p.send(b.frame(2, wire.FrameHash(f1.Statement), 1, 4, nil))
	d := b.dom
	d.ParentEpoch, d.Epoch = d.Epoch, [16]byte{2}
	b.sessions.Set(&d)
	b.dom = d
	_, w := p.greet(func(id *wire.Ident) { id.Frame, id.FrameHash = 1, wire.FrameHash(f1.Statement) })
	if w.Refused {
		t.Fatalf("refused: %s", w.Reason)
	}
	if a := p.send(b.frame(2, wire.FrameHash(f1.Statement), 1, 1, nil)); a.Refused {
		t.Errorf("first frame behind the restore refused: %s", a.Reason)
	}
	got := b.sealed()
	if len(got[record.ClassAgentRewound]) != 1 || len(got[record.ClassAgentSequenceGap]) != 0 {
		t.Errorf("%d rewound agents and %d gaps are sealed, want 1 and 0", len(got[record.ClassAgentRewound]), len(got[record.ClassAgentSequenceGap]))
	}
}

// TestFloods holds that what a guest can make the host do is bounded (I8):
// handshakes, and lanes that no statement forgets.
func TestFloods(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	b.must(p.conn.SetDeadline(time.Now().Add(1500 * time.Millisecond)))
	began := time.Now()
	n := 1
	for ; time.Since(began) < time.Second; n++ {
		beat := wire.Heartbeat{Session: b.session + 1}
		if p.out.Write(wire.TypeHeartbeat, beat.AppendBinary(nil)) != nil {
			break
		}
		e, err := p.in.Read()
		for ; err == nil && e.Type != wire.TypeHello; e, err = p.in.Read() {
		}
		if err != nil {
			break
		}
		h, err := wire.ParseHello(e.Body)
		b.must(err)
		id := wire.Ident{Version: wire.Version, Session: b.session, Epoch: h.Epoch, Nonce: h.Nonce}
		copy(id.Key[:], b.key.Public().(ed25519.PublicKey))
		b.must(p.out.Write(wire.TypeIdent, id.Sign(b.key, e.Body)))
	}
	if got := len(b.sealed()[record.ClassAgentEnrolled]); got > 12 {
		t.Errorf("%d handshakes in a second, %d sealed", n, got)
	}

	b = newBench(t, nil)
	p = b.accept()
	p.greet(nil)
	prev, refused := record.Hash{}, ""
	for n := range uint64(6) {
		f := b.frame(n+1, prev, n, 1, func(_ *wire.Frame, s *wire.Statement) {
			for l := range uint32(400) {
				s.Lanes = append(s.Lanes, wire.Lane{Number: 100 + uint32(n)*400 + l})
			}
		})
		prev = wire.FrameHash(f.Statement)
		if a := p.send(f); a.Refused {
			refused = a.Reason
			break
		}
	}
	if !strings.Contains(refused, "lanes") {
		t.Errorf("a session that names 2,400 lanes is refused with %q", refused)
	}
}

// TestImpostor shows that a socket whose peer is another process than
// libvirt's QEMU is not spoken to (I3).
func TestImpostor(t *testing.T) {
	b := newBench(t, nil)
	b.accept()
	d := b.dom
	d.QEMU.Start++
	b.sessions.Set(&d)
	p := b.accept()
	if e, err := p.in.Read(); err == nil {
		t.Errorf("the daemon sent a %s to a process that is not the domain's", e.Type)
	}
}

// TestSilence seals that an agent has gone silent, once, and that it is back.
func TestSilence(t *testing.T) {
	b := newBench(t, func(c *Config) { c.SilentAfter, c.BootGrace = 300*time.Millisecond, 300*time.Millisecond })
	p := b.accept()
	p.greet(nil)
	b.await(record.ClassAgentHeartbeatLost, 1)
	h, err := wire.ParseHeartbeat(p.next(wire.TypeHeartbeat))
	b.must(err)
	for range 40 { // the queue holds old ones; answer until a fresh one is met
		h.Session = b.session
		b.must(p.out.Write(wire.TypeHeartbeat, h.AppendBinary(nil)))
		h, err = wire.ParseHeartbeat(p.next(wire.TypeHeartbeat))
		b.must(err)
		if len(b.sealed()[record.ClassAgentHeartbeatBack]) > 0 {
			return
		}
	}
	b.await(record.ClassAgentHeartbeatBack, 1)
}

// TestNewEpochOnTheSameConnection follows a guest's reset: the socket stays,
// the daemon says hello again, and a new session begins.
func TestNewEpochOnTheSameConnection(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	p.send(b.frame(1, record.Hash{}, 0, 1, nil))
	d := b.dom
	d.ParentEpoch, d.Epoch = d.Epoch, [16]byte{2}
	b.sessions.Set(&d)
	b.dom = d
	b.session = 0x9999
	h, w := p.greet(nil)
	if h.Epoch != d.Epoch || w.Refused {
		t.Fatalf("hello has epoch %x, welcome %+v", h.Epoch, w)
	}
	if a := p.send(b.frame(1, record.Hash{}, 0, 1, nil)); a.Refused {
		t.Errorf("first frame of the new session refused: %s", a.Reason)
	}
}

// TestRestartedAgent follows an agent that was started anew behind a port that
// did not notice: its answer to a heartbeat brings it a hello.
func TestRestartedAgent(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	p.send(b.frame(1, record.Hash{}, 0, 1, nil))
	b.session = 0x7777
	h, err := wire.ParseHeartbeat(p.next(wire.TypeHeartbeat))
	b.must(err)
	h.Session = b.session
	b.must(p.out.Write(wire.TypeHeartbeat, h.AppendBinary(nil)))
	p.greet(nil)
	if a := p.send(b.frame(1, record.Hash{}, 0, 1, nil)); a.Refused {
		t.Errorf("first frame of the restarted agent refused: %s", a.Reason)
	}
}

// FuzzProgress holds that damaged books are an error and never half a progress.
func FuzzProgress(f *testing.F) {
	f.Add([]byte(`{"session":1,"lanes":{"3":{"next":4}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProgress(b)
		if err != nil && p.Session != 0 {
			t.Errorf("an error comes with progress %+v", p)
		}
	})
}
