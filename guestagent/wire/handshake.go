package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// Hello is the host's first message. See the package comment for its bytes.
type Hello struct {
	MinVersion, MaxVersion uint8
	Origin                 string
	Domain                 [16]byte
	Incarnation            uint64
	Epoch                  [16]byte
	GenerationID           [16]byte
	Nonce                  [32]byte
	LastSession            uint64 // 0: nothing of this domain's agent is sealed
	LastFrame              uint64
	LastFrameHash          record.Hash
	LastIndex              uint64
	LastHash               record.Hash
	// CommandKey is the public key that the host signs commands with. Zero: it
	// gives none. The agent's Ident covers it, so both have seen the same key.
	CommandKey [ed25519.PublicKeySize]byte
	// Rest is what a newer host says that this version does not know.
	Rest []byte
}

// AppendBinary appends the body of h.
func (h *Hello) AppendBinary(b []byte) []byte {
	b = append(b, h.MinVersion, h.MaxVersion)
	b = appendText(b, h.Origin)
	b = append(b, h.Domain[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Incarnation)
	b = append(b, h.Epoch[:]...)
	b = append(b, h.GenerationID[:]...)
	b = append(b, h.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, h.LastSession)
	b = binary.BigEndian.AppendUint64(b, h.LastFrame)
	b = append(b, h.LastFrameHash[:]...)
	b = binary.BigEndian.AppendUint64(b, h.LastIndex)
	b = append(b, h.LastHash[:]...)
	if h.CommandKey == [ed25519.PublicKeySize]byte{} && len(h.Rest) == 0 {
		return b // as hosts without commands say it
	}
	b = append(b, h.CommandKey[:]...)
	return append(b, h.Rest...)
}

// ParseHello decodes a Hello body.
func ParseHello(body []byte) (Hello, error) {
	c := cursor{b: body}
	var h Hello
	h.MinVersion, h.MaxVersion = c.u8("lowest version"), c.u8("highest version")
	h.Origin = c.text("origin")
	c.fixed(h.Domain[:], "domain UUID")
	h.Incarnation = c.u64("incarnation")
	c.fixed(h.Epoch[:], "epoch")
	c.fixed(h.GenerationID[:], "generation id")
	c.fixed(h.Nonce[:], "nonce")
	h.LastSession = c.u64("last session")
	h.LastFrame = c.u64("last frame")
	c.fixed(h.LastFrameHash[:], "last frame hash")
	h.LastIndex = c.u64("last index")
	c.fixed(h.LastHash[:], "last leaf hash")
	if c.err == nil && len(c.b) > 0 {
		c.fixed(h.CommandKey[:], "command key")
		switch {
		case c.err != nil:
		case len(c.b) > MaxText:
			c.err = fmt.Errorf("%d bytes that this version does not know, limit %d", len(c.b), MaxText)
		case len(c.b) > 0:
			h.Rest = append([]byte(nil), c.take(len(c.b), "rest")...)
		case h.CommandKey == [ed25519.PublicKeySize]byte{}:
			c.err = errors.New("command key is zero")
		}
	}
	if err := c.done("hello"); err != nil {
		return Hello{}, err
	}
	return h, nil
}

// Ident is the agent's answer to a Hello.
type Ident struct {
	Version      uint8
	AgentVersion string
	BootID       [16]byte
	Key          [ed25519.PublicKeySize]byte
	Session      uint64
	Epoch        [16]byte
	Nonce        [32]byte
	Frame        uint64 // newest frame made, 0: none
	FrameHash    record.Hash
	AckedFrame   uint64 // newest frame known to be sealed, 0: none
	AckedIndex   uint64
	AckedHash    record.Hash
	Hooks        []byte // a record.Hooks payload
	Signature    [ed25519.SignatureSize]byte
}

func (i *Ident) appendUnsigned(b []byte) []byte {
	b = append(b, i.Version)
	b = appendText(b, i.AgentVersion)
	b = append(b, i.BootID[:]...)
	b = append(b, i.Key[:]...)
	b = binary.BigEndian.AppendUint64(b, i.Session)
	b = append(b, i.Epoch[:]...)
	b = append(b, i.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, i.Frame)
	b = append(b, i.FrameHash[:]...)
	b = binary.BigEndian.AppendUint64(b, i.AckedFrame)
	b = binary.BigEndian.AppendUint64(b, i.AckedIndex)
	b = append(b, i.AckedHash[:]...)
	return appendBytes32(b, i.Hooks)
}

// Sign completes i over the Hello body it answers and returns its own body.
func (i *Ident) Sign(key ed25519.PrivateKey, hello []byte) []byte {
	b := i.appendUnsigned(nil)
	t := Transcript(hello, b)
	i.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(key, t[:]))
	return append(b, i.Signature[:]...)
}

// Transcript is what both sides of a handshake have seen.
func Transcript(hello, unsignedIdent []byte) record.Hash {
	h := sha256.Sum256(hello)
	d := sha256.New()
	d.Write([]byte("provost/handshake/v1\x00"))
	d.Write(h[:])
	d.Write(unsignedIdent)
	return record.Hash(d.Sum(nil))
}

// ParseIdent decodes an Ident body and verifies its signature over the Hello
// body that was sent. It returns the transcript hash. The key is whatever the
// agent claims: that it may speak for the domain is decided elsewhere
// (invariant I3).
func ParseIdent(body, hello []byte) (Ident, record.Hash, error) {
	c := cursor{b: body}
	var i Ident
	i.Version = c.u8("version")
	i.AgentVersion = c.text("agent version")
	c.fixed(i.BootID[:], "boot id")
	c.fixed(i.Key[:], "key")
	i.Session = c.u64("session")
	c.fixed(i.Epoch[:], "epoch")
	c.fixed(i.Nonce[:], "nonce")
	i.Frame = c.u64("frame")
	c.fixed(i.FrameHash[:], "frame hash")
	i.AckedFrame = c.u64("acked frame")
	i.AckedIndex = c.u64("acked index")
	c.fixed(i.AckedHash[:], "acked leaf hash")
	i.Hooks = append([]byte(nil), c.bytes32(MaxHooks, "hooks")...)
	c.fixed(i.Signature[:], "signature")
	if err := c.done("ident"); err != nil {
		return Ident{}, record.Hash{}, err
	}
	t := Transcript(hello, body[:len(body)-ed25519.SignatureSize])
	if !ed25519.Verify(i.Key[:], t[:], i.Signature[:]) {
		return Ident{}, record.Hash{}, fmt.Errorf("verify ident: signature does not match: %w", record.ErrReject)
	}
	return i, t, nil
}

// Welcome ends the handshake.
type Welcome struct {
	Refused        bool
	Reason         string
	HeartbeatMilli uint32
	WindowFrames   uint32
	WindowBytes    uint32
}

// AppendBinary appends the body of w.
func (w *Welcome) AppendBinary(b []byte) []byte {
	b = append(b, status(w.Refused))
	b = appendText(b, w.Reason)
	b = binary.BigEndian.AppendUint32(b, w.HeartbeatMilli)
	b = binary.BigEndian.AppendUint32(b, w.WindowFrames)
	return binary.BigEndian.AppendUint32(b, w.WindowBytes)
}

// ParseWelcome decodes a Welcome body.
func ParseWelcome(body []byte) (Welcome, error) {
	c := cursor{b: body}
	var w Welcome
	w.Refused = c.status("status")
	w.Reason = c.text("reason")
	w.HeartbeatMilli = c.u32("heartbeat interval")
	w.WindowFrames = c.u32("window frames")
	w.WindowBytes = c.u32("window bytes")
	if err := c.done("welcome"); err != nil {
		return Welcome{}, err
	}
	return w, nil
}

func status(refused bool) byte {
	if refused {
		return 1
	}
	return 0
}

func (c *cursor) status(what string) bool {
	v := c.u8(what)
	if c.err == nil && v > 1 {
		c.err = fmt.Errorf("%s is %d, want 0 or 1", what, v)
	}
	return v == 1
}
