package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Type says what an envelope carries.
type Type uint8

// The types of messages. Part of the format.
const (
	TypeHello     Type = 1
	TypeIdent     Type = 2
	TypeWelcome   Type = 3
	TypeFrame     Type = 4
	TypeAck       Type = 5
	TypeHeartbeat Type = 6
	TypeCommand   Type = 7
	TypeResult    Type = 8
)

var typeNames = [...]string{
	TypeHello: "hello", TypeIdent: "ident", TypeWelcome: "welcome", TypeFrame: "frame",
	TypeAck: "ack", TypeHeartbeat: "heartbeat", TypeCommand: "command", TypeResult: "result",
}

// String returns the type's name.
func (t Type) String() string {
	if t >= TypeHello && t <= TypeResult {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

const envelopeSize = 24

var (
	envelopeMagic = [4]byte{'P', 'V', 'W', '1'}
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// ErrGarbage says that the stream held bytes that are no envelope, or that
// envelopes are missing. The Reader goes on behind them.
var ErrGarbage = errors.New("garbage on the channel")

// Envelope is one message as it came. Body is valid until the next Read.
type Envelope struct {
	Type     Type
	Sequence uint64
	Body     []byte
}

// Reader reads envelopes from a port. It is not safe for concurrent use.
type Reader struct {
	r    *bufio.Reader
	body []byte
	next uint64
	// Skipped counts the bytes that were no part of an envelope.
	Skipped uint64
}

// NewReader returns a Reader with a 64 KiB buffer. Its memory never exceeds
// that and one body.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Buffered reports whether more bytes of the peer are at hand already.
func (r *Reader) Buffered() bool { return r.r.Buffered() > 0 }

// Read returns the next envelope. Besides the errors of the underlying reader
// it returns ErrGarbage, after which it may be called again: it resumes at the
// next byte sequence that looks like an envelope. Where envelopes are missing
// it returns the next whole one together with ErrGarbage.
func (r *Reader) Read() (Envelope, error) {
	var head [envelopeSize]byte
	h, err := r.r.Peek(envelopeSize)
	if err != nil {
		if len(h) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Envelope{}, err
	}
	copy(head[:], h)
	length := binary.BigEndian.Uint32(head[8:])
	if [4]byte(head[:4]) != envelopeMagic || head[5]|head[6]|head[7] != 0 || length > MaxBody ||
		head[4] < byte(TypeHello) || head[4] > byte(TypeResult) {
		return Envelope{}, r.resync(fmt.Errorf("no envelope at %x", head[:12]))
	}
	r.discard(envelopeSize)
	if uint32(cap(r.body)) < length {
		r.body = make([]byte, length)
	}
	r.body = r.body[:length]
	if _, err := io.ReadFull(r.r, r.body); err != nil {
		return Envelope{}, err
	}
	sum := crc32.Update(crc32.Checksum(head[:20], castagnoli), castagnoli, r.body)
	if want := binary.BigEndian.Uint32(head[20:]); sum != want {
		r.Skipped += uint64(envelopeSize) + uint64(length)
		return Envelope{}, fmt.Errorf("%w: checksum %08x, want %08x", ErrGarbage, sum, want)
	}
	e := Envelope{Type: Type(head[4]), Sequence: binary.BigEndian.Uint64(head[12:]), Body: r.body}
	if e.Type == TypeHello || e.Type == TypeIdent {
		// A handshake may start anywhere in a peer's count: the port outlives
		// both a reboot of the guest and a restart of the host.
		r.next = e.Sequence
	}
	if e.Sequence != r.next {
		// The envelope itself is whole, so it is worth no less for what is
		// missing before it; frames carry a chain of their own.
		missing := e.Sequence - r.next
		r.next = e.Sequence + 1
		return e, fmt.Errorf("%w: %d envelopes are missing before a %s", ErrGarbage, missing, e.Type)
	}
	r.next++
	return e, nil
}

// resync drops bytes up to the next magic that is at hand, at least one.
func (r *Reader) resync(cause error) error {
	r.discard(1)
	for r.r.Buffered() > 0 {
		b, err := r.r.Peek(1)
		if err != nil || b[0] == envelopeMagic[0] {
			break
		}
		r.discard(1)
	}
	return fmt.Errorf("%w: %w", ErrGarbage, cause)
}

func (r *Reader) discard(n int) {
	if d, _ := r.r.Discard(n); n < envelopeSize {
		r.Skipped += uint64(d)
	}
}

// Writer writes envelopes to a port, each with one Write. It is not safe for
// concurrent use.
type Writer struct {
	w    io.Writer
	buf  []byte
	next uint64
}

// NewWriter returns a Writer that counts from 0.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one message. A body over MaxBody is refused.
func (w *Writer) Write(t Type, body []byte) error {
	if len(body) > MaxBody {
		return fmt.Errorf("write %s: body of %d bytes, limit %d", t, len(body), MaxBody)
	}
	w.buf = AppendEnvelope(w.buf[:0], t, w.next, body)
	w.next++
	if _, err := w.w.Write(w.buf); err != nil {
		return fmt.Errorf("write %s: %w", t, err)
	}
	return nil
}

// AppendEnvelope appends one envelope to b.
func AppendEnvelope(b []byte, t Type, sequence uint64, body []byte) []byte {
	start := len(b)
	b = append(b, envelopeMagic[:]...)
	b = append(b, byte(t), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint64(b, sequence)
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, body)
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, body...)
}
