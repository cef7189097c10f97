// Package agenttest is the host's end of an agent's channel for tests: real
// protocol, real verification, no ledger. It promises that Books holds only
// what was signed, in order and once, and that every hole is found.
package agenttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// Lane balances one lane of a session.
type Lane struct{ Counted, Arrived, Dropped uint64 }

// Books is what a host has sealed of one domain. It outlives connections.
type Books struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced on every change
	Domain     [16]byte
	Epoch      [16]byte
	session    uint64
	frame      uint64
	hash       record.Hash
	sequence   uint64
	index      uint64
	lanes      map[uint32]Lane
	records    []wire.Opened
	idents     []wire.Ident
	duplicates int
}

// NewBooks returns the empty books of a domain.
func NewBooks() *Books {
	b := &Books{changed: make(chan struct{}), lanes: map[uint32]Lane{}}
	_, _ = rand.Read(b.Domain[:])
	_, _ = rand.Read(b.Epoch[:])
	return b
}

// Host says how a connection behaves.
type Host struct {
	Books *Books
	// Answer decides about a frame that has been verified: seal and
	// acknowledge it, refuse it with a reason, or leave it without an answer.
	// Nil seals.
	Answer func(s *wire.Statement) (seal bool, refuse string)
	// Welcome is what follows the handshake. Zero: the protocol's defaults.
	Welcome wire.Welcome
	// OnRecord is called for every record that is sealed.
	OnRecord func(wire.Opened)
	// Beat is the interval of heartbeats, zero for none.
	Beat time.Duration
	// Beaten is called for every heartbeat of the agent.
	Beaten func(wire.Heartbeat)
	// Late acknowledges every frame as it comes and verifies none before
	// Settle: where the agent is timed on the same processors, a host's work
	// must not be counted as the agent's.
	Late bool
	// Incarnation is the domain's, as the Hello names it.
	Incarnation uint64
	// CommandKey is what the Hello names as the key of commands.
	CommandKey [32]byte
	// Commands are bodies to send, made for the conversation that is under way
	// when they are. A heartbeat with the time of Clock goes before each.
	Commands <-chan func(hello *wire.Hello) []byte
	// Clock is the host's wall time in nanoseconds. Nil: heartbeats tell none.
	Clock func() uint64
	// Answered is called for every result of the agent.
	Answered func(wire.Result)

	mu   sync.Mutex // guards all below
	late [][]byte
	id   wire.Ident // signs what is late
}

// Serve speaks on one connection until it ends or ctx does. Every breach of
// the protocol is an error.
func (h *Host) Serve(ctx context.Context, c io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	r := wire.NewReader(c)
	w := &writer{w: wire.NewWriter(c)}
	for {
		err := h.converse(ctx, r, w)
		if !errors.Is(err, errRestarted) {
			return err
		}
	}
}

// errRestarted says that another agent has opened the port.
var errRestarted = errors.New("agent was started anew")

// converse is one handshake and what follows.
func (h *Host) converse(ctx context.Context, r *wire.Reader, w *writer) error {
	id, hello, err := h.handshake(r, w)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if h.Beat > 0 {
		wg.Go(func() { h.beat(ctx, w, id.Session) })
	}
	h.mu.Lock()
	h.id = id
	h.mu.Unlock()
	if h.Commands != nil {
		wg.Go(func() { h.command(ctx, w, id.Session, &hello) })
	}
	for {
		e, err := r.Read()
		if errors.Is(err, wire.ErrGarbage) && e.Type == wire.TypeHeartbeat {
			err = nil // an agent that was started anew counts anew
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		switch e.Type {
		case wire.TypeFrame:
			if err := h.frame(e.Body, &id, w); err != nil {
				return err
			}
		case wire.TypeHeartbeat:
			b, err := wire.ParseHeartbeat(e.Body)
			if err != nil {
				return err
			}
			if b.Session != id.Session {
				return errRestarted
			}
			if h.Beaten != nil {
				h.Beaten(b)
			}
		case wire.TypeResult:
			m, err := wire.ParseResult(e.Body)
			if err != nil {
				return err
			}
			if h.Answered != nil {
				h.Answered(m)
			}
		case wire.TypeIdent:
			return errRestarted // or a Hello was repeated that had arrived after all
		default:
			return fmt.Errorf("agent sent a %s", e.Type)
		}
	}
}

type writer struct {
	mu sync.Mutex
	w  *wire.Writer
}

func (w *writer) write(t wire.Type, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(t, b)
}

func (h *Host) handshake(r *wire.Reader, w *writer) (wire.Ident, wire.Hello, error) {
	b := h.Books
	b.mu.Lock()
	hello := wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, Origin: "test/vm/0/1", Domain: b.Domain, Epoch: b.Epoch, Incarnation: h.Incarnation,
		LastSession: b.session, LastFrame: b.frame, LastFrameHash: b.hash, CommandKey: h.CommandKey}
	b.mu.Unlock()
	_, _ = rand.Read(hello.Nonce[:])
	body := hello.AppendBinary(nil)
	if err := w.write(wire.TypeHello, body); err != nil {
		return wire.Ident{}, hello, err
	}
	answered := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(answered)
	wg.Go(func() { repeat(w, body, answered) })
	for {
		e, err := r.Read()
		if errors.Is(err, wire.ErrGarbage) && e.Type != wire.TypeIdent {
			continue // left of the connection before
		}
		if err != nil && e.Type != wire.TypeIdent {
			return wire.Ident{}, hello, fmt.Errorf("await ident: %w", err)
		}
		if e.Type != wire.TypeIdent {
			continue
		}
		if !bytes.Contains(e.Body, hello.Nonce[:]) {
			continue // it answers another Hello
		}
		id, _, err := wire.ParseIdent(e.Body, body)
		if err != nil {
			return id, hello, err
		}
		if id.Nonce != hello.Nonce || id.Epoch != hello.Epoch {
			return id, hello, errors.New("ident answers another hello")
		}
		b.enter(func() {
			b.idents = append(b.idents, id)
			if id.Session != b.session {
				b.session, b.frame, b.hash, b.sequence = id.Session, 0, record.Hash{}, 0
				b.lanes = map[uint32]Lane{}
			}
		})
		return id, hello, w.write(wire.TypeWelcome, h.Welcome.AppendBinary(nil))
	}
}

// helloRepeat is how long a Hello may stay without an answer: one that came
// between two agents, or two openings of the port, is nobody's.
const helloRepeat = 5 * time.Second

// repeat says Hello again until it is answered or the connection ends.
func repeat(w *writer, hello []byte, answered <-chan struct{}) {
	t := time.NewTicker(helloRepeat)
	defer t.Stop()
	for {
		select {
		case <-answered:
			return
		case <-t.C:
			if w.write(wire.TypeHello, hello) != nil {
				return // whoever reads is told too
			}
		}
	}
}

func (h *Host) beat(ctx context.Context, w *writer, session uint64) {
	t := time.NewTicker(h.Beat)
	defer t.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if w.write(wire.TypeHeartbeat, h.heartbeat(n, session)) != nil {
			return
		}
	}
}

func (h *Host) heartbeat(nonce, session uint64) []byte {
	b := wire.Heartbeat{Nonce: nonce, Session: session}
	if h.Clock != nil {
		b.Time = h.Clock()
	}
	return b.AppendBinary(nil)
}

func (h *Host) command(ctx context.Context, w *writer, session uint64, hello *wire.Hello) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-h.Commands:
			if w.write(wire.TypeHeartbeat, h.heartbeat(1, session)) != nil || w.write(wire.TypeCommand, m(hello)) != nil {
				return
			}
		}
	}
}

// frame verifies, books and answers one frame.
func (h *Host) frame(body []byte, id *wire.Ident, w *writer) error {
	body = slices.Clone(body)
	f, s, err := wire.ParseFrame(body)
	if err != nil {
		return err
	}
	if h.Late {
		h.mu.Lock()
		h.late = append(h.late, body)
		h.mu.Unlock()
		ack := wire.Ack{Session: s.Session, Frame: s.Frame}
		return w.write(wire.TypeAck, ack.AppendBinary(nil))
	}
	opened, err := f.Open(&s, id.Key[:])
	if err != nil {
		return err
	}
	ack := wire.Ack{Session: s.Session, Frame: s.Frame}
	seal := true
	if h.Answer != nil {
		seal, ack.Reason = h.Answer(&s)
		ack.Refused = ack.Reason != ""
	}
	if !seal && !ack.Refused {
		return nil
	}
	fresh, err := h.Books.book(&s, f.Statement, opened, &ack)
	if err != nil {
		return err
	}
	if fresh && h.OnRecord != nil && !ack.Refused {
		for _, o := range opened {
			h.OnRecord(o)
		}
	}
	return w.write(wire.TypeAck, ack.AppendBinary(nil))
}

// Settle verifies and books what came since the last time (see Late), without
// keeping it, and gives it to OnRecord.
func (h *Host) Settle() error {
	h.mu.Lock()
	late, id := h.late, h.id
	h.late = nil
	h.mu.Unlock()
	for _, body := range late {
		f, s, err := wire.ParseFrame(body)
		if err != nil {
			return err
		}
		opened, err := f.Open(&s, id.Key[:])
		if err != nil {
			return err
		}
		if _, err := h.Books.book(&s, f.Statement, opened, &wire.Ack{}); err != nil {
			return err
		}
		h.Books.enter(func() { h.Books.records = nil })
		for _, o := range opened {
			if h.OnRecord != nil {
				h.OnRecord(o)
			}
		}
	}
	return nil
}

// book seals a frame, or skips one that is sealed already.
func (b *Books) book(s *wire.Statement, statement []byte, opened []wire.Opened, ack *wire.Ack) (fresh bool, err error) {
	b.enter(func() {
		switch {
		case s.Domain != b.Domain:
			err = fmt.Errorf("frame %d names another domain", s.Frame)
		case s.Session != b.session:
			err = fmt.Errorf("frame %d names session %x, want %x", s.Frame, s.Session, b.session)
		case s.Frame <= b.frame:
			b.duplicates++
		case s.Frame != b.frame+1 || s.Prev != b.hash:
			err = fmt.Errorf("frame %d does not follow frame %d", s.Frame, b.frame)
		case s.First != b.sequence:
			err = fmt.Errorf("frame %d begins at sequence %d, want %d", s.Frame, s.First, b.sequence)
		default:
			fresh = true
			b.frame, b.hash, b.sequence = s.Frame, wire.FrameHash(statement), s.First+uint64(s.Count)
			if !ack.Refused {
				b.records = append(b.records, opened...)
			}
			err = b.balance(s, opened)
			b.index++
			ack.Index, ack.Hash = b.index, b.hash
		}
	})
	return fresh, err
}

// balance enters a frame into the lanes: never may more be counted than has
// arrived or was owned up to (invariant I4).
func (b *Books) balance(s *wire.Statement, opened []wire.Opened) error {
	for _, l := range s.Lanes {
		x := b.lanes[l.Number]
		if l.First != x.Counted {
			return fmt.Errorf("frame %d: lane %x begins at %d, the statement before ended at %d", s.Frame, l.Number, l.First, x.Counted)
		}
		x.Counted = l.Next
		for _, d := range l.Drops {
			x.Dropped += d.Count
		}
		b.lanes[l.Number] = x
	}
	for _, o := range opened {
		if n := o.Header.Lane; n != record.NoLane {
			x, ok := b.lanes[n]
			if !ok {
				return fmt.Errorf("frame %d: no statement names lane %x of its records", s.Frame, n)
			}
			x.Arrived++
			b.lanes[n] = x
		}
	}
	for n, x := range b.lanes {
		if x.Counted > x.Arrived+x.Dropped {
			return fmt.Errorf("frame %d: lane %x counts %d, but only %d arrived and %d are owned up to", s.Frame, n, x.Counted, x.Arrived, x.Dropped)
		}
	}
	return nil
}

func (b *Books) enter(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// View is a copy of the books.
type View struct {
	Session, Frame, Sequence uint64
	Lanes                    map[uint32]Lane
	Records                  []wire.Opened
	Idents                   []wire.Ident
	Duplicates               int
}

// View returns what is sealed now.
func (b *Books) View() View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return View{b.session, b.frame, b.sequence, maps.Clone(b.lanes), slices.Clone(b.records), slices.Clone(b.idents), b.duplicates}
}

// Until waits until the books satisfy f.
func (b *Books) Until(ctx context.Context, f func(View) bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if f(b.View()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
