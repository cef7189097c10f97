package guestagent

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// window says whether another frame may be under way. The lock is held.
func (a *Agent) window(more int) bool {
	if a.sent == 0 || a.closing {
		return true // one frame always may, and so may the last
	}
	frames, bytes := int(a.conv.welcome.WindowFrames), int(a.conv.welcome.WindowBytes)
	if frames == 0 {
		frames = wire.WindowFrames
	}
	if bytes == 0 {
		bytes = wire.WindowBytes
	}
	for _, f := range a.retained[:a.sent] {
		more += len(f.body)
	}
	return a.sent < min(frames, maxWindowFrames) && more <= min(bytes, MaxWindowBytes)
}

// nextFrame returns the body of the frame to write now, nil for none. It is
// the next of those that were made before, or a new one.
func (a *Agent) nextFrame() ([]byte, error) {
	a.mu.Lock()
	if !a.conv.welcomed {
		a.mu.Unlock()
		return nil, nil
	}
	if a.sent < len(a.retained) {
		f := a.retained[a.sent]
		ok := a.window(len(f.body))
		if ok {
			a.sent++
		}
		a.mu.Unlock()
		if ok {
			return f.body, nil
		}
		return nil, nil
	}
	if !a.window(a.frameLimit()) {
		a.mu.Unlock()
		return nil, nil
	}
	batch := a.takeBatch()
	var lost *record.Lost
	if a.losses.any() {
		lost = a.losses.take()
	}
	conv := a.conv.number
	hello := a.conv.hello
	patience := uint64(holePatience)
	if a.closing {
		patience = 0 // nothing comes any more
	}
	a.packing = true
	a.mu.Unlock()

	f, err := a.pack(&hello, batch, lost, patience)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.packing = false
	if f == nil || err != nil {
		a.settle()
		return nil, err
	}
	a.retained = append(a.retained, f)
	if conv != a.conv.number || !a.conv.welcomed {
		return nil, nil // the host is another one by now: it is sent from retained
	}
	a.sent++
	return f.body, nil
}

// frameLimit is the largest body to make for this host. The lock is held.
func (a *Agent) frameLimit() int {
	limit := a.cfg.FrameBytes
	if w := int(a.conv.welcome.WindowBytes); w > 0 {
		limit = min(limit, w)
	}
	return limit
}

// takeBatch takes what fits into one frame, into memory of the writer's own:
// what the queue gives is valid only as long as the lock is held, which it is.
func (a *Agent) takeBatch() []queued {
	const fixed = 4096 // statement, signature, seed and a record of losses
	clear(a.batch)     // the payloads of the frame before
	batch, memory := a.batch[:0], a.batchBytes[:0]
	size, limit := fixed, a.frameLimit()
	for len(batch) < wire.MaxRecords-1 {
		from := a.source()
		if from == nil {
			break
		}
		next := from.size()
		if len(batch) > 0 && size+next > limit {
			break
		}
		size += next
		r := a.takeRecord()
		at := len(memory)
		memory = append(memory, r.payload...) // where it grows, what stands already stays in the old array
		r.payload = memory[at:len(memory):len(memory)]
		batch = append(batch, r)
	}
	a.batch, a.batchBytes = batch, memory
	return batch
}

// pack makes and signs a frame. It returns nil when there is nothing to tell.
// Only the writer calls it.
func (a *Agent) pack(hello *wire.Hello, batch []queued, lost *record.Lost, patience uint64) (*frame, error) {
	now := a.cfg.Boot()
	for i := range batch {
		a.lanes.arrived(batch[i].header.Lane, batch[i].header.LaneSequence, now)
	}
	if lost != nil {
		for _, c := range lost.Counts {
			a.lanes.dropped(wire.Drop{Class: record.Class(c.Class), Reason: c.Reason, Count: c.Count}, c.Lane, now)
		}
	}
	if holes := a.lanes.own(now, patience); len(holes) > 0 {
		if lost == nil {
			lost = &record.Lost{From: now - patience, To: now, Author: "guest"}
		}
		lost.Counts = append(lost.Counts, holes...)
		lost.Detail = "sequences were counted that no record and no drop count explains"
		sortCounts(lost.Counts)
	}
	if lost != nil {
		payload, err := record.Encode(lost)
		if err != nil {
			return nil, fmt.Errorf("tell losses: %w", err)
		}
		at := len(batch)
		if at > 0 && batch[at-1].header.Class == record.ClassAgentStopped {
			at-- // that is the session's last
		}
		batch = slices.Insert(batch, at, queued{record.Header{Class: record.ClassAgentDropped, Lane: record.NoLane, Time: now}, payload})
	}
	if len(batch) == 0 {
		return nil, nil
	}
	return a.sign(hello, batch, now)
}

// sign commits to the records and signs the statement over them.
func (a *Agent) sign(hello *wire.Hello, batch []queued, now uint64) (*frame, error) {
	f := wire.Frame{Records: make([]wire.Record, len(batch))}
	if _, err := io.ReadFull(a.cfg.Rand, f.Seed[:]); err != nil {
		return nil, fmt.Errorf("draw seed: %w", err)
	}
	s := wire.Statement{
		Domain: hello.Domain, Epoch: hello.Epoch, Session: a.session, Frame: a.frame + 1, Prev: a.frameHash,
		Count: uint32(len(batch)), First: a.sequence, Time: now, Lanes: a.lanes.statement(),
	}
	hashes := make([]record.Hash, len(batch))
	for i := range batch {
		h := batch[i].header
		h.Session, h.Sequence = a.session, a.sequence
		a.sequence++
		salt := f.Seed.Salt(h.Sequence)
		hashes[i] = record.RecordHash(h, record.Commit(&salt, batch[i].payload))
		f.Records[i] = wire.Record{Header: h, Payload: batch[i].payload}
	}
	s.Root = record.Root(hashes)
	f.Statement = s.AppendBinary(nil)
	f.Signature = wire.SignStatement(a.key, f.Statement)
	a.frame, a.frameHash = s.Frame, wire.FrameHash(f.Statement)
	// The body is kept until it is acknowledged: no byte more than it needs.
	return &frame{number: s.Frame, hash: a.frameHash, body: f.AppendBinary(make([]byte, 0, f.Size()))}, nil
}

// ident answers the Hello of the current conversation. Only the writer calls
// it; the lock is held.
func (a *Agent) ident() []byte {
	i := wire.Ident{
		Version: wire.Version, AgentVersion: a.cfg.Version, BootID: a.cfg.BootID,
		Key: [ed25519.PublicKeySize]byte(a.key.Public().(ed25519.PublicKey)), Session: a.session,
		Epoch: a.conv.hello.Epoch, Nonce: a.conv.hello.Nonce,
		Frame: a.frame, FrameHash: a.frameHash,
		AckedFrame: a.acked.Frame, AckedIndex: a.acked.Index, AckedHash: a.acked.Hash,
		Hooks: a.hooks,
	}
	return i.Sign(a.key, a.conv.body)
}

// greeting is a heartbeat without a conversation: its session is not the one
// that the host talks to, so it says Hello. The lock is held.
func (a *Agent) greeting() []byte {
	h := wire.Heartbeat{Nonce: a.conv.nonce, Session: a.session, Time: a.cfg.Boot()}
	return h.AppendBinary(nil)
}

// heartbeat returns one when it is due.
func (a *Agent) heartbeat(now time.Time) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A host that does not know that this agent was started anew goes on with
	// its heartbeats. The answer has another session: it says hello then.
	if !a.conv.beat && (!a.conv.welcomed || now.Before(a.due)) {
		return nil
	}
	a.conv.beat = false
	a.due = now.Add(a.interval())
	h := wire.Heartbeat{Nonce: a.conv.nonce, Session: a.session, Time: a.cfg.Boot(), Frame: a.frame}
	return h.AppendBinary(nil)
}

// interval between heartbeats. The lock is held.
func (a *Agent) interval() time.Duration {
	d := time.Duration(a.conv.welcome.HeartbeatMilli) * time.Millisecond
	if d == 0 {
		d = wire.HeartbeatEvery
	}
	return max(d, minHeartbeat)
}
