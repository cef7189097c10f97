package introspect

import (
	"context"
	"errors"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// sweepEvery is how often facts that could not be read are asked for again.
const sweepEvery = 3 * time.Second

// Run reads facts again that could not be read when they were due: a run whose
// channel is unknown would never be heard (invariant I4). It ends with ctx, or
// when the ledger fails.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, id := range r.unread() {
			if err := r.reread(ctx, id); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
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
	return m != nil && !m.Ended && m.log == l
}
