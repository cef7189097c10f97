package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/provostd/provost/chain/record"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/vectors.json; only ever for a new version of the protocol")

func fill(b []byte, from byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
}

func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	fill(seed, 1)
	return ed25519.NewKeyFromSeed(seed)
}

func testHello() Hello {
	h := Hello{MinVersion: 1, MaxVersion: 1, Origin: "kvm1.example/vm/0/1", Incarnation: 7, LastSession: 8, LastFrame: 9, LastIndex: 10}
	fill(h.Domain[:], 1)
	fill(h.Epoch[:], 2)
	fill(h.GenerationID[:], 3)
	fill(h.Nonce[:], 4)
	fill(h.LastFrameHash[:], 5)
	fill(h.LastHash[:], 6)
	return h
}

func testIdent() Ident {
	i := Ident{Version: 1, AgentVersion: "v0", Session: 8, Frame: 9, AckedFrame: 5, AckedIndex: 6, Hooks: []byte{1, 2, 3}}
	copy(i.Key[:], testKey().Public().(ed25519.PublicKey))
	fill(i.BootID[:], 1)
	fill(i.Epoch[:], 2)
	fill(i.Nonce[:], 4)
	fill(i.FrameHash[:], 7)
	fill(i.AckedHash[:], 8)
	return i
}

// testFrame returns a frame that verifies.
func testFrame(records int) (Frame, Statement) {
	f := Frame{}
	fill(f.Seed[:], 9)
	s := Statement{Session: 8, Frame: 3, Count: uint32(records), First: 40, Time: 12345,
		Lanes: []Lane{{Number: 0, First: 1, Next: 3}, {Number: 0x10001, First: 5, Next: 9,
			Drops: []Drop{{Class: record.ClassFileModify, Reason: record.LossReason_LOSS_REASON_RING_FULL, Count: 2}}}}}
	fill(s.Domain[:], 1)
	fill(s.Epoch[:], 2)
	fill(s.Prev[:], 3)
	var hashes []record.Hash
	for i := range records {
		h := record.Header{Class: record.ClassProcessExec, Lane: 0, Session: 8, Sequence: 40 + uint64(i), LaneSequence: uint64(i), Time: 99}
		p := bytes.Repeat([]byte{byte(i)}, i%50)
		salt := f.Seed.Salt(h.Sequence)
		hashes = append(hashes, record.RecordHash(h, record.Commit(&salt, p)))
		f.Records = append(f.Records, Record{h, p})
	}
	s.Root = record.Root(hashes)
	f.Statement = s.AppendBinary(nil)
	f.Signature = SignStatement(testKey(), f.Statement)
	return f, s
}

// messages is one of each body.
func messages() map[string][]byte {
	h, i := testHello(), testIdent()
	hello := h.AppendBinary(nil)
	f, _ := testFrame(3)
	w := Welcome{Refused: true, Reason: "no", HeartbeatMilli: 1, WindowFrames: 2, WindowBytes: 3}
	a := Ack{Session: 1, Frame: 2, Index: 3, Hash: record.Hash{4}, Refused: true, Reason: "because"}
	b := Heartbeat{Nonce: 1, Session: 2, Time: 3, Frame: 4}
	c := Command{ID: [16]byte{1}, Epoch: [16]byte{2}, Nonce: [32]byte{3}, Expiry: 4, Body: []byte("do"), Signature: [64]byte{5}}
	r := Result{ID: [16]byte{1}, Status: ResultUnsupported, Body: []byte("no"), Signature: [64]byte{5}}
	ask := Request{Kind: KindStop, Requester: "uid 0", Reason: "kernel upgrade"}
	keyed := testHello()
	keyed.CommandKey = [32]byte{7}
	return map[string][]byte{
		"hello": hello, "ident": i.Sign(testKey(), hello), "frame": f.AppendBinary(nil), "statement": f.Statement,
		"welcome": w.AppendBinary(nil), "ack": a.AppendBinary(nil), "heartbeat": b.AppendBinary(nil),
		"command": c.AppendBinary(nil), "result": r.AppendBinary(nil), "request": ask.AppendBinary(nil),
		"hello with command key": keyed.AppendBinary(nil),
		"envelope":               AppendEnvelope(nil, TypeHeartbeat, 77, b.AppendBinary(nil)),
	}
}

// The bytes of every message are fixed: a change breaks agents in the field.
func TestVectors(t *testing.T) {
	got := map[string]string{}
	for name, b := range messages() {
		got[name] = hex.EncodeToString(b)
	}
	if *rewrite {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/vectors.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s is\n%s, want\n%s", name, got[name], want[name])
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d vectors, want %d", len(want), len(got))
	}
}

func TestRoundTrips(t *testing.T) {
	m := messages()
	hello := m["hello"]
	check := func(name string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %+v, want %+v", name, err, got, want)
		}
	}
	h, err := ParseHello(hello)
	check("hello", h, testHello(), err)
	i, transcript, err := ParseIdent(m["ident"], hello)
	want := testIdent()
	want.Sign(testKey(), hello)
	check("ident", i, want, err)
	if transcript != Transcript(hello, m["ident"][:len(m["ident"])-64]) {
		t.Error("ident: transcript differs")
	}
	f, s, err := ParseFrame(m["frame"])
	wantFrame, wantStatement := testFrame(3)
	for i := range wantFrame.Records {
		if !bytes.Equal(f.Records[i].Payload, wantFrame.Records[i].Payload) || f.Records[i].Header != wantFrame.Records[i].Header {
			t.Errorf("frame: record %d is %v", i, f.Records[i])
		}
	}
	check("statement", s, wantStatement, err)
	if f.Size() != len(m["frame"]) {
		t.Errorf("frame says it has %d bytes, it has %d", f.Size(), len(m["frame"]))
	}
	if !bytes.Equal(f.AppendBinary(nil), m["frame"]) {
		t.Error("frame does not come back")
	}
	opened, err := f.Open(&s, i.Key[:])
	if err != nil || len(opened) != 3 {
		t.Errorf("open: %v", err)
	}
	w, err := ParseWelcome(m["welcome"])
	check("welcome", w.AppendBinary(nil), m["welcome"], err)
	a, err := ParseAck(m["ack"])
	check("ack", a.AppendBinary(nil), m["ack"], err)
	b, err := ParseHeartbeat(m["heartbeat"])
	check("heartbeat", b.AppendBinary(nil), m["heartbeat"], err)
	c, err := ParseCommand(m["command"])
	check("command", c.AppendBinary(nil), m["command"], err)
	r, err := ParseResult(m["result"])
	check("result", r.AppendBinary(nil), m["result"], err)
}

// parsers by message; each returns the value again as bytes.
var parsers = map[string]func([]byte) (any, []byte, error){
	"hello":     func(b []byte) (any, []byte, error) { v, err := ParseHello(b); return v, v.AppendBinary(nil), err },
	"welcome":   func(b []byte) (any, []byte, error) { v, err := ParseWelcome(b); return v, v.AppendBinary(nil), err },
	"ack":       func(b []byte) (any, []byte, error) { v, err := ParseAck(b); return v, v.AppendBinary(nil), err },
	"heartbeat": func(b []byte) (any, []byte, error) { v, err := ParseHeartbeat(b); return v, v.AppendBinary(nil), err },
	"command":   func(b []byte) (any, []byte, error) { v, err := ParseCommand(b); return v, v.AppendBinary(nil), err },
	"result":    func(b []byte) (any, []byte, error) { v, err := ParseResult(b); return v, v.AppendBinary(nil), err },
	"request":   func(b []byte) (any, []byte, error) { v, err := ParseRequest(b); return v, v.AppendBinary(nil), err },
	"statement": func(b []byte) (any, []byte, error) { v, err := ParseStatement(b); return v, v.AppendBinary(nil), err },
	"frame": func(b []byte) (any, []byte, error) {
		v, _, err := ParseFrame(b)
		return v, v.AppendBinary(nil), err
	},
}

// contract is what every parser promises: an error comes with the zero value
// and is a rejection; what was accepted has one encoding only.
func contract(t *testing.T, name string, b []byte) {
	t.Helper()
	v, again, err := parsers[name](b)
	switch {
	case err != nil && !reflect.ValueOf(v).IsZero():
		t.Errorf("%s: %v, and still a value: %+v", name, err, v)
	case err != nil && !errors.Is(err, record.ErrReject):
		t.Errorf("%s: %v is no rejection", name, err)
	case err == nil && !bytes.Equal(again, b):
		t.Errorf("%s: accepted %x and is %x", name, b, again)
	}
}

// Every message cut short, or with a byte more, or with any one byte changed
// keeps the contract; the first two are refused.
func TestDamaged(t *testing.T) {
	for name, b := range messages() {
		if parsers[name] == nil {
			continue
		}
		for n := range b {
			if _, _, err := parsers[name](b[:n]); err == nil {
				t.Errorf("%s: accepted %d of %d bytes", name, n, len(b))
			}
			c := bytes.Clone(b)
			c[n] ^= 0x55
			contract(t, name, c)
		}
		if _, _, err := parsers[name](append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s: accepted a byte too many", name)
		}
	}
}

// No byte of a frame or of an ident can change without being noticed.
func TestForged(t *testing.T) {
	m := messages()
	for n := range m["ident"] {
		c := bytes.Clone(m["ident"])
		c[n] ^= 1
		if i, _, err := ParseIdent(c, m["hello"]); err == nil || !reflect.ValueOf(i).IsZero() {
			t.Errorf("ident with byte %d changed: %v %+v", n, err, i)
		}
	}
	for n := range m["hello"] {
		c := bytes.Clone(m["hello"])
		c[n] ^= 1
		if _, _, err := ParseIdent(m["ident"], c); err == nil {
			t.Errorf("ident over a hello with byte %d changed", n)
		}
	}
	key := testKey().Public().(ed25519.PublicKey)
	for n := range m["frame"] {
		c := bytes.Clone(m["frame"])
		c[n] ^= 1
		f, s, err := ParseFrame(c)
		if err == nil {
			_, err = f.Open(&s, key)
		}
		if err == nil {
			t.Errorf("frame with byte %d changed is accepted", n)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	key := testKey().Public().(ed25519.PublicKey)
	sign := func(f *Frame, s *Statement) {
		var hashes []record.Hash
		for i := range f.Records {
			salt := f.Seed.Salt(f.Records[i].Header.Sequence)
			hashes = append(hashes, record.RecordHash(f.Records[i].Header, record.Commit(&salt, f.Records[i].Payload)))
		}
		s.Root = record.Root(hashes)
		f.Statement = s.AppendBinary(nil)
		f.Signature = SignStatement(testKey(), f.Statement)
	}
	for name, change := range map[string]func(*Frame, *Statement){
		"another session":      func(f *Frame, _ *Statement) { f.Records[1].Header.Session++ },
		"a sequence twice":     func(f *Frame, _ *Statement) { f.Records[1].Header.Sequence-- },
		"a verdict of a guest": func(f *Frame, _ *Statement) { f.Records[1].Header.Class = record.ClassPolicyVerdict },
		"a lifecycle event":    func(f *Frame, _ *Statement) { f.Records[1].Header.Class = record.ClassVMStart },
	} {
		f, s := testFrame(3)
		change(&f, &s)
		sign(&f, &s)
		if _, err := f.Open(&s, key); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, s := testFrame(3)
	s.Lanes = append(s.Lanes, s.Lanes[0]) // not ascending
	if _, err := ParseStatement(s.AppendBinary(nil)); err == nil {
		t.Error("lanes out of order are accepted")
	}
	if _, err := f.Open(&s, key[:31]); err == nil {
		t.Error("a short key is accepted")
	}
}

func TestLimits(t *testing.T) {
	f, s := testFrame(1)
	s.Count = MaxRecords + 1
	f.Statement = s.AppendBinary(nil)
	if _, _, err := ParseFrame(f.AppendBinary(nil)); err == nil {
		t.Error("a count over the limit is accepted")
	}
	if err := NewWriter(io.Discard).Write(TypeFrame, make([]byte, MaxBody+1)); err == nil {
		t.Error("a body over the limit is written")
	}
	w := Welcome{Reason: string(bytes.Repeat([]byte("x"), 2*MaxText))}
	if v, err := ParseWelcome(w.AppendBinary(nil)); err != nil || len(v.Reason) != MaxText {
		t.Errorf("a long reason: %v, %d bytes", err, len(v.Reason))
	}
}

// A stream with garbage anywhere gives every whole envelope behind it, and
// ErrGarbage for the rest.
func TestReaderResumes(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var stream []byte
		whole := map[uint64]bool{}
		for seq := range uint64(50) {
			if rnd.IntN(4) == 0 { // garbage between envelopes, P and V more often than not
				for range rnd.IntN(60) {
					stream = append(stream, "PVW2\x01\x00\xff"[rnd.IntN(7)])
				}
			}
			body := make([]byte, rnd.IntN(100))
			stream = AppendEnvelope(stream, TypeAck, seq, body)
			whole[seq] = true
		}
		r := NewReader(iotestHalf{bytes.NewReader(stream), rnd})
		got := 0
		for {
			e, err := r.Read()
			if err != nil && !errors.Is(err, ErrGarbage) {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal(err)
				}
				break
			}
			if e.Type != 0 {
				if !whole[e.Sequence] {
					t.Fatalf("seed %d: envelope %d was never sent", seed, e.Sequence)
				}
				delete(whole, e.Sequence)
				got++
			}
		}
		// What is no header costs nothing behind it: only a whole header in
		// the garbage could swallow an envelope, and none is 16 bytes of this.
		if got != 50 {
			t.Errorf("seed %d: only %d of 50 envelopes came through", seed, got)
		}
	}
}

// iotestHalf reads a random number of bytes at a time, as a port does.
type iotestHalf struct {
	r   io.Reader
	rnd *rand.Rand
}

func (h iotestHalf) Read(b []byte) (int, error) { return h.r.Read(b[:1+h.rnd.IntN(len(b))]) }

func TestReaderMissing(t *testing.T) {
	stream := AppendEnvelope(nil, TypeAck, 0, nil)
	stream = AppendEnvelope(stream, TypeAck, 3, []byte("x"))
	stream = AppendEnvelope(stream, TypeHello, 0, nil) // a handshake counts anew
	stream = AppendEnvelope(stream, TypeAck, 1, nil)
	r := NewReader(bytes.NewReader(stream))
	if e, err := r.Read(); err != nil || e.Sequence != 0 {
		t.Fatal(e, err)
	}
	if e, err := r.Read(); !errors.Is(err, ErrGarbage) || e.Sequence != 3 || string(e.Body) != "x" {
		t.Errorf("envelope %d, %v: want 3 and ErrGarbage", e.Sequence, err)
	}
	for want := range uint64(2) {
		if e, err := r.Read(); err != nil || e.Sequence != want {
			t.Errorf("envelope %d, %v: want %d", e.Sequence, err, want)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, b := range messages() {
		f.Add(AppendEnvelope([]byte("garbage P"), TypeFrame, 0, b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for range len(b) + 2 {
			e, err := r.Read()
			if err != nil && !errors.Is(err, ErrGarbage) {
				return // the end
			}
			if err == nil && !bytes.Contains(b, AppendEnvelope(nil, e.Type, e.Sequence, e.Body)) {
				t.Errorf("envelope %v was never sent", e)
			}
			if len(e.Body) > MaxBody {
				t.Errorf("body of %d bytes", len(e.Body))
			}
		}
		t.Error("reader does not come to an end")
	})
}

func fuzzOne(f *testing.F, name string) {
	f.Add(messages()[name])
	f.Fuzz(func(t *testing.T, b []byte) { contract(t, name, b) })
}

func FuzzParseFrame(f *testing.F) { fuzzOne(f, "frame") }
func FuzzStatement(f *testing.F)  { fuzzOne(f, "statement") }

// FuzzHandshake covers every message but frames: the first byte chooses.
func FuzzHandshake(f *testing.F) {
	names := []string{"hello", "welcome", "ack", "heartbeat", "command", "result", "request"}
	m := messages()
	for i, name := range names {
		f.Add(byte(i), m[name])
	}
	f.Add(byte(len(names)), m["ident"])
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		if int(which) < len(names) {
			contract(t, names[which], b)
			return
		}
		i, transcript, err := ParseIdent(b, m["hello"])
		if err != nil && (!reflect.ValueOf(i).IsZero() || !transcript.IsZero() || !errors.Is(err, record.ErrReject)) {
			t.Errorf("ident: %v, and still %+v", err, i)
		}
		if err == nil && !bytes.Equal(append(i.appendUnsigned(nil), i.Signature[:]...), b) {
			t.Errorf("ident: accepted %x", b)
		}
	})
}
