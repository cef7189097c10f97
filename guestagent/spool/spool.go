package spool

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrFull says that the spool holds as much as it may. Take makes room.
var ErrFull = errors.New("spool is full")

// ErrDamaged says that a run is not what was put, or cannot be read. It is
// gone; the next one may be whole.
var ErrDamaged = errors.New("spooled run is damaged")

// MinBytes is the smallest Config.Bytes.
const MinBytes = 1 << 20

const (
	maxSegment = 8 << 20
	// segmentsAtLeast is into how many segments the smallest spool is cut, so
	// that room is given back in pieces.
	segmentsAtLeast = 4
)

var additional = []byte("provost/spool/v1\x00")

// Config says where and how much.
type Config struct {
	// Directory holds the segments. It is made, for its owner only, if it is
	// not there. Nobody but the owner may be able to write to it.
	Directory string
	// Bytes bounds what is taken of the disk.
	Bytes int64
	// Rand draws keys and nonces: the kernel's, which knows when the machine
	// was restored or cloned.
	Rand io.Reader
}

// Spool is a queue on a disk.
type Spool struct {
	dir      string
	rand     io.Reader
	segment  int64 // size of one
	limit    int   // how many
	segments []*segment
	runs     []run // oldest first
	number   uint64
	buf      []byte // a sealed run
	open     func(dir string, size int64) (file, error)
}

// file is what a segment needs of an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

type segment struct {
	f     file
	aead  cipher.AEAD // with a key of its own
	used  int64
	holds int // runs that were not taken
}

// run says where a sealed run stands.
type run struct {
	in     *segment
	at     int64
	length int // sealed
	number uint64
	nonce  [nonceBytes]byte
}

const (
	nonceBytes = 12
	tagBytes   = 16
)

// New makes a spool. The disk is not touched before the first Put: it may not
// be there yet.
func New(cfg Config) (*Spool, error) {
	if cfg.Directory == "" || cfg.Bytes < MinBytes || cfg.Rand == nil {
		return nil, fmt.Errorf("make spool: directory %q with %d bytes, want a directory, at least %d, and Rand", cfg.Directory, cfg.Bytes, MinBytes)
	}
	s := &Spool{dir: cfg.Directory, rand: cfg.Rand, segment: min(maxSegment, cfg.Bytes/segmentsAtLeast), open: openSegment}
	s.limit = int(cfg.Bytes / s.segment)
	return s, nil
}

// Len returns how many runs Take has yet to give.
func (s *Spool) Len() int { return len(s.runs) }

// Put appends a run. On ErrFull, and on any error of the disk, the run is not
// in the spool; what is in it stays as it is.
func (s *Spool) Put(b []byte) error {
	sealed := len(b) + tagBytes
	if int64(sealed) > s.segment {
		return fmt.Errorf("spool run of %d bytes: a segment has %d", len(b), s.segment)
	}
	in, err := s.room(int64(sealed))
	if err != nil {
		return err
	}
	r := run{in: in, at: in.used, length: sealed, number: s.number}
	s.number++
	if _, err := io.ReadFull(s.rand, r.nonce[:]); err != nil {
		s.release(in)
		return fmt.Errorf("spool: draw nonce: %w", err)
	}
	s.buf = in.aead.Seal(s.buf[:0], r.nonce[:], b, r.additional())
	// What a failed write left behind is overwritten by the next.
	if _, err := in.f.WriteAt(s.buf, in.used); err != nil {
		s.release(in)
		return fmt.Errorf("spool: write: %w", err)
	}
	in.used += int64(sealed)
	in.holds++
	s.runs = append(s.runs, r)
	return nil
}

// room returns the segment that the next run goes into.
func (s *Spool) room(n int64) (*segment, error) {
	if len(s.segments) > 0 {
		if last := s.segments[len(s.segments)-1]; last.used+n <= s.segment {
			return last, nil
		}
	}
	if len(s.segments) >= s.limit {
		return nil, ErrFull
	}
	aead, err := newCipher(s.rand)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	f, err := s.open(s.dir, s.segment)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	in := &segment{f: f, aead: aead}
	s.segments = append(s.segments, in)
	return in, nil
}

// Take removes the oldest run and returns it, or says with ErrDamaged that it
// is gone. The spool must not be empty. The bytes are the caller's.
func (s *Spool) Take() ([]byte, error) {
	r := s.runs[0]
	s.runs[0] = run{}
	if s.runs = s.runs[1:]; len(s.runs) == 0 {
		s.runs = nil
	}
	defer func() {
		r.in.holds--
		s.release(r.in)
	}()
	if cap(s.buf) < r.length {
		s.buf = make([]byte, 0, r.length)
	}
	sealed := s.buf[:r.length]
	if _, err := r.in.f.ReadAt(sealed, r.at); err != nil {
		return nil, fmt.Errorf("%w: run %d cannot be read: %w", ErrDamaged, r.number, err)
	}
	b, err := r.in.aead.Open(make([]byte, 0, r.length), r.nonce[:], sealed, r.additional())
	if err != nil {
		return nil, fmt.Errorf("%w: run %d is not what was written", ErrDamaged, r.number)
	}
	return b, nil
}

// release gives back a segment that holds nothing. What is written to a
// segment whose runs were all taken would only keep its space.
func (s *Spool) release(in *segment) {
	if in.holds > 0 {
		return
	}
	for i, x := range s.segments {
		if x == in {
			s.segments = append(s.segments[:i], s.segments[i+1:]...)
			_ = in.f.Close() // nothing in it is needed any more
			return
		}
	}
}

// Close gives back the disk's space. What was not taken is gone.
func (s *Spool) Close() error {
	var errs []error
	for _, in := range s.segments {
		errs = append(errs, in.f.Close())
	}
	s.segments, s.runs = nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// additional returns what binds a run to its place.
func (r *run) additional() []byte {
	ad := append([]byte(nil), additional...)
	ad = binary.BigEndian.AppendUint64(ad, r.number)
	return binary.BigEndian.AppendUint64(ad, uint64(r.length))
}

func newCipher(rand io.Reader) (cipher.AEAD, error) {
	var key [32]byte
	if _, err := io.ReadFull(rand, key[:]); err != nil {
		return nil, fmt.Errorf("draw key: %w", err)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

var _ file = (*os.File)(nil)
