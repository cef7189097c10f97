package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// maxStrayBytes bounds what an agent may send before it has said who it is:
// what a former connection left in flight, and no more.
const maxStrayBytes = 2 * wire.WindowBytes

// handshake says Hello until the agent answers, and seals who answered. It
// waits without limit for an agent that is not there: its absence is sealed by
// the watch over its heartbeats.
func (s *session) handshake(ctx context.Context, l *link, d *Domain) (wire.Hello, error) {
	hello := wire.Hello{
		MinVersion: wire.Version, MaxVersion: wire.Version,
		Origin: d.Log.Origin(), Domain: d.UUID, Incarnation: d.Incarnation,
		Epoch: d.Epoch, GenerationID: d.GenerationID,
		LastSession: s.prog.Session, LastFrame: s.prog.Frame, LastFrameHash: s.prog.FrameHash,
	}
	if s.cfg.Commands != nil {
		hello.CommandKey = [ed25519.PublicKeySize]byte(s.cfg.Commands.CommandPublic())
	}
	if _, err := rand.Read(hello.Nonce[:]); err != nil {
		return hello, fmt.Errorf("draw nonce: %w", err)
	}
	body := hello.AppendBinary(nil)
	if err := l.write(wire.TypeHello, body); err != nil {
		return hello, fmt.Errorf("send hello: %w: %w", err, errAgain)
	}
	raw, err := s.awaitIdent(ctx, l, body)
	if err != nil {
		return hello, err
	}
	id, transcript, err := wire.ParseIdent(raw, body)
	if err != nil {
		return hello, s.sealMisbehaviour(ctx, d, record.ClassAgentSignatureInvalid, "handshake: "+err.Error(), raw, err)
	}
	if id.Version != wire.Version || id.Session == 0 || id.Epoch != hello.Epoch || id.Nonce != hello.Nonce {
		err := fmt.Errorf("agent chose version %d and session %x, and names epoch %x and nonce %x: %w", id.Version, id.Session, id.Epoch, id.Nonce, record.ErrReject)
		return hello, s.refuse(ctx, l, d, record.ClassAgentRefused, err.Error(), raw, err)
	}
	if id.Session == s.prog.Session && !bytes.Equal(id.Key[:], s.prog.Key) {
		err := fmt.Errorf("session %x is known with another key: %w", id.Session, record.ErrReject)
		return hello, s.refuse(ctx, l, d, record.ClassAgentKeyChanged, err.Error(), raw, err)
	}
	if s.prog.behind(&id) && id.Epoch == s.prog.Epoch {
		s.cfg.Stats.Rollbacks.Add(1)
		// Refused until the registry has opened another epoch: then it is memory
		// that was taken back, and the agent goes on.
		s.wentBack.Store(&hello.Epoch)
		err := fmt.Errorf("agent is at frame %d, frame %d of this session and epoch is sealed: its memory was copied or restored unseen: %w",
			id.Frame, s.prog.Frame, record.ErrReject)
		return hello, s.refuse(ctx, l, d, record.ClassAgentForked, err.Error(), raw, err)
	}
	if err := s.enroll(ctx, d, &id, transcript, body, raw); err != nil {
		return hello, err
	}
	s.alive.seen(s.cfg.Now())
	w := wire.Welcome{HeartbeatMilli: uint32(s.cfg.Heartbeat.Milliseconds()), WindowFrames: wire.WindowFrames, WindowBytes: wire.WindowBytes}
	if err := l.write(wire.TypeWelcome, w.AppendBinary(nil)); err != nil {
		return hello, fmt.Errorf("send welcome: %w: %w", err, errAgain)
	}
	return hello, nil
}

// awaitIdent reads past what a former connection left on the port, up to the
// Ident that answers this hello. A Hello which was read and not answered is
// repeated.
func (s *session) awaitIdent(ctx context.Context, l *link, hello []byte) ([]byte, error) {
	stray := 0
	for {
		if err := l.conn.SetReadDeadline(time.Now().Add(s.cfg.HelloRepeat)); err != nil {
			return nil, fmt.Errorf("await ident: %w: %w", err, errAgain)
		}
		if ctx.Err() != nil { // the deadline above may have undone the one that wakes us
			return nil, context.Cause(ctx)
		}
		e, err := l.in.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-s.rehi:
				return nil, errRehello
			default:
			}
			if unread(l) == 0 {
				if err := l.write(wire.TypeHello, hello); err != nil {
					return nil, fmt.Errorf("repeat hello: %w: %w", err, errAgain)
				}
			}
			continue
		case errors.Is(err, wire.ErrGarbage):
			stray++
		case err != nil:
			return nil, readError(ctx, err)
		}
		if e.Type == wire.TypeIdent && answers(e.Body, hello) {
			if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
				return nil, fmt.Errorf("await ident: %w: %w", err, errAgain)
			}
			return bytes.Clone(e.Body), nil
		}
		if stray += len(e.Body); stray > maxStrayBytes {
			return nil, fmt.Errorf("await ident: %d bytes and no answer to the hello: %w", stray, record.ErrReject)
		}
	}
}

// answers reports whether an Ident repeats the nonce of the Hello: older ones
// may still be in flight.
func answers(ident, hello []byte) bool {
	h, err := wire.ParseHello(hello)
	return err == nil && bytes.Contains(ident, h.Nonce[:])
}

// unread returns how many bytes the guest has not taken yet.
func unread(l *link) int {
	n := 0
	if raw, err := l.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	return n
}

// enroll seals which key speaks on this channel now. A crash behind it leaves
// an enrolment without frames, which is what happened.
func (s *session) enroll(ctx context.Context, d *Domain, id *wire.Ident, transcript record.Hash, hello, ident []byte) error {
	resumed := id.Session == s.prog.Session
	m := &record.Enrolled{
		Key: id.Key[:], Session: id.Session, Epoch: id.Epoch[:], Hello: hello, Ident: ident, Transcript: transcript[:],
		AgentVersion: id.AgentVersion, BootId: id.BootID[:], PeerPid: uint32(d.QEMU.Pid), Resumed: resumed,
	}
	entries, err := s.rollback(d, id)
	if err != nil {
		return err
	}
	next := s.prog.clone()
	if !resumed {
		m.RetiredKey = s.prog.Key
		next.begin(id)
		found, err := s.provenance(d, id, &next)
		if err != nil {
			return err
		}
		entries = append(entries, found...)
		if again := s.restarted(id); again != "" {
			e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentRestarted, &record.AgentState{Session: id.Session, Frame: s.prog.Frame, Reason: again})
			if err != nil {
				return fmt.Errorf("seal restart: %w", err)
			}
			entries = append(entries, e)
		}
	} else if s.prog.behind(id) || s.tookBack(d) {
		e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentRewound, &record.AgentState{
			Session: id.Session, Frame: id.Frame, Count: s.prog.Frame - min(id.Frame, s.prog.Frame),
			Reason:       fmt.Sprintf("restored memory: the agent goes on from frame %d in a new epoch, frame %d was sealed", id.Frame, s.prog.Frame),
			ClaimedIndex: id.AckedIndex, ClaimedHash: id.AckedHash[:],
		})
		if err != nil {
			return fmt.Errorf("seal restored memory: %w", err)
		}
		entries = append(entries, e)
		next.branch(id)
		s.recent = map[uint64]record.Hash{}
	}
	next.Epoch = id.Epoch
	if next.Stopped != nil && next.Stopped.Epoch != id.Epoch {
		next.Stopped = nil // the memory that was told to stop is not the one that speaks
	}
	enrolled, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentEnrolled, m)
	if err != nil {
		return fmt.Errorf("seal enrolment: %w", err)
	}
	if err := s.seal(ctx, d, append(entries, enrolled), next); err != nil {
		return err
	}
	s.alive.stop(next.Stopped)
	s.alive.enrolled(id.Epoch)
	return nil
}

// restarted says how an agent has come to another run, with another key, though its
// epoch goes on; empty: it has not.
func (s *session) restarted(id *wire.Ident) string {
	switch {
	case s.prog.Session == 0 || s.prog.Epoch != id.Epoch:
		return ""
	case s.prog.BootID != id.BootID:
		return "the guest has booted another kernel, and its host knows of no reset"
	case s.prog.Stopped != nil:
		return "the agent was started again behind an authorised stop"
	}
	return "the agent was started again, and nobody had told it to stop"
}

// tookBack reports whether an epoch was opened because the agent was found in an
// earlier state of itself. By now it may have made more frames than are sealed: they
// are others all the same.
func (s *session) tookBack(d *Domain) bool {
	e := s.wentBack.Load()
	return e != nil && *e == d.ParentEpoch && s.prog.Epoch != d.Epoch
}

// rollback returns the alarm to seal where the agent holds an acknowledgement
// that this log does not bear out.
func (s *session) rollback(d *Domain, id *wire.Ident) ([]chain.Entry, error) {
	if id.AckedFrame == 0 || id.AckedHash.IsZero() {
		return nil, nil
	}
	if s.inEarlierShard(d, id) || s.prog.arrivedWith(id) || s.arrives(d, id) {
		return nil, nil // of a log that this host cannot hold it against: see provenance
	}
	reason := ""
	if leaf, err := d.Log.LeafHash(id.AckedIndex); err != nil {
		reason = fmt.Sprintf("the agent holds an ack for leaf %d, the log has %d leaves", id.AckedIndex, d.Log.Size())
	} else if leaf != id.AckedHash {
		reason = fmt.Sprintf("the agent holds an ack for leaf %d with hash %s, the log has %s", id.AckedIndex, id.AckedHash, leaf)
	} else {
		return nil, nil
	}
	s.cfg.Stats.Rollbacks.Add(1)
	e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentRollback, &record.AgentState{
		Session: id.Session, Frame: id.AckedFrame, Reason: reason, ClaimedIndex: id.AckedIndex, ClaimedHash: id.AckedHash[:],
	})
	if err != nil {
		return nil, fmt.Errorf("seal rollback: %w", err)
	}
	return []chain.Entry{e}, nil
}

// inEarlierShard reports whether a shard before this one bears an acknowledgement
// out: the agent was told of no leaf since its domain goes on in this shard.
func (s *session) inEarlierShard(d *Domain, id *wire.Ident) bool {
	for name := d.Log.Name(); name.Shard > proof.FirstShard; {
		name.Shard--
		l, ok := s.cfg.Store.LogByOrigin(name.String())
		if !ok {
			return false
		}
		leaf, err := l.LeafHash(id.AckedIndex)
		if err == nil && leaf == id.AckedHash {
			return true
		}
		if l.Gone() != nil && id.AckedIndex < l.Size() {
			return true // nobody can tell any more, and that it was dropped is sealed
		}
	}
	return false
}

// seal appends entries together with the progress they stand for and waits.
func (s *session) seal(ctx context.Context, d *Domain, entries []chain.Entry, next progress) error {
	b, err := next.encode()
	if err != nil {
		return err
	}
	_, err = s.cfg.Store.Append(ctx, chain.Batch{Log: d.Log, Entries: entries, Meta: []chain.MetaWrite{{Key: progressKey(d), Value: b}}})
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	s.prog = next
	return nil
}

func progressKey(d *Domain) string { return ProgressKey(d.Log) }

// ProgressKey is where it is kept how far an agent has been sealed in a log. Who
// lets a domain go on in another log takes it along.
func ProgressKey(l *chain.Log) string { return "agent/" + l.Origin() }

// refuse seals why an agent is turned away, and tells it.
func (s *session) refuse(ctx context.Context, l *link, d *Domain, c record.Class, reason string, evidence []byte, cause error) error {
	err := s.sealMisbehaviour(ctx, d, c, "handshake: "+reason, evidence, cause)
	w := wire.Welcome{Refused: true, Reason: reason}
	// The refusal is sealed whether or not the agent hears of it.
	_ = l.write(wire.TypeWelcome, w.AppendBinary(nil))
	return err
}

// maxEvidence bounds what is kept of offending bytes.
const maxEvidence = 512

// sealMisbehaviour seals a finding about the agent and returns cause, or the
// failure to seal.
func (s *session) sealMisbehaviour(ctx context.Context, d *Domain, c record.Class, reason string, evidence []byte, cause error) error {
	e, err := s.cfg.Store.Draft(record.OriginHost, c, &record.AgentState{
		Session: s.prog.Session, Reason: reason, Evidence: evidence[:min(len(evidence), maxEvidence)], PeerPid: uint32(d.QEMU.Pid),
	})
	if err != nil {
		return fmt.Errorf("seal %s: %w", c, err)
	}
	if _, err := s.cfg.Store.Append(ctx, chain.Batch{Log: d.Log, Entries: []chain.Entry{e}}); err != nil {
		return fmt.Errorf("seal %s: %w", c, err)
	}
	return &sealedError{cause}
}

// sealedError is a violation that stands in the log already.
type sealedError struct{ error }

func (e *sealedError) Unwrap() error { return e.error }

// sealUnsealed seals a violation that ended a connection and has no entry yet.
func (s *session) sealUnsealed(ctx context.Context, err error) error {
	var sealed *sealedError
	if errors.As(err, &sealed) {
		return nil
	}
	if err := s.sealMisbehaviour(ctx, s.dom.Load(), record.ClassAgentRefused, "channel: "+err.Error(), nil, nil); !errors.As(err, &sealed) {
		return err
	}
	return nil
}
