package guest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

// CommandKey signs what agents are told to do (invariant I9: the key itself
// stays in chain/keys).
type CommandKey interface {
	CommandPublic() ed25519.PublicKey
	SignCommand(command []byte) [ed25519.SignatureSize]byte
}

// StatusNoAnswer is the status of a sealed result that no agent gave: those
// that agents give fit into a byte.
const StatusNoAnswer = 256

// Answer is what became of a command.
type Answer struct {
	ID      [16]byte
	Session uint64
	Status  uint32
	Detail  string
}

// Command has the agent of a domain do something that a person asks for. What is
// asked is sealed before it is sent, and what came of it after; it returns behind
// both. Only one command of a domain is under way at a time. An error that wraps
// record.ErrRetry says that nothing was asked.
func (s *Sessions) Command(ctx context.Context, id domain.UUID, r wire.Request) (*Answer, error) {
	// The agent judges by the expiry; its answer may take a while longer.
	return s.ask(ctx, id, r, terms{record.OriginOperator, s.cfg.CommandTimeout, s.cfg.CommandTimeout + s.cfg.WriteTimeout})
}

// A policy waits for an agent so long and no longer: a guest that does not answer
// must not delay what else is to be done about it (invariant I8).
const (
	killGood = 3 * time.Second
	killWait = 5 * time.Second // the agent gives a process two to end
)

// Kill has the agent of a domain kill a process, for a policy. It is as Command.
func (s *Sessions) Kill(ctx context.Context, id domain.UUID, t wire.Target, requester, reason string) (*Answer, error) {
	r := wire.Request{Kind: wire.KindKill, Requester: requester, Reason: reason, Arguments: t.AppendBinary(nil)}
	return s.ask(ctx, id, r, terms{record.OriginPolicy, killGood, killWait})
}

// terms are by whom a command is given, how long it is good for, and how long its
// answer is waited for.
type terms struct {
	origin     record.Origin
	good, wait time.Duration
}

func (s *Sessions) ask(ctx context.Context, id domain.UUID, r wire.Request, t terms) (*Answer, error) {
	if len(r.Requester) > wire.MaxText || len(r.Reason) > wire.MaxText || len(r.Arguments) > wire.MaxCommand/2 {
		return nil, fmt.Errorf("command agent: requester or reason is longer than %d bytes: %w", wire.MaxText, record.ErrReject)
	}
	if _, err := wire.ParseRequest(r.AppendBinary(nil)); err != nil {
		return nil, fmt.Errorf("command agent: %w", err)
	}
	s.mu.Lock()
	n := s.running[id]
	s.mu.Unlock()
	if n == nil {
		return nil, fmt.Errorf("command agent: the domain does not run, or has no channel: %w", record.ErrRetry)
	}
	return n.session.command(ctx, &r, t)
}

// orders is what a session has been told to ask of its agent.
type orders struct {
	mu    sync.Mutex // guards both
	talk  *talk      // the conversation under way, nil: none
	order *order     // the one that waits for its answer
}

// talk is what a command needs of a conversation.
type talk struct {
	link    *link
	dom     *Domain
	session uint64
	epoch   [16]byte
	nonce   [32]byte
}

// order is a command that is under way.
type order struct {
	id       [16]byte
	kind     wire.Kind
	session  uint64
	body     []byte      // of the Command, as it was sent
	answered chan answer // cap 1: whoever takes the order out of orders answers it
}

type answer struct {
	*Answer
	err error
}

// begin takes the place of the session's order, for the conversation under way.
func (o *orders) begin(n *order) (*talk, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.talk == nil {
		return nil, fmt.Errorf("the agent is not connected: %w", record.ErrRetry)
	}
	if o.order != nil {
		return nil, fmt.Errorf("another command waits for its answer: %w", record.ErrRetry)
	}
	o.order = n
	return o.talk, nil
}

// take removes an order, if it is still the one.
func (o *orders) take(id [16]byte) *order {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.order
	if n == nil || n.id != id {
		return nil
	}
	o.order = nil
	return n
}

func (o *orders) set(t *talk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.talk = t
}

func (s *session) command(ctx context.Context, r *wire.Request, by terms) (*Answer, error) {
	if s.cfg.Commands == nil {
		return nil, fmt.Errorf("command agent: this host has no key for commands: %w", record.ErrReject)
	}
	o := &order{kind: r.Kind, answered: make(chan answer, 1)}
	_, _ = rand.Read(o.id[:]) // never fails
	t, err := s.orders.begin(o)
	if err != nil {
		return nil, fmt.Errorf("command agent of %s: %w", s.dom.Load().Name, err)
	}
	// From here on it is carried through, whether or not the asker still waits.
	ctx = context.WithoutCancel(ctx)
	if err := s.send(ctx, t, o, r, by); err != nil {
		return s.unanswered(ctx, t, o, err.Error(), err)
	}
	timer := time.NewTimer(by.wait)
	defer timer.Stop()
	select {
	case a := <-o.answered:
		return a.Answer, a.err
	case <-timer.C:
		return s.unanswered(ctx, t, o, fmt.Sprintf("no answer in %s", by.wait), nil)
	case <-s.ended:
		return s.unanswered(ctx, t, o, "the channel is not served any more", nil)
	}
}

// send seals what is asked, and by whom, and sends it. A crash behind the
// sealing leaves a command without a result: it may have reached the agent.
func (s *session) send(ctx context.Context, t *talk, o *order, r *wire.Request, by terms) error {
	now := s.cfg.Now()
	c := wire.Command{ID: o.id, Epoch: t.epoch, Nonce: t.nonce, Expiry: uint64(now.Add(by.good).UnixNano()), Body: r.AppendBinary(nil)}
	c.Signature = s.cfg.Commands.SignCommand(c.AppendUnsigned(nil))
	o.body, o.session = c.AppendBinary(nil), t.session
	e, err := s.cfg.Store.Draft(by.origin, record.ClassAgentCommand, &record.AgentCommand{
		Id: c.ID[:], Kind: r.Kind.String(), Reason: r.Reason, Requester: r.Requester, Expiry: c.Expiry,
		Body: o.body, Signature: c.Signature[:], Session: t.session,
	})
	if err != nil {
		return fmt.Errorf("seal command: %w", err)
	}
	if _, err := s.cfg.Store.Append(ctx, chain.Batch{Log: t.dom.Log, Entries: []chain.Entry{e}}); err != nil {
		return fmt.Errorf("seal command: %w", err)
	}
	// The agent judges the expiry by the newest time it was told.
	h := wire.Heartbeat{Nonce: s.alive.challenge(), Session: t.session, Time: uint64(s.cfg.Now().UnixNano())}
	if err := t.link.write(wire.TypeHeartbeat, h.AppendBinary(nil)); err != nil {
		return fmt.Errorf("send command: %w: %w", err, record.ErrRetry)
	}
	if err := t.link.write(wire.TypeCommand, o.body); err != nil {
		return fmt.Errorf("send command: %w: %w", err, record.ErrRetry)
	}
	return nil
}

// unanswered ends an order that nobody has answered, and seals that. Should
// the answer have come after all, that one counts.
func (s *session) unanswered(ctx context.Context, t *talk, o *order, why string, cause error) (*Answer, error) {
	if s.orders.take(o.id) == nil {
		a := <-o.answered
		return a.Answer, a.err
	}
	m := &record.AgentResult{Id: o.id[:], Status: StatusNoAnswer, Detail: why, Session: t.session}
	e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentResult, m)
	if err == nil {
		_, err = s.cfg.Store.Append(ctx, chain.Batch{Log: t.dom.Log, Entries: []chain.Entry{e}})
	}
	if err != nil {
		return nil, fmt.Errorf("seal that a command has no answer: %w", errors.Join(err, cause))
	}
	return &Answer{ID: o.id, Session: t.session, Status: StatusNoAnswer, Detail: why}, nil
}

// maxDetail bounds what is repeated of an agent's words, in bytes.
const maxDetail = 512

// result seals the agent's answer to the command under way. One that nobody
// waits for (late, or for a command of an earlier run of the daemon) is worth
// nothing. A stop that is done ends the agent's duty to give signs of life
// until the next one is enrolled, and is kept with the agent's books.
func (s *session) result(ctx context.Context, d *Domain, raw []byte) error {
	m, err := wire.ParseResult(raw)
	if err != nil {
		return err
	}
	o := s.orders.take(m.ID)
	if o == nil {
		return nil
	}
	a := answer{Answer: &Answer{ID: m.ID, Session: o.session, Status: uint32(m.Status), Detail: string(m.Body[:min(len(m.Body), maxDetail)])}}
	a.err = s.sealResult(ctx, d, o, &m, raw)
	o.answered <- a
	return a.err
}

func (s *session) sealResult(ctx context.Context, d *Domain, o *order, m *wire.Result, raw []byte) error {
	err := m.Verify(s.prog.Key, o.body)
	if s.prog.Session != o.session {
		err = fmt.Errorf("session %x answers a command for session %x: %w", s.prog.Session, o.session, record.ErrReject)
	}
	if err != nil {
		return s.sealMisbehaviour(ctx, d, record.ClassAgentSignatureInvalid, "result of a command: "+err.Error(), raw, err)
	}
	e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentResult, &record.AgentResult{
		Id: m.ID[:], Status: uint32(m.Status), Detail: record.Printable(m.Body[:min(len(m.Body), maxDetail)]),
		Body: raw, Signature: m.Signature[:], Session: o.session,
	})
	if err != nil {
		return fmt.Errorf("seal result: %w", err)
	}
	next := s.prog.clone()
	stopped := o.kind == wire.KindStop && m.Status == wire.ResultDone
	if stopped {
		next.Stopped = &stopMark{Epoch: d.Epoch, Command: m.ID, At: s.cfg.Now().UnixNano()}
	}
	if err := s.seal(ctx, d, []chain.Entry{e}, next); err != nil {
		return fmt.Errorf("seal result: %w", err)
	}
	if stopped {
		s.alive.stop(next.Stopped)
		s.log.InfoContext(ctx, "agent stops as it was told to", "command", fmt.Sprintf("%x", m.ID))
	}
	return nil
}
