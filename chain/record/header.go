package record

import (
	"encoding/binary"
	"fmt"
)

const (
	// HeaderSize is the length of an encoded Header in bytes.
	HeaderSize = 40
	// NoLane is the lane of records that no kernel ring delivered.
	NoLane = 0xffffffff

	headerVersion = 1
)

// Header is what an author says of a record besides its payload. It is copied
// verbatim into the leaf. See the package comment for its layout.
type Header struct {
	Class        Class
	Lane         uint32
	Session      uint64
	Sequence     uint64
	LaneSequence uint64
	Time         uint64 // nanoseconds on the author's clock
}

// AppendBinary appends the 40-byte encoding of h to b.
func (h Header) AppendBinary(b []byte) []byte {
	b = append(b, headerVersion, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Class))
	b = binary.BigEndian.AppendUint32(b, h.Lane)
	b = binary.BigEndian.AppendUint64(b, h.Session)
	b = binary.BigEndian.AppendUint64(b, h.Sequence)
	b = binary.BigEndian.AppendUint64(b, h.LaneSequence)
	return binary.BigEndian.AppendUint64(b, h.Time)
}

// ParseHeader decodes exactly HeaderSize bytes. An error wraps ErrReject and
// comes with a zero Header.
func ParseHeader(b []byte) (Header, error) {
	if len(b) != HeaderSize {
		return Header{}, fmt.Errorf("parse record header: %d bytes, want %d: %w", len(b), HeaderSize, ErrReject)
	}
	if b[0] != headerVersion {
		return Header{}, fmt.Errorf("parse record header: version %d, want %d: %w", b[0], headerVersion, ErrReject)
	}
	if b[1] != 0 {
		return Header{}, fmt.Errorf("parse record header: reserved byte is %#x, want 0: %w", b[1], ErrReject)
	}
	return Header{
		Class:        Class(binary.BigEndian.Uint16(b[2:])),
		Lane:         binary.BigEndian.Uint32(b[4:]),
		Session:      binary.BigEndian.Uint64(b[8:]),
		Sequence:     binary.BigEndian.Uint64(b[16:]),
		LaneSequence: binary.BigEndian.Uint64(b[24:]),
		Time:         binary.BigEndian.Uint64(b[32:]),
	}, nil
}
