package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Run seals what is submitted and makes checkpoints until ctx ends. Then it
// takes in nothing more, seals what it had taken in, makes a last checkpoint
// of every log and returns nil. Any other return is fatal: the process must
// end and recover. Run may be called once.
func (s *Store) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return fmt.Errorf("run store: it runs or has run already: %w", record.ErrReject)
	}
	sealing, stopSealing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSealing()
	checkpointing, stopCheckpoints := context.WithCancel(ctx)
	defer stopCheckpoints()

	packed := make(chan struct{})
	packing, stopPacking := context.WithCancel(ctx)
	defer func() {
		stopPacking()
		s.retreat() // erasures end where they are
		<-packed
		s.eraseMu.Lock()
		defer s.eraseMu.Unlock()
	}()
	go func() {
		defer close(packed)
		err := s.resumeErasures(packing)
		if err == nil {
			err = s.resumePruning(packing)
		}
		if err == nil {
			err = s.resumeDrops(packing)
		}
		if err == nil && !s.cfg.unpacked {
			err = s.packAll(packing)
		}
		if err != nil {
			_ = s.fail(err) // the committer returns it
			stopCheckpoints()
		}
	}()
	retained := make(chan struct{})
	retaining, stopRetaining := context.WithCancel(ctx)
	defer func() { stopRetaining(); s.retreat(); <-retained }()
	go func() {
		defer close(retained)
		s.retainLoop(retaining)
	}()
	sealed := make(chan error, 1)
	go func() {
		err := s.sealAll(sealing)
		stopCheckpoints() // a failed committer leaves nothing to wait for
		sealed <- err
	}()
	cosigning := make(chan struct{})
	go func() {
		defer close(cosigning)
		s.cosignLoop(checkpointing)
		stopCheckpoints() // it ends by itself only where nothing may go on
	}()
	// Checkpoints and what is said of witnesses append to the host log, so they
	// stop before sealing does.
	err := s.checkpointLoop(checkpointing)
	stopCheckpoints()
	<-cosigning
	if err != nil {
		stopSealing()
		return errors.Join(s.fail(err), <-sealed)
	}
	s.queue.shut(ErrClosed)
	stopSealing()
	if err := <-sealed; err != nil {
		return err
	}
	if err := s.drain(); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.lastCheckpoints(); err != nil {
		return s.fail(err)
	}
	s.lastCosign(context.WithoutCancel(ctx))
	return nil
}

// checkpointLoop makes checkpoints in their cadence until ctx ends.
func (s *Store) checkpointLoop(ctx context.Context) error {
	vms := time.NewTicker(s.cfg.CheckpointEvery)
	defer vms.Stop()
	host := time.NewTicker(s.cfg.HostEvery)
	defer host.Stop()
	witness := time.NewTicker(s.cfg.WitnessEvery)
	defer witness.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-vms.C:
			err = s.checkpointRound(s.Logs())
		case <-host.C:
			err = s.hostRound()
		case <-witness.C:
			if err = s.quoteRound(ctx); err == nil {
				err = s.hostRound() // what is witnessed covers the quotes
			}
			s.askWitnesses()
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (s *Store) hostRound() error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	return s.checkpointHost()
}

// quoteRound signs all grown VM logs and quotes them in the host log. The next
// host round covers the quotes.
func (s *Store) quoteRound(ctx context.Context) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	logs := s.Logs()
	if err := s.checkpointVMs(logs); err != nil {
		return err
	}
	return s.quote(logs, s.submitAndWait(ctx))
}

// lastCheckpoints runs when the committer has ended: it seals by itself.
func (s *Store) lastCheckpoints() error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	return s.signAll(s.sealNow)
}

// submitAndWait returns the way to seal a request while the committer runs.
func (s *Store) submitAndWait(ctx context.Context) func(*request) error {
	return func(r *request) error {
		if err := s.validate(r); err != nil {
			return err
		}
		if err := s.queue.put(ctx, r); err != nil {
			return err
		}
		_, err := (*Pending)(r).Wait(ctx)
		return err
	}
}

// CreateLog makes the log of an incarnation with g as leaf 0. The ledger fills
// in, in place, what it knows: origin, store, host, domain UUID, incarnation,
// shard and verifier key. It returns an error that wraps record.ErrReject where
// a log with that origin exists. Once the genesis is queued CreateLog waits for
// its fate even if ctx ends, so it needs Run to be running or to have ended.
func (s *Store) CreateLog(ctx context.Context, origin string, g *record.Genesis) (*Log, error) {
	s.createMu.Lock()
	defer s.createMu.Unlock()
	l, err := s.nextLog(origin)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	s.fillGenesis(l, g)
	e, err := s.Draft(record.OriginHost, record.ClassGenesis, g)
	if err != nil {
		return nil, fmt.Errorf("create log %s: %w", origin, err)
	}
	r := newRequest(Batch{Log: l, Entries: []Entry{e}})
	r.create = true
	// Registered in the commit, so that a follower which reads the genesis
	// finds its log. A crash before the sync leaves no trace of the log.
	r.extra = func(*pebble.Batch, []Sealed) error { s.register(l); return nil }
	if err := s.validate(r); err != nil {
		return nil, fmt.Errorf("create log %s: %w", origin, err)
	}
	if err := s.queue.put(ctx, r); err != nil {
		return nil, fmt.Errorf("create log %s: %w", origin, err)
	}
	// The log's number is free again when createMu is: whoever left a queued
	// genesis behind would let another log take its number, and two leaves 0
	// would be sealed under it.
	if _, err := (*Pending)(r).Wait(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("create log %s: %w", origin, err)
	}
	return l, nil
}

func (s *Store) nextLog(origin string) (*Log, error) {
	if name, err := proof.ParseOrigin(origin); err != nil {
		return nil, err
	} else if name.IsHost() {
		return nil, fmt.Errorf("%s is a host log; a store has one, made with it: %w", origin, record.ErrReject)
	}
	if _, ok := s.LogByOrigin(origin); ok {
		return nil, fmt.Errorf("log %s exists already: %w", origin, record.ErrReject)
	}
	s.logsMu.RLock()
	id := LogID(len(s.logs))
	s.logsMu.RUnlock()
	return s.newLog(id, origin)
}
