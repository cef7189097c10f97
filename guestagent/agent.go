package guestagent

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// Agent is one session: one run with one key. Observe, Lose and Flush may be
// called from any goroutine.
type Agent struct {
	cfg     Config
	hooks   []byte
	key     ed25519.PrivateKey
	session uint64
	kick    chan struct{} // cap 1: the writer should look again; full: it will
	ending  chan struct{} // closed when last is set

	// Owned by the writer.
	lanes      *lanes
	frame      uint64
	frameHash  record.Hash
	sequence   uint64
	due        time.Time // of the next heartbeat
	batch      []queued  // of the frame being made, and its payloads
	batchBytes []byte

	mu       sync.Mutex // guards all below
	queue    queue
	spool    *spooler // nil: none. What it holds is older than the queue
	losses   losses
	retained []*frame // not acknowledged, oldest first
	sent     int      // how many of retained have been written in this conversation
	conv     conversation
	acked    wire.Ack // newest, zero: none
	pin      pin      // the command key that this run goes by
	results  []wire.Result
	packing  bool                 // the writer holds records that are in neither queue nor retained
	greet    bool                 // let the host know that it has not said Hello to us
	drained  bool                 // the source has ended
	closing  bool                 // the time is over: only the account is sent
	last     *record.AgentStopped // why the session ends; nil: it does not
	idle     chan struct{}
}

// frame is a signed frame that waits for its acknowledgement.
type frame struct {
	number uint64
	hash   record.Hash
	body   []byte
}

// conversation is what one Hello of the host has begun.
type conversation struct {
	number   uint64 // counts Hellos
	hello    wire.Hello
	body     []byte // exact bytes of the Hello
	welcomed bool
	welcome  wire.Welcome
	nonce    uint64 // of the host's newest heartbeat
	beat     bool   // answer it
	clock    hostClock
	commands map[[16]byte]uint64 // ids that are spent, and when they expire

	forgotten uint64 // newest expiry of ids that are spent and not remembered
}

// New makes an Agent. It sends nothing before Run.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make agent: %w", err)
	}
	a := &Agent{cfg: cfg, kick: make(chan struct{}, 1), ending: make(chan struct{}), lanes: newLanes(), queue: queue{limit: cfg.QueueBytes}}
	if a.spool, err = newSpooler(&cfg); err != nil {
		return nil, fmt.Errorf("make agent: %w", err)
	}
	if a.hooks, err = record.Encode(cfg.Hooks); err != nil {
		return nil, fmt.Errorf("make agent: %w", err)
	}
	if len(a.hooks) > wire.MaxHooks || len(a.hooks) > record.MaxPayload {
		return nil, fmt.Errorf("make agent: hooks record of %d bytes, limit %d", len(a.hooks), min(wire.MaxHooks, record.MaxPayload))
	}
	if _, a.key, err = ed25519.GenerateKey(cfg.Rand); err != nil {
		return nil, fmt.Errorf("make agent: draw key: %w", err)
	}
	for a.session == 0 {
		var b [8]byte
		if _, err := io.ReadFull(cfg.Rand, b[:]); err != nil {
			return nil, fmt.Errorf("make agent: draw session: %w", err)
		}
		a.session = binary.BigEndian.Uint64(b[:])
	}
	// What this session covers stands before everything that it observed.
	if !a.queue.push(queued{record.Header{Class: record.ClassAgentHooks, Lane: record.NoLane, Time: cfg.Boot()}, a.hooks}) {
		return nil, fmt.Errorf("make agent: a queue of %d bytes does not even hold the hooks record", cfg.QueueBytes)
	}
	return a, nil
}

// Session returns the session's number.
func (a *Agent) Session() uint64 { return a.session }

// Observe takes a record; session and sequence of h are the agent's to fill,
// the payload is copied. It never waits: a record that finds no room is lost,
// and told as such.
func (a *Agent) Observe(h record.Header, payload []byte) {
	a.observe(h, payload, shareOf(&h))
}

// ObserveHeavy is Observe of a record that gives way to all others: it is of a
// process that does more than it may.
func (a *Agent) ObserveHeavy(h record.Header, payload []byte) {
	a.observe(h, payload, min(heavyShare, shareOf(&h)))
}

func (a *Agent) observe(h record.Header, payload []byte, share int) {
	if len(payload) > record.MaxPayload {
		a.Lose(h.Lane, h.Class, record.LossReason_LOSS_REASON_TOO_LARGE, 1)
		return
	}
	a.mu.Lock()
	before := a.queue.bytes
	if r := (queued{h, payload}); !a.queue.pushWithin(r, share) {
		a.losses.add(lossKey{h.Lane, h.Class, a.fullReason()}, r.acts(), h.Time)
	}
	if a.spool != nil && a.queue.bytes > a.queue.limit/4 {
		a.spool.nudge()
	}
	// Once: a writer that may not write now would be woken for nothing.
	half := before <= a.queue.limit/2 && a.queue.bytes > a.queue.limit/2
	a.mu.Unlock()
	if half {
		a.Flush()
	}
}

// Lose says that n records of a lane will never come.
func (a *Agent) Lose(lane uint32, class record.Class, reason record.LossReason, n uint64) {
	now := a.cfg.Boot()
	a.mu.Lock()
	a.losses.add(lossKey{lane, class, reason}, n, now)
	a.mu.Unlock()
}

// Flush says that now is a good time to send: a source calls it after what it
// has read in one go, so that this goes into one frame.
func (a *Agent) Flush() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Run serves the port until ctx ends, or it is told to stop (by a command of
// the host, or by Terminate), or the source fails. It then stops the source
// and goes on sending for at most the grace time. It returns nil when it was
// ended. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	portCtx, stopPort := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPort()
	var served sync.WaitGroup
	served.Go(func() { a.servePorts(portCtx) })
	if a.spool != nil {
		spooled := make(chan struct{})
		go func() {
			defer close(spooled)
			a.runSpool(portCtx)
		}()
		defer a.closeSpool(ctx, spooled, a.cfg.Grace)
	}

	sourceCtx, stopSource := context.WithCancel(ctx)
	defer stopSource()
	served.Go(func() {
		select {
		case <-a.ending:
			stopSource()
		case <-sourceCtx.Done():
		}
	})
	err := a.cfg.Source(sourceCtx, a)
	ended := sourceCtx.Err() != nil
	stopSource()
	if err == nil && !ended {
		err = fmt.Errorf("source ended by itself")
	}
	a.finish(portCtx, a.lastRecord(ctx))
	stopPort()
	served.Wait()
	if err != nil && !ended {
		return fmt.Errorf("run agent: %w", err)
	}
	return nil
}
