package introspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// beatsAtOnce bounds how many heartbeats are sealed in one batch.
const beatsAtOnce = 1000

// sweepEvery is how often facts that could not be read are asked for again.
const sweepEvery = 3 * time.Second

// Run reads facts again that could not be read when they were due: a run whose
// channel is unknown would never be heard (invariant I4). It seals heartbeats, and
// marks the epochs of domains for where their memory goes. It ends with ctx, or when the ledger fails.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	marked := make(chan error, 1)
	go func() {
		marked <- r.markEpochs(ctx)
		cancel()
	}()
	err := r.sweep(ctx)
	cancel()
	return errors.Join(err, <-marked)
}

// sweep is Run without the markers.
func (r *Registry) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	beat := time.NewTicker(proof.HeartbeatEvery)
	defer beat.Stop()
	roll := time.NewTicker(shardEvery)
	defer roll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			if err := r.beat(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		case <-roll.C:
			if err := r.rollShards(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		case <-tick.C:
		}
		if err := r.wentBack(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		for _, id := range r.unread() {
			if err := r.reread(ctx, id); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// beat seals in the log of each domain what it does and whether its agent is
// heard, so that a time without events shows as such. While libvirt is not heard
// there is nothing to say, and that shows too.
func (r *Registry) beat(ctx context.Context) error {
	r.observing.Lock() // what is said must not be older than what is sealed before it
	defer r.observing.Unlock()
	agents := map[domain.UUID]string{}
	for _, s := range r.sessions.Status() {
		agents[s.UUID] = s.State
		if s.Silent {
			agents[s.UUID] = s.State + ", silent"
		}
	}
	r.mu.Lock()
	var batches []chain.Batch
	var err error
	for id, m := range r.machines {
		if _, closed := m.log.Closed(); closed || m.Ended || !r.hearing {
			continue
		}
		agent := agents[id]
		if agent == "" {
			agent = "none"
		}
		var e chain.Entry
		e, err = r.store.Draft(record.OriginHost, record.ClassTick, &record.Event{Vm: &record.VM{
			Uuid: id.String(), Name: m.Name, State: m.State.String(), Detail: agent, LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: int64(m.LibvirtID)}})
		if err != nil {
			break
		}
		batches = append(batches, chain.Batch{Log: m.log, Entries: []chain.Entry{e}})
	}
	r.mu.Unlock()
	for len(batches) > 0 && err == nil {
		n := min(len(batches), beatsAtOnce)
		_, err = r.store.AppendAll(ctx, batches[:n])
		if errors.Is(err, record.ErrReject) {
			// The time without them shows as not covered; nothing is lost but that.
			r.log.ErrorContext(ctx, "heartbeats are refused", "domains", n, "error", err)
			err = nil
		}
		batches = batches[n:]
	}
	if err != nil {
		return fmt.Errorf("seal heartbeats: %w", err)
	}
	return nil
}

// unread returns the domains whose facts are missing.
func (r *Registry) unread() []domain.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []domain.UUID
	for id, m := range r.machines {
		if !m.Ended && m.Unread {
			ids = append(ids, id)
		}
	}
	return ids
}

// reread asks libvirt for a domain and seals what is new. That libvirt does not
// answer is what brought us here: it is asked again at the next sweep.
func (r *Registry) reread(ctx context.Context, id domain.UUID) error {
	r.observing.Lock()
	defer r.observing.Unlock()
	s, err := r.cfg.Inspect(ctx, id)
	if err != nil {
		if errors.Is(err, record.ErrFatal) {
			return err
		}
		r.log.WarnContext(ctx, "facts of a domain cannot be read, trying on", "uuid", id.String(), "error", err)
		return nil
	}
	return r.observeDomain(ctx, &virt.Observation{
		Kind: virt.KindResync, Type: record.ClassVMChange.String(), Word: "resync", Reason: "facts read late",
		Event: -1, Detail: -1, Domain: s.Domain, Time: s.Time, Snapshot: &s,
	}, record.OriginHost)
}

// Current reports whether l is the log of its domain's present incarnation.
func (r *Registry) Current(l *chain.Log) bool {
	id, err := domain.ParseUUID(l.Name().Domain)
	if err != nil {
		return false
	}
	m := r.get(id)
	return m != nil && !m.Ended && m.sameIncarnation(l)
}
