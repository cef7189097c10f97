package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// session serves the channel of one domain until its context ends. Fields
// without a comment are owned by the serve goroutine.
type session struct {
	cfg    *Config
	log    *slog.Logger
	dom    atomic.Pointer[Domain] // replaced by Sessions.Set
	rehi   chan struct{}          // cap 1: the epoch changed, say Hello again
	ended  chan struct{}          // closed when serve has returned
	alive  aliveness
	orders orders
	owners *owners       // of all sessions
	duty   Duty          // never changed
	made   time.Time     // never changed; times of the guest's clock are held against it
	pauses atomic.Uint64 // times the domain was paused or resumed
	// wentBack is the epoch in which the agent was found behind its own frames.
	wentBack atomic.Pointer[[16]byte]

	prog    progress
	covered *coverage // what the agent said last of its hooks; nil: nothing
	clock   guestClock
	recent  map[uint64]record.Hash // newest frames of the session, by number
	last    *chain.Pending         // the newest batch
	// What the guest may cost (invariant I8).
	records, bytes, greetings *rate.Limiter
	status                    atomic.Pointer[Status]
	held                      atomic.Bool // nothing is read: policies have not come so far
}

// errAgain ends a connection without blame: the peer went away, or the domain
// has a new epoch.
var errAgain = errors.New("connect again")

// serve keeps a connection to the channel. It returns only when ctx ends or
// the ledger fails.
func (s *session) serve(ctx context.Context) error {
	pause := s.cfg.RetryMin
	for ctx.Err() == nil {
		began := s.cfg.Now()
		// A connection may have ended on frames that were not sealed: only the
		// ledger knows how far the books go.
		err := s.reload()
		if err == nil {
			err = s.connection(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, record.ErrFatal):
			return fmt.Errorf("serve channel of %s: %w", s.dom.Load().Name, err)
		case errors.Is(err, record.ErrReject):
			s.cfg.Stats.Misbehaved.Add(1)
			if serr := s.sealUnsealed(ctx, err); serr != nil && ctx.Err() == nil {
				return fmt.Errorf("serve channel of %s: %w", s.dom.Load().Name, serr)
			}
			s.log.WarnContext(ctx, "channel closed on a protocol violation", "error", err, "retry_in", pause)
		default:
			s.log.DebugContext(ctx, "channel closed", "error", err)
			pause = s.cfg.RetryMin
		}
		s.note("disconnected")
		if s.cfg.Now().Sub(began) > s.cfg.RetryMax {
			pause = s.cfg.RetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if errors.Is(err, record.ErrReject) {
			pause = min(2*pause, s.cfg.RetryMax)
		}
	}
	return nil
}

// reload reads the books of the domain's agent.
func (s *session) reload() error {
	d := s.dom.Load()
	b, _, err := s.cfg.Store.Meta(progressKey(d))
	if err != nil {
		return fmt.Errorf("read progress of the agent: %w", err)
	}
	s.recent = map[uint64]record.Hash{}
	if s.prog, err = parseProgress(b); err != nil {
		return err
	}
	s.alive.stop(s.prog.Stopped)
	if s.prog.Session != 0 {
		s.alive.enrolled(s.prog.Epoch)
	}
	return s.loadCoverage(d.UUID)
}

// connection lives as long as one connected socket.
func (s *session) connection(ctx context.Context) error {
	d := s.dom.Load()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.Socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("connect to channel: %w: %w", err, record.ErrRetry)
	}
	defer c.Close()
	if err := verifyPeer(c, d.QEMU); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l := &link{conn: c, out: wire.NewWriter(c), in: wire.NewReader(c), timeout: s.cfg.WriteTimeout}
	s.note("waiting for the agent")
	for {
		err := s.converse(ctx, l)
		if !errors.Is(err, errRehello) {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return err
		}
	}
}

// errRehello ends a conversation on a connection that goes on.
var errRehello = errors.New("say hello again")

// converse is one handshake and what follows it.
func (s *session) converse(ctx context.Context, l *link) error {
	d := s.dom.Load()
	select { // the epoch that is about to be announced is the newest
	case <-s.rehi:
		d = s.dom.Load()
	default:
	}
	// Each handshake seals an enrolment: an agent that asks for one after the
	// other waits.
	if err := s.pay(ctx, s.greetings, 1); err != nil {
		return err
	}
	hello, err := s.handshake(ctx, l, d)
	if err != nil {
		return err
	}
	s.cfg.Stats.Handshakes.Add(1)
	s.orders.set(&talk{link: l, dom: d, session: s.prog.Session, epoch: hello.Epoch, nonce: hello.Nonce})
	defer s.orders.set(nil)
	s.note("connected")

	// pending is bounded by the ack window: an agent that overruns it makes
	// the reader wait, which is the back-pressure it asked for.
	pending := make(chan *inflight, wire.WindowFrames)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answered error
	var acks, beats sync.WaitGroup
	acks.Go(func() { answered = s.acknowledge(ctx, l, pending) })
	number := s.prog.Session // s.prog belongs to the reader from here on
	beats.Go(func() { cancel2(cancel, l, s.heartbeats(ctx, l, number)) })
	err = s.read(ctx, l, d, pending)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the reader only noticed that it was woken
	}
	cancel(err)
	close(pending)
	acks.Wait()
	beats.Wait()
	_ = l.conn.SetReadDeadline(time.Time{})
	if answered != nil {
		return answered
	}
	return err
}

// cancel2 ends the conversation when one of its goroutines failed; a deadline
// in the past wakes the reader.
func cancel2(cancel context.CancelCauseFunc, l *link, err error) {
	if err != nil {
		cancel(err)
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// inflight is a frame on its way to the disk, or an answer that waits its turn
// behind one.
type inflight struct {
	pending *chain.Pending
	ack     wire.Ack
	stale   bool // refused because memory was taken back, which is no offence
}

// acknowledge answers frames in order, each after it is durable (invariant I7).
// It returns when pending is closed, and only after the ledger has decided on
// every frame: the session's books are right then, or it says that they are not.
func (s *session) acknowledge(ctx context.Context, l *link, pending <-chan *inflight) error {
	var failed error
	for p := range pending {
		if err := p.wait(ctx); err != nil {
			failed = errors.Join(failed, err)
		}
		if failed != nil || ctx.Err() != nil {
			continue
		}
		if err := l.write(wire.TypeAck, p.ack.AppendBinary(nil)); err != nil {
			failed = fmt.Errorf("acknowledge frame %d: %w: %w", p.ack.Frame, err, errAgain)
			_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader, which closes pending
			continue
		}
		s.cfg.Stats.Acks.Add(1)
	}
	return failed
}

// wait blocks until the ledger has decided, also when the connection is gone.
func (p *inflight) wait(ctx context.Context) error {
	if p.pending == nil {
		return nil
	}
	sealed, err := p.pending.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("seal frame %d: %w", p.ack.Frame, err)
	}
	p.ack.Index, p.ack.Hash = sealed.First+uint64(sealed.Count)-1, sealed.LastHash
	return nil
}

// heartbeats tells the agent that the host is there, with a nonce which the
// agent's own heartbeat must repeat.
func (s *session) heartbeats(ctx context.Context, l *link, number uint64) error {
	tick := time.NewTicker(s.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.rehi:
			return errRehello
		case <-tick.C:
		}
		if s.dom.Load().Paused {
			continue // nobody would read it
		}
		h := wire.Heartbeat{Nonce: s.alive.challenge(), Session: number, Time: uint64(s.cfg.Now().UnixNano())}
		if err := l.write(wire.TypeHeartbeat, h.AppendBinary(nil)); err != nil {
			return fmt.Errorf("send heartbeat: %w: %w", err, errAgain)
		}
	}
}

// envelopeCost is what reading any message costs of a domain's quota, in bytes,
// besides its body.
const envelopeCost = 64

// read takes the agent's messages until the connection or the agent fails.
func (s *session) read(ctx context.Context, l *link, d *Domain, pending chan<- *inflight) error {
	refusals, stale := 0, 0
	for {
		e, err := l.in.Read()
		if errors.Is(err, wire.ErrGarbage) {
			// What was lost is sent again after the next handshake.
			s.cfg.Stats.Garbage.Add(1)
			if e.Body == nil {
				return errRehello
			}
		} else if err != nil {
			return readError(ctx, err)
		}
		if err := s.pay(ctx, s.bytes, len(e.Body)+envelopeCost); err != nil {
			return err
		}
		switch e.Type {
		case wire.TypeFrame:
			if err := s.room(ctx, d); err != nil {
				return err
			}
			// The frame is still on its way to the disk when the next message
			// is read into the same buffer: it needs bytes of its own.
			in, err := s.frame(ctx, d, bytes.Clone(e.Body))
			if err != nil {
				return err
			}
			select {
			case pending <- in:
			case <-ctx.Done():
				return errors.Join(context.Cause(ctx), in.wait(ctx))
			}
			switch {
			case in.stale: // an honest agent has no more of them than one window
				stale++
			case in.ack.Refused:
				refusals++
			}
			if refusals > s.cfg.MaxRefusals || stale > wire.WindowFrames {
				return fmt.Errorf("read channel: %d frames refused, %d of an earlier epoch: %w", refusals, stale, record.ErrReject)
			}
		case wire.TypeHeartbeat:
			h, err := wire.ParseHeartbeat(e.Body)
			if err != nil {
				return err
			}
			if h.Session != s.prog.Session {
				return errRehello // another agent answers: it was started anew
			}
			if s.alive.answered(h.Nonce, s.cfg.Now()) {
				if err := s.checkClock(ctx, d, h.Time); err != nil {
					return err
				}
			}
		case wire.TypeIdent:
			// The agent was started again without the port telling us.
			return errRehello
		case wire.TypeResult:
			if err := s.result(ctx, d, bytes.Clone(e.Body)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("read channel: %s from a guest: %w", e.Type, record.ErrReject)
		}
	}
}

func readError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read channel: QEMU closed it: %w", errAgain)
	}
	return fmt.Errorf("read channel: %w: %w", err, errAgain)
}

// link is a connected channel. Writes are serialised; one goroutine reads.
type link struct {
	conn    *net.UnixConn
	in      *wire.Reader
	timeout time.Duration

	mu  sync.Mutex // guards out
	out *wire.Writer
}

// write sends one message, or fails when the guest has not made room in time:
// a guest that does not read costs a bounded wait, never a goroutine.
func (l *link) write(t wire.Type, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return err
	}
	return l.out.Write(t, body)
}
