package guest

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// frame verifies one frame and submits it, or the finding that it was refused.
// Either way the answer waits in the returned inflight for its turn.
func (s *session) frame(ctx context.Context, d *Domain, body []byte) (*inflight, error) {
	f, st, err := wire.ParseFrame(body)
	if err != nil {
		// Without a number there is nothing to acknowledge: the peer does not
		// speak the protocol.
		return nil, s.sealMisbehaviour(ctx, d, record.ClassAgentRefused, "frame: "+err.Error(), body, err)
	}
	if err := s.pay(ctx, s.records, max(1, len(f.Records))); err != nil {
		return nil, err
	}
	hash := wire.FrameHash(f.Statement)
	if reason := s.unfit(d, &st); reason != "" {
		return s.refuseFrame(ctx, d, &f, &st, hash, record.ClassAgentRefused, reason)
	}
	opened, err := f.Open(&st, s.prog.Key)
	if err != nil {
		return s.refuseFrame(ctx, d, &f, &st, hash, record.ClassAgentSignatureInvalid, err.Error())
	}
	if st.Epoch != d.Epoch && !s.prog.carriedOver(&st, d) {
		// Signed with the right key: memory that was taken back sends again what it
		// had on its way, or was sent for an epoch that is over.
		in, err := s.refuseFrame(ctx, d, &f, &st, hash, record.ClassAgentStale,
			fmt.Sprintf("stale: frame %d names epoch %x, the current one is %x", st.Frame, st.Epoch, d.Epoch))
		if in != nil {
			in.stale = true
		}
		return in, err
	}
	switch s.prog.place(&st, hash, s.recent) {
	case placeDuplicate:
		s.cfg.Stats.Duplicates.Add(1)
		return &inflight{ack: wire.Ack{Session: st.Session, Frame: st.Frame}}, nil
	case placeFork:
		s.wentBack.Store(&d.Epoch)
		return s.refuseFrame(ctx, d, &f, &st, hash, record.ClassAgentForked,
			fmt.Sprintf("frame %d does not follow frame %d that is sealed: the key signs two histories", st.Frame, s.prog.Frame))
	}
	var hooks *record.Hooks
	for i := range opened {
		m, err := record.Decode(opened[i].Header.Class, opened[i].Payload)
		if err != nil {
			return s.refuseFrame(ctx, d, &f, &st, hash, record.ClassAgentRefused, fmt.Sprintf("record %d: %s", i, err))
		}
		if h, ok := m.(*record.Hooks); ok {
			hooks = h // the newest counts
		}
	}
	return s.submitFrame(ctx, d, &f, &st, hash, opened, hooks)
}

// unfit says why a frame cannot belong here, whoever signed it.
func (s *session) unfit(d *Domain, st *wire.Statement) string {
	switch {
	case st.Domain != d.UUID:
		return fmt.Sprintf("frame %d names domain %x", st.Frame, st.Domain)
	case st.Session != s.prog.Session:
		return fmt.Sprintf("frame %d names session %x, this one is %x", st.Frame, st.Session, s.prog.Session)
	case len(st.Lanes) > 0 && s.prog.lanesWith(st) > maxSessionLanes:
		return fmt.Sprintf("frame %d makes the session name more than %d lanes", st.Frame, maxSessionLanes)
	}
	return ""
}

// submitFrame hands the records and the statement to the ledger in one batch:
// a frame is sealed whole or not at all. Holes are sealed before the records,
// so that the statement's leaf stands right behind what it speaks for.
func (s *session) submitFrame(ctx context.Context, d *Domain, f *wire.Frame, st *wire.Statement, hash record.Hash, opened []wire.Opened, hooks *record.Hooks) (*inflight, error) {
	next := s.prog.clone()
	entries := make([]chain.Entry, 0, len(opened)+2)
	gap, err := s.gap(st, next.Frame, next.book(st, opened))
	if err != nil {
		return nil, err
	}
	found, told, err := s.coverageFindings(st.Session, st.Frame, hooks)
	if err != nil {
		return nil, err
	}
	entries = append(append(entries, gap...), found...)
	for i := range opened {
		o := &opened[i]
		entries = append(entries, chain.Entry{Origin: record.OriginGuest, Header: o.Header, Payload: o.Payload, Seed: f.Seed, Commitment: o.Commitment})
	}
	stmt, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentFrame,
		&record.Frame{Statement: f.Statement, Signature: f.Signature[:], Count: st.Count})
	if err != nil {
		return nil, fmt.Errorf("seal frame %d: %w", st.Frame, err)
	}
	entries = append(entries, stmt)
	next.consume(st, hash)
	if !s.alive.stopping() {
		next.Stopped = nil // an agent that went on, see watch
	}
	in, err := s.submit(ctx, d, entries, next, told...)
	if err != nil {
		return nil, fmt.Errorf("seal frame %d: %w", st.Frame, err)
	}
	in.ack = wire.Ack{Session: st.Session, Frame: st.Frame}
	s.alive.seen(s.cfg.Now())
	s.cfg.Stats.Frames.Add(1)
	s.cfg.Stats.Records.Add(uint64(len(opened)))
	for _, l := range st.Lanes {
		for _, d := range l.Drops {
			s.cfg.Stats.Dropped.Add(d.Count)
		}
	}
	return in, nil
}

// gap returns the entry that tells of frames, sequences or lane counts that
// are missing with nobody owning up to it, if there are any.
func (s *session) gap(st *wire.Statement, last uint64, holes []*record.LostCount) ([]chain.Entry, error) {
	detail := ""
	if st.Frame != last+1 {
		detail = fmt.Sprintf("frames %d to %d are missing", last+1, st.Frame-1)
	} else if st.First != s.prog.Sequence && !s.prog.Branched {
		detail = fmt.Sprintf("sequence goes from %d to %d", s.prog.Sequence, st.First)
	}
	var missing uint64
	for _, h := range holes {
		missing = saturate(missing, h.Count)
	}
	if detail == "" && missing == 0 {
		return nil, nil
	}
	if missing > 0 {
		detail += fmt.Sprintf("; %d events on %d lanes are missing and not accounted for", missing, len(holes))
	}
	s.cfg.Stats.Gaps.Add(1)
	s.cfg.Stats.Unexplained.Add(missing)
	e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentSequenceGap,
		&record.AgentState{Session: st.Session, Frame: st.Frame, Reason: detail, Count: missing})
	if err != nil {
		return nil, fmt.Errorf("seal gap: %w", err)
	}
	return []chain.Entry{e}, nil
}

// refuseFrame seals why a frame is refused. The agent's chain of frames goes
// on behind it where it was the next one, else the books stay as they are.
func (s *session) refuseFrame(ctx context.Context, d *Domain, f *wire.Frame, st *wire.Statement, hash record.Hash, c record.Class, reason string) (*inflight, error) {
	s.cfg.Stats.Refused.Add(1)
	next := s.prog.clone()
	if st.Session == next.Session && next.place(st, hash, s.recent) == placeNext && wire.VerifyStatement(next.Key, f.Statement, f.Signature[:]) == nil {
		next.book(st, nil)
		next.consume(st, hash)
	}
	e, err := s.cfg.Store.Draft(record.OriginHost, c, &record.AgentState{
		Session: st.Session, Frame: st.Frame, Reason: reason, FrameHash: hash[:], Count: uint64(st.Count),
		Evidence: f.Statement[:min(len(f.Statement), maxEvidence)], PeerPid: uint32(d.QEMU.Pid),
	})
	if err != nil {
		return nil, fmt.Errorf("seal refusal: %w", err)
	}
	in, err := s.submit(ctx, d, []chain.Entry{e}, next)
	if err != nil {
		return nil, fmt.Errorf("seal refusal of frame %d: %w", st.Frame, err)
	}
	in.ack = wire.Ack{Session: st.Session, Frame: st.Frame, Refused: true, Reason: reason}
	return in, nil
}

// submit starts a batch and moves the session's books on: the next frame is
// checked while this one is on its way to the disk. Should the batch fail, the
// connection ends and the books are read again from the ledger.
func (s *session) submit(ctx context.Context, d *Domain, entries []chain.Entry, next progress, more ...chain.MetaWrite) (*inflight, error) {
	b, err := next.encode()
	if err != nil {
		return nil, err
	}
	if err := s.pay(ctx, s.bytes, len(b)); err != nil {
		return nil, err
	}
	p, err := s.cfg.Store.Submit(ctx, chain.Batch{Log: d.Log, Entries: entries, Meta: append(more, chain.MetaWrite{Key: progressKey(d), Value: b})})
	if err != nil {
		return nil, err
	}
	s.prog = next
	s.recent[next.Frame] = next.FrameHash
	delete(s.recent, next.Frame-wire.WindowFrames)
	s.last = p
	return &inflight{pending: p}, nil
}

// room waits until policies have come near what the guest has sent before. Meanwhile
// nothing is read, and that the agent is not heard is not its silence.
func (s *session) room(ctx context.Context, d *Domain) error {
	if s.cfg.Room == nil {
		return nil
	}
	var sealed <-chan struct{}
	if s.last != nil {
		sealed = s.last.Done()
	}
	s.held.Store(true)
	defer s.held.Store(false)
	if err := s.cfg.Room(ctx, d.Log, sealed); err != nil {
		return fmt.Errorf("wait for policies: %w: %w", err, errAgain)
	}
	return nil
}

// pay waits until one of the domain's quotas has room (invariant I8). Meanwhile
// nothing is read, so the guest's port fills and its agent waits.
func (s *session) pay(ctx context.Context, quota *rate.Limiter, n int) error {
	n = min(n, quota.Burst())
	if quota.AllowN(s.cfg.Now(), n) {
		return nil
	}
	s.cfg.Stats.Throttled.Add(1)
	if err := quota.WaitN(ctx, n); err != nil {
		return fmt.Errorf("wait for quota: %w: %w", err, errAgain)
	}
	return nil
}
