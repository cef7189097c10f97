package egress

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/introspect/domain"
)

// NameEntry is a destination by its name in DNS: the addresses that a resolver has
// answered the guest with, for as long as it said.
type NameEntry struct {
	Name     string
	Port     uint16
	Protocol uint8
}

const (
	// minTTL is how long an address counts at least: programs connect a while after
	// they asked. maxTTL bounds what a resolver may say.
	minTTL = time.Minute
	maxTTL = 24 * time.Hour
	// maxAddresses bounds the addresses that are remembered of one name.
	maxAddresses = 256
)

// resolved is what resolvers have answered one domain, by name and address.
type resolved map[string]map[netip.Addr]until

type until struct {
	boot uint64    // for the kernel
	wall time.Time // for this process
}

// named returns a domain's policies with the addresses that their names have now.
// The caller holds d.mu.
func (d *Director) named(id domain.UUID, policies []Policy) []Policy {
	out := slices.Clone(policies)
	now := d.cfg.Now()
	for i := range out {
		for _, n := range out[i].Names {
			for a, u := range d.resolved[id][n.Name] {
				if now.Before(u.wall) {
					out[i].Allow = append(slices.Clip(out[i].Allow), Entry{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: n.Port, Protocol: n.Protocol, Expires: u.boot})
				}
			}
		}
		slices.SortFunc(out[i].Allow, func(a, b Entry) int { return strings.Compare(a.text(), b.text()) })
	}
	return out
}

// learn takes an answer that a resolver gave a guest. Only the names that policies
// about this domain have are remembered.
func (d *Director) learn(ctx context.Context, t told) error {
	a, err := parseAnswer(t.e.dns)
	if err != nil {
		d.cfg.Log.DebugContext(ctx, "an answer of a resolver is not understood", "uuid", t.dev.Domain.String(), "error", err)
		return nil
	}
	id := t.dev.Domain
	d.mu.Lock()
	g := d.guarded[id]
	wanted := g != nil && len(a.addresses) > 0 && slices.ContainsFunc(g.Policies, func(p Policy) bool {
		return slices.ContainsFunc(p.Names, func(n NameEntry) bool { return n.Name == a.name })
	})
	if wanted {
		d.remember(id, a, t.e.Time)
	}
	d.mu.Unlock()
	if !wanted {
		return nil
	}
	return d.settle(ctx, id, d.Ensure(ctx, g))
}

// remember keeps the addresses of a name. The caller holds mu.
func (d *Director) remember(id domain.UUID, a *answered, boot uint64) {
	ttl := min(max(time.Duration(a.ttl)*time.Second, minTTL), maxTTL)
	now := d.cfg.Now()
	if d.resolved[id] == nil {
		d.resolved[id] = resolved{}
	}
	of := d.resolved[id][a.name]
	if of == nil {
		of = map[netip.Addr]until{}
		d.resolved[id][a.name] = of
	}
	for addr, u := range of {
		if !now.Before(u.wall) {
			delete(of, addr)
		}
	}
	for _, addr := range a.addresses {
		if _, ok := of[addr]; !ok && len(of) >= maxAddresses {
			continue // it is denied until others have expired
		}
		of[addr] = until{boot + uint64(ttl), now.Add(ttl)}
	}
}
