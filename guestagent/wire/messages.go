package wire

import (
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
