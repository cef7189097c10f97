package introspect

import (
	"context"
	"fmt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Note seals findings of the host about a domain in its log, in one commit. Of a
// domain that is not here (any more) nothing is sealed, and false returned.
func (r *Registry) Note(ctx context.Context, id domain.UUID, class record.Class, all []*record.Event) (bool, error) {
	r.observing.Lock() // no shard may end between here and the commit
	defer r.observing.Unlock()
	m := r.get(id)
	if m == nil || m.Ended || len(all) == 0 {
		return false, nil
	}
	m, err := r.reopen(ctx, m)
	if err != nil {
		return false, fmt.Errorf("seal %s: %w", class, err)
	}
	entries := make([]chain.Entry, 0, len(all))
	for _, e := range all {
		if e.Vm != nil {
			e.Vm = &record.VM{Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: -1, LibvirtDetail: -1, Detail: e.Vm.GetDetail()}
		}
		entry, err := r.store.Draft(record.OriginHost, class, e)
		if err != nil {
			return false, fmt.Errorf("seal %s: %w", class, err)
		}
		entries = append(entries, entry)
	}
	if _, err := r.store.Append(ctx, chain.Batch{Log: m.log, Entries: entries}); err != nil {
		return false, fmt.Errorf("seal %s: %w", class, err)
	}
	return true, nil
}
