package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// A host may say more at the end of its Hello than this version knows. What it
// does say is covered by the transcript all the same.
func TestHelloOfNewerHost(t *testing.T) {
	h := testHello()
	plain := h.AppendBinary(nil)
	h.CommandKey = [32]byte{7}
	keyed := h.AppendBinary(nil)
	if len(keyed) != len(plain)+32 {
		t.Fatalf("command key adds %d bytes", len(keyed)-len(plain))
	}
	newer := append(bytes.Clone(keyed), "what comes next year"...)
	got, err := ParseHello(newer)
	if err != nil || got.CommandKey != h.CommandKey || string(got.Rest) != "what comes next year" {
		t.Errorf("newer hello: %+v, %v", got, err)
	}
	contract(t, "hello", newer)
	for name, b := range map[string][]byte{
		"half a key":          keyed[:len(keyed)-1],
		"a key of zero":       append(bytes.Clone(plain), make([]byte, 32)...),
		"more than the limit": append(bytes.Clone(keyed), make([]byte, MaxText+1)...),
	} {
		if _, err := ParseHello(b); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i := testIdent()
	signed := i.Sign(testKey(), keyed)
	if _, _, err := ParseIdent(signed, plain); err == nil {
		t.Error("an ident over a hello with a command key passes for one without")
	}
}

// No byte of a command or of a result can change, and an answer to one command
// is none to another.
func TestForgedCommand(t *testing.T) {
	pub := [32]byte(testKey().Public().(ed25519.PublicKey))
	ask := Request{Kind: KindStop, Requester: "uid 0", Reason: "upgrade"}
	c := Command{ID: [16]byte{1}, Epoch: [16]byte{2}, Nonce: [32]byte{3}, Expiry: 4, Body: ask.AppendBinary(nil)}
	c.Signature = [64]byte(ed25519.Sign(testKey(), append([]byte(commandContext), c.AppendUnsigned(nil)...)))
	body := c.AppendBinary(nil)
	if err := c.Verify(&pub); err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(&[32]byte{}); err == nil {
		t.Error("a host without a command key commands")
	}
	for n := range body {
		b := bytes.Clone(body)
		b[n] ^= 1
		if m, err := ParseCommand(b); err == nil && m.Verify(&pub) == nil {
			t.Errorf("command with byte %d changed is accepted", n)
		}
	}
	r := Result{ID: c.ID, Status: ResultDone, Body: []byte("x")}
	r.Sign(testKey(), body)
	if err := r.Verify(pub[:], body); err != nil {
		t.Fatal(err)
	}
	other := c
	other.Nonce[0]++
	if r.Verify(pub[:], other.AppendBinary(nil)) == nil {
		t.Error("a result answers another command of the same id")
	}
	answer := r.AppendBinary(nil)
	for n := range answer {
		b := bytes.Clone(answer)
		b[n] ^= 1
		if m, err := ParseResult(b); err == nil && m.Verify(pub[:], body) == nil {
			t.Errorf("result with byte %d changed is accepted", n)
		}
	}
}

func TestRequest(t *testing.T) {
	for name, r := range map[string]Request{
		"no kind":             {Requester: "a", Reason: "b"},
		"reason is no text":   {Kind: KindStop, Reason: "\xff"},
		"stop with arguments": {Kind: KindStop, Arguments: []byte("now")},
		"kill without any":    {Kind: KindKill},
		"kill of init":        {Kind: KindKill, Arguments: (&Target{Session: 1, Pid: 1, Start: 1}).AppendBinary(nil)},
		"kill of a group":     {Kind: KindKill, Arguments: (&Target{Session: 1, Pid: 1 << 31, Start: 1}).AppendBinary(nil)},
		"kill of any start":   {Kind: KindKill, Arguments: (&Target{Session: 1, Pid: 2}).AppendBinary(nil)},
		"kill of any session": {Kind: KindKill, Arguments: (&Target{Pid: 2, Start: 1}).AppendBinary(nil)},
		"kill of two":         {Kind: KindKill, Arguments: make([]byte, 40)},
	} {
		if got, err := ParseRequest(r.AppendBinary(nil)); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// The table of kinds is open: one that is unknown can be read and answered.
	r := Request{Kind: 77, Requester: "a", Reason: "b", Arguments: []byte{1}}
	got, err := ParseRequest(r.AppendBinary(nil))
	if err != nil || got.Kind != 77 || string(got.Arguments) != "\x01" {
		t.Errorf("unknown kind: %+v, %v", got, err)
	}
}

// TestTarget holds the bytes of a target.
func TestTarget(t *testing.T) {
	want := Target{Session: 0x0102030405060708, Pid: 0x0a0b, Start: 0x1112131415161718}
	b := want.AppendBinary(nil)
	if fmt.Sprintf("%x", b) != "010203040506070800000a0b1112131415161718" {
		t.Errorf("%x", b)
	}
	r := Request{Kind: KindKill, Requester: "policy p", Reason: "verdict 7", Arguments: b}
	got, err := ParseRequest(r.AppendBinary(nil))
	if err != nil {
		t.Fatal(err)
	}
	if target, err := ParseTarget(got.Arguments); err != nil || target != want {
		t.Errorf("%+v, %v", target, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(messages()["request"])
	f.Fuzz(func(t *testing.T, b []byte) { contract(t, "request", b) })
}
