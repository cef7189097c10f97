package introspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Activated is a domain whose log says which policies judge it.
type Activated struct {
	UUID   domain.UUID
	Name   string
	Log    *chain.Log
	Policy *record.BundleActivation
	Entry  uint64 // of the activation, where Sealed
	Sealed bool   // now; else it said so before
}

// Activate seals in the log of every domain which policies judge it from there on,
// where that has changed. A crash amid it leaves some logs as they were: what the
// next start sees of their domains seals the policies of then.
func (r *Registry) Activate(ctx context.Context) ([]Activated, error) {
	if r.cfg.Activation == nil {
		return nil, nil
	}
	r.observing.Lock()
	defer r.observing.Unlock()
	r.mu.Lock()
	all := make([]*machine, 0, len(r.machines))
	for _, m := range r.machines {
		if !m.Ended {
			all = append(all, m)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.UUID[:], b.UUID[:]))
	})
	out := make([]Activated, 0, len(all))
	for _, m := range all {
		one, err := r.activateOne(ctx, m)
		if err != nil {
			return out, fmt.Errorf("activate policies for domain %s: %w", m.Name, err)
		}
		out = append(out, *one)
	}
	return out, nil
}

// activateOne seals the policies in the log of one domain. The caller holds
// observing.
func (r *Registry) activateOne(ctx context.Context, known *machine) (*Activated, error) {
	known, err := r.reopen(ctx, known)
	if err != nil {
		return nil, err
	}
	m := *known
	entries, err := r.activate(&m)
	if err != nil {
		return nil, err
	}
	one := &Activated{UUID: m.UUID, Name: m.Name, Log: m.log, Policy: r.cfg.Activation(m.UUID.String())}
	if len(entries) == 0 {
		return one, nil
	}
	row, err := m.write()
	if err != nil {
		return nil, err
	}
	sealed, err := r.store.Append(ctx, chain.Batch{Log: m.log, Entries: entries, Meta: []chain.MetaWrite{row}})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.machines[m.UUID] = &m
	r.mu.Unlock()
	one.Entry, one.Sealed = sealed.First, true
	return one, nil
}
