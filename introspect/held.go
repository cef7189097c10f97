package introspect

import (
	"context"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/domain"
)

// SealFor seals an entry in the log of a domain, wherever that goes on by now, in one
// commit with rows. Of a domain that is not here any more it stands in the host log.
func (r *Registry) SealFor(ctx context.Context, id domain.UUID, rows []chain.MetaWrite, draft func() (chain.Entry, error)) error {
	r.observing.Lock() // no shard may end between here and the commit
	defer r.observing.Unlock()
	l := r.store.HostLog()
	if m := r.get(id); m != nil && !m.Ended {
		m, err := r.reopen(ctx, m)
		if err != nil {
			return err
		}
		l = m.log
	}
	e, err := draft()
	if err != nil {
		return err
	}
	_, err = r.store.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{e}, Meta: rows})
	return err
}

// Running returns the domains that have a QEMU process, as far as is known.
func (r *Registry) Running() []domain.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []domain.UUID
	for id, m := range r.machines {
		if !m.Ended && m.State.Active() {
			all = append(all, id)
		}
	}
	return all
}
