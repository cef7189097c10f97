package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

var statementMagic = [4]byte{'P', 'V', 'F', '1'}

var frameContext = []byte("provost/frame/v1\x00")

// Statement is what an agent signs about a frame. It is sealed whole and
// never erased, so that author and loss stay provable. See the package
// comment for its bytes.
type Statement struct {
	Domain  [16]byte
	Epoch   [16]byte
	Session uint64
	Frame   uint64 // from 1
	Prev    record.Hash
	Count   uint32
	First   uint64 // sequence of the first record
	Root    record.Hash
	Time    uint64 // guest CLOCK_BOOTTIME, nanoseconds
	Lanes   []Lane // ascending by number
}

// Lane says how far one kernel lane had counted when the frame was made.
type Lane struct {
	Number uint32
	First  uint64 // lane sequence this statement starts at
	Next   uint64 // lane sequence that the next statement will start at
	Drops  []Drop // since the statement before
}

// Drop is a number of records that were made and not kept.
type Drop struct {
	Class  record.Class
	Reason record.LossReason
	Count  uint64
}

// AppendBinary appends the bytes that are signed.
func (s *Statement) AppendBinary(b []byte) []byte {
	b = append(b, statementMagic[:]...)
	b = append(b, s.Domain[:]...)
	b = append(b, s.Epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Session)
	b = binary.BigEndian.AppendUint64(b, s.Frame)
	b = append(b, s.Prev[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Count)
	b = binary.BigEndian.AppendUint64(b, s.First)
	b = append(b, s.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Time)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Lanes)))
	for _, l := range s.Lanes {
		b = binary.BigEndian.AppendUint32(b, l.Number)
		b = binary.BigEndian.AppendUint64(b, l.First)
		b = binary.BigEndian.AppendUint64(b, l.Next)
		b = binary.BigEndian.AppendUint16(b, uint16(len(l.Drops)))
		for _, d := range l.Drops {
			b = binary.BigEndian.AppendUint16(b, uint16(d.Class))
			b = append(b, byte(d.Reason))
			b = binary.BigEndian.AppendUint64(b, d.Count)
		}
	}
	return b
}

// ParseStatement decodes statement bytes.
func ParseStatement(b []byte) (Statement, error) {
	c := cursor{b: b}
	var s Statement
	var magic [4]byte
	c.fixed(magic[:], "magic")
	if c.err == nil && magic != statementMagic {
		c.err = fmt.Errorf("magic %q, want %q", magic[:], statementMagic[:])
	}
	c.fixed(s.Domain[:], "domain UUID")
	c.fixed(s.Epoch[:], "epoch")
	s.Session = c.u64("session")
	s.Frame = c.u64("frame")
	c.fixed(s.Prev[:], "previous frame")
	s.Count = c.u32("count")
	s.First = c.u64("first sequence")
	c.fixed(s.Root[:], "root")
	s.Time = c.u64("time")
	s.Lanes = c.lanes()
	if err := c.done("frame statement"); err != nil {
		return Statement{}, err
	}
	return s, nil
}

func (c *cursor) lanes() []Lane {
	n := int(c.u16("lanes"))
	if c.err == nil && n > MaxLanes {
		c.err = fmt.Errorf("%d lanes, limit %d", n, MaxLanes)
	}
	var lanes []Lane
	for i := 0; i < n && c.err == nil; i++ {
		l := Lane{Number: c.u32("lane"), First: c.u64("lane's first sequence"), Next: c.u64("lane's next sequence")}
		if c.err == nil && (l.Next < l.First || i > 0 && l.Number <= lanes[i-1].Number) {
			c.err = fmt.Errorf("lane %d out of order, or counting from %d to %d", l.Number, l.First, l.Next)
		}
		drops := int(c.u16("drops"))
		if c.err == nil && drops > MaxDrops {
			c.err = fmt.Errorf("%d drop counts, limit %d", drops, MaxDrops)
		}
		for j := 0; j < drops && c.err == nil; j++ {
			l.Drops = append(l.Drops, Drop{
				Class:  record.Class(c.u16("drop class")),
				Reason: record.LossReason(c.u8("drop reason")),
				Count:  c.u64("drop count"),
			})
		}
		lanes = append(lanes, l)
	}
	return lanes
}

// FrameHash names a frame in the chain of frames.
func FrameHash(statement []byte) record.Hash { return sha256.Sum256(statement) }

// SignStatement signs statement bytes.
func SignStatement(key ed25519.PrivateKey, statement []byte) [ed25519.SignatureSize]byte {
	return [ed25519.SignatureSize]byte(ed25519.Sign(key, slices.Concat(frameContext, statement)))
}

// VerifyStatement checks the signature of statement bytes.
func VerifyStatement(key, statement, signature []byte) error {
	if len(key) != ed25519.PublicKeySize || len(signature) != ed25519.SignatureSize ||
		!ed25519.Verify(key, slices.Concat(frameContext, statement), signature) {
		return fmt.Errorf("verify frame statement: signature does not match: %w", record.ErrReject)
	}
	return nil
}

// Record is one record of a frame, in the bytes its author made.
type Record struct {
	Header  record.Header
	Payload []byte
}

// Frame is a batch of records with the signed statement over them.
type Frame struct {
	Statement []byte
	Signature [ed25519.SignatureSize]byte
	Seed      record.Seed
	Records   []Record
}

// Size returns the length of f's body in bytes.
func (f *Frame) Size() int {
	n := 4 + len(f.Statement) + len(f.Signature) + len(f.Seed)
	for i := range f.Records {
		n += record.HeaderSize + 4 + len(f.Records[i].Payload)
	}
	return n
}

// AppendBinary appends the body of f.
func (f *Frame) AppendBinary(b []byte) []byte {
	b = appendBytes32(b, f.Statement)
	b = append(b, f.Signature[:]...)
	b = append(b, f.Seed[:]...)
	for i := range f.Records {
		b = f.Records[i].Header.AppendBinary(b)
		b = appendBytes32(b, f.Records[i].Payload)
	}
	return b
}

// ParseFrame decodes a Frame body and its statement. Statement and payloads
// alias body. Nothing is verified yet: see Opened.
func ParseFrame(body []byte) (Frame, Statement, error) {
	c := cursor{b: body}
	var f Frame
	f.Statement = c.bytes32(MaxBody, "statement")
	c.fixed(f.Signature[:], "signature")
	c.fixed(f.Seed[:], "seed")
	if c.err != nil {
		return Frame{}, Statement{}, c.done("frame")
	}
	s, err := ParseStatement(f.Statement)
	if err != nil {
		return Frame{}, Statement{}, fmt.Errorf("parse frame: %w", err)
	}
	// The count must fit the bytes before anything is allocated for it.
	if s.Count > MaxRecords || int(s.Count) > len(c.b)/(record.HeaderSize+4) {
		c.err = fmt.Errorf("%d records in %d bytes, limit %d", s.Count, len(c.b), MaxRecords)
		return Frame{}, Statement{}, c.done("frame")
	}
	f.Records = make([]Record, s.Count)
	for i := range f.Records {
		raw := c.take(record.HeaderSize, "record header")
		payload := c.bytes32(record.MaxPayload, "payload")
		if c.err != nil {
			break
		}
		if f.Records[i].Header, err = record.ParseHeader(raw); err != nil {
			return Frame{}, Statement{}, fmt.Errorf("parse frame: record %d: %w", i, err)
		}
		f.Records[i].Payload = payload
	}
	if err := c.done("frame"); err != nil {
		return Frame{}, Statement{}, err
	}
	return f, s, nil
}

// Opened is a record of a frame whose commitment has been recomputed.
type Opened struct {
	Header     record.Header
	Payload    []byte
	Salt       record.Salt
	Commitment record.Hash
}

// Open verifies the frame against its statement and the agent's key: the
// signature, the record hashes under the root, the session and the sequence of
// every record, and that a guest may write its class. It returns the records
// with salts and commitments. An error wraps record.ErrReject.
func (f *Frame) Open(s *Statement, key []byte) ([]Opened, error) {
	if err := VerifyStatement(key, f.Statement, f.Signature[:]); err != nil {
		return nil, err
	}
	opened := make([]Opened, len(f.Records))
	hashes := make([]record.Hash, len(f.Records))
	for i := range f.Records {
		r := &f.Records[i]
		h := r.Header
		if h.Session != s.Session || h.Sequence != s.First+uint64(i) {
			return nil, fmt.Errorf("open frame %d: record %d has session %x and sequence %d, want %x and %d: %w",
				s.Frame, i, h.Session, h.Sequence, s.Session, s.First+uint64(i), record.ErrReject)
		}
		if !h.Class.FromGuest() {
			return nil, fmt.Errorf("open frame %d: record %d has class %s, which no guest may write: %w", s.Frame, i, h.Class, record.ErrReject)
		}
		o := Opened{Header: h, Payload: r.Payload, Salt: f.Seed.Salt(h.Sequence)}
		o.Commitment = record.Commit(&o.Salt, o.Payload)
		hashes[i] = record.RecordHash(h, o.Commitment)
		opened[i] = o
	}
	if root := record.Root(hashes); root != s.Root {
		return nil, fmt.Errorf("open frame %d: record hashes have root %s, the statement says %s: %w", s.Frame, root, s.Root, record.ErrReject)
	}
	return opened, nil
}
