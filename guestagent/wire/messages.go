package wire

import (
	"crypto/ed25519"
	"encoding/binary"

	"github.com/provostd/provost/chain/record"
)

// Ack tells the agent that a frame is durable (invariant I7), or that it will
// never be.
type Ack struct {
	Session uint64
	Frame   uint64
	Index   uint64 // leaf of the frame's statement, or of the refusal
	Hash    record.Hash
	Refused bool
	Reason  string
}

// AppendBinary appends the body of a.
func (a *Ack) AppendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, a.Session)
	b = binary.BigEndian.AppendUint64(b, a.Frame)
	b = binary.BigEndian.AppendUint64(b, a.Index)
	b = append(b, a.Hash[:]...)
	b = append(b, status(a.Refused))
	return appendText(b, a.Reason)
}

// ParseAck decodes an Ack body.
func ParseAck(body []byte) (Ack, error) {
	c := cursor{b: body}
	a := Ack{Session: c.u64("session"), Frame: c.u64("frame"), Index: c.u64("leaf index")}
	c.fixed(a.Hash[:], "leaf hash")
	a.Refused = c.status("status")
	a.Reason = c.text("reason")
	if err := c.done("ack"); err != nil {
		return Ack{}, err
	}
	return a, nil
}

// Heartbeat says that its sender is alive.
type Heartbeat struct {
	Nonce   uint64 // the host's, echoed by the agent
	Session uint64
	Time    uint64 // sender's clock, nanoseconds
	Frame   uint64 // newest frame of the agent
}

// AppendBinary appends the body of h.
func (h *Heartbeat) AppendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Nonce)
	b = binary.BigEndian.AppendUint64(b, h.Session)
	b = binary.BigEndian.AppendUint64(b, h.Time)
	return binary.BigEndian.AppendUint64(b, h.Frame)
}

// ParseHeartbeat decodes a Heartbeat body.
func ParseHeartbeat(body []byte) (Heartbeat, error) {
	c := cursor{b: body}
	h := Heartbeat{Nonce: c.u64("nonce"), Session: c.u64("session"), Time: c.u64("time"), Frame: c.u64("frame")}
	if err := c.done("heartbeat"); err != nil {
		return Heartbeat{}, err
	}
	return h, nil
}

// MaxCommand bounds a command and its result, in bytes.
const MaxCommand = 32 << 10

// Command is a signed host command. The type is reserved: this version's agent
// answers every command with an unsupported Result.
type Command struct {
	ID        [16]byte
	Epoch     [16]byte
	Nonce     [32]byte
	Expiry    uint64
	Body      []byte
	Signature [ed25519.SignatureSize]byte
}

// AppendBinary appends the body of m.
func (m *Command) AppendBinary(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = append(b, m.Epoch[:]...)
	b = append(b, m.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Expiry)
	b = appendBytes32(b, m.Body)
	return append(b, m.Signature[:]...)
}

// ParseCommand decodes a Command body.
func ParseCommand(body []byte) (Command, error) {
	c := cursor{b: body}
	var m Command
	c.fixed(m.ID[:], "id")
	c.fixed(m.Epoch[:], "epoch")
	c.fixed(m.Nonce[:], "nonce")
	m.Expiry = c.u64("expiry")
	m.Body = append([]byte(nil), c.bytes32(MaxCommand, "command")...)
	c.fixed(m.Signature[:], "signature")
	if err := c.done("command"); err != nil {
		return Command{}, err
	}
	return m, nil
}

// ResultUnsupported is the status of a Result for a command that this agent
// does not know.
const ResultUnsupported = 1

// Result answers a Command.
type Result struct {
	ID        [16]byte
	Status    uint8
	Body      []byte
	Signature [ed25519.SignatureSize]byte
}

// AppendBinary appends the body of m.
func (m *Result) AppendBinary(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = append(b, m.Status)
	b = appendBytes32(b, m.Body)
	return append(b, m.Signature[:]...)
}

// ParseResult decodes a Result body.
func ParseResult(body []byte) (Result, error) {
	c := cursor{b: body}
	var m Result
	c.fixed(m.ID[:], "id")
	m.Status = c.u8("status")
	m.Body = append([]byte(nil), c.bytes32(MaxCommand, "result")...)
	c.fixed(m.Signature[:], "signature")
	if err := c.done("result"); err != nil {
		return Result{}, err
	}
	return m, nil
}
