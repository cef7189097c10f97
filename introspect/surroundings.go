package introspect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/virt"
)

// coverageKey holds the digest of what was last said to be listened to.
const coverageKey = "libvirt/coverage"

// observeHost seals an event of what domains use, in the host log and in the log
// of each domain that uses it.
func (r *Registry) observeHost(ctx context.Context, o *virt.Observation) error {
	class, err := record.ParseClass(o.Type)
	if err != nil {
		return err
	}
	e, err := r.store.Draft(record.OriginHost, class, hostEvent(o))
	if err != nil {
		return err
	}
	batches := []chain.Batch{{Log: r.store.HostLog(), Entries: []chain.Entry{e}}}
	for _, m := range r.users(ctx, o.Hypervisor) {
		if m, err = r.reopen(ctx, m); err != nil {
			return err
		}
		v := hostEvent(o)
		v.Vm.Uuid, v.Vm.Name, v.Vm.State = m.UUID.String(), m.Name, m.State.String()
		if e, err = r.store.Draft(record.OriginHost, record.ClassVMEnvironment, v); err != nil {
			return err
		}
		batches = append(batches, chain.Batch{Log: m.log, Entries: []chain.Entry{e}})
	}
	_, err = r.store.AppendAll(ctx, batches)
	return err
}

// users returns the domains whose configuration names what an event is about.
func (r *Registry) users(ctx context.Context, h *record.Hypervisor) []*machine {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.machines))
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *machine) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
	return slices.DeleteFunc(all, func(m *machine) bool {
		if m.Ended {
			return true
		}
		f := r.knownFacts(ctx, m.UUID)
		return f == nil || !f.Uses(h.Word, h.Device)
	})
}

func hostEvent(o *virt.Observation) *record.Event {
	return &record.Event{Reason: o.Word, Vm: &record.VM{LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: -1, Detail: o.Reason,
		Source: string(o.Kind), Arrived: o.Time.UnixNano(), Hypervisor: o.Hypervisor}}
}

// homeless seals in the host log what is said of a domain that has no log open:
// the end of a job, say, of a domain that has left. It begins no incarnation.
func (r *Registry) homeless(ctx context.Context, o *virt.Observation) error {
	class, err := record.ParseClass(o.Type)
	if err != nil {
		class = record.ClassVMChange
	}
	v := hostEvent(o)
	v.Vm.Uuid, v.Vm.Name = o.Domain.UUID.String(), o.Domain.Name
	e, err := r.store.Draft(record.OriginHost, class, v)
	if err != nil {
		return err
	}
	_, err = r.store.Append(ctx, chain.Batch{Log: r.store.HostLog(), Entries: []chain.Entry{e}})
	return err
}

// covered seals which events libvirt lets us hear, where that is not what was
// sealed last.
func (r *Registry) covered(ctx context.Context, o *virt.Observation) error {
	c := o.Coverage
	if c == nil {
		return nil
	}
	h := &record.Hypervisor{Word: "coverage", Path: c.URI, NewValue: c.LibvirtVersion, Status: "complete"}
	for _, name := range slices.Sorted(slices.Values(c.Events)) {
		h.Numbers = append(h.Numbers, "heard="+name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Missing)) {
		h.Status = "partial"
		h.Numbers = append(h.Numbers, "missing="+name+": "+c.Missing[name])
	}
	// What libvirt cannot be asked to tell is found by sweeps.
	h.Numbers = append(h.Numbers, "missing=tunable: never asked for")
	sum := sha256.Sum256([]byte(strings.Join(append(h.Numbers, h.Path, h.NewValue), "\n")))
	last, ok, err := r.store.Meta(coverageKey)
	if err != nil {
		return fmt.Errorf("read the coverage sealed last: %w", err)
	}
	if ok && bytes.Equal(last, sum[:]) {
		return nil
	}
	e, err := r.store.Draft(record.OriginHost, record.ClassHostCoverage, hostEvent(&virt.Observation{
		Kind: o.Kind, Word: h.Word, Reason: h.Status, Time: o.Time, Hypervisor: h}))
	if err != nil {
		return err
	}
	b := chain.Batch{Log: r.store.HostLog(), Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: coverageKey, Value: sum[:]}}}
	if _, err := r.store.Append(ctx, b); err != nil {
		return fmt.Errorf("seal the coverage of libvirt's events: %w", err)
	}
	return nil
}
