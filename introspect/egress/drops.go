package egress

import (
	"context"
	"fmt"
	"slices"
	"strings"

	bpfegress "github.com/provostd/provost/bpf/egress"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// sums is what was denied of one domain since sums were sealed last.
type sums struct {
	sealed int // flows sealed singly
	beyond uint64
}

func (s *sums) empty() bool { return s.sealed == 0 && s.beyond == 0 }

// hear seals the first packet of each denied flow.
func (d *Director) hear(ctx context.Context, t told) error {
	switch t.e.Kind {
	case Denied, Audited:
	case answer:
		return d.learn(ctx, t)
	default:
		d.stats.Flows.Add(1)
		d.flows.saw(t.dev, t.e)
		return nil
	}
	e := dropOf(t.dev, &t.e.Flow, t.e.Reason, t.e.Ethertype, t.e.Kind == Audited, 1, uint64(t.e.Length))
	if t.e.Reason == Reason(bpfegress.EgressReasonREASON_LIST) {
		e.Reason += " by " + strings.Join(t.e.Policies, ", ") + " (" + t.e.Prefix.String() + ")"
	}
	if t.e.VLAN[0] != 0 {
		e.Reason += fmt.Sprintf(", VLAN %d", t.e.VLAN[0]&0xfff)
	}
	if !slices.Equal(t.e.Source, t.dev.MAC) && len(t.dev.MAC) > 0 {
		e.Reason += ", from " + t.e.Source.String()
	}
	return d.drop(ctx, t.dev.Domain, e)
}

// drop seals what was denied, as long as the domain's share lasts.
func (d *Director) drop(ctx context.Context, id domain.UUID, e *record.Event) error {
	d.mu.Lock()
	s := d.sums[id]
	if s == nil {
		s = &sums{}
		d.sums[id] = s
	}
	if s.sealed >= dropsEach {
		s.beyond += max(e.Count, 1)
		d.mu.Unlock()
		return nil
	}
	s.sealed++
	d.mu.Unlock()
	d.stats.Drops.Add(1)
	_, err := d.cfg.Seal(ctx, id, record.ClassNetworkDrop, []*record.Event{e})
	return err
}

// dropOf is the entry about a denied flow, as seen from the guest.
func dropOf(dev Device, f *Flow, r Reason, ethertype uint16, audited bool, packets, bytes uint64) *record.Event {
	n := &record.Network{Direction: "egress", Packets: packets, Bytes: bytes}
	switch {
	case f.Family != 0:
		n.Family, n.Protocol, n.Number = uint32(f.Family), protocolName(f.Protocol), uint32(f.Protocol)
		n.SourceIp, n.DestinationIp = f.Local.AsSlice(), f.Remote.AsSlice()
		if f.Protocol != protocolICMP && f.Protocol != protocolICMPv6 {
			n.SourcePort, n.DestinationPort = uint32(f.LocalPort), uint32(f.RemotePort)
		}
	default:
		n.Protocol = fmt.Sprintf("ethertype-%04x", ethertype)
	}
	word := "denied"
	if audited {
		word = "would be denied"
	}
	return &record.Event{Network: n, Count: packets, Reason: word + " on " + dev.Name + ": " + r.String()}
}

// sum seals how often denied flows were tried again since their first packet, what
// was beyond a domain's share, and what the taps could not tell (invariant I4).
func (d *Director) sum(ctx context.Context) error {
	again, err := d.cfg.Guard.refusedAgain()
	if err != nil {
		d.cfg.Log.ErrorContext(ctx, "sums of denied flows are not read", "error", err)
	}
	for _, a := range again {
		if err := d.drop(ctx, a.dev.Domain, a.event); err != nil {
			return err
		}
	}
	d.mu.Lock()
	var ids []domain.UUID
	var beyond []uint64
	for id, s := range d.sums {
		if s.beyond > 0 {
			ids, beyond = append(ids, id), append(beyond, s.beyond)
		}
		*s = sums{}
	}
	d.mu.Unlock()
	for i, id := range ids {
		text := fmt.Sprintf("%d packets more were denied, beyond what is sealed singly", beyond[i])
		if _, err := d.cfg.Seal(ctx, id, record.ClassNetworkDrop, []*record.Event{{Reason: text, Count: beyond[i], Network: &record.Network{Direction: "egress", Packets: beyond[i]}}}); err != nil {
			return err
		}
	}
	for _, f := range d.flows.due() {
		if err := d.undeclared(ctx, &f); err != nil {
			return err
		}
	}
	return d.losses(ctx)
}

// undeclaredEach bounds the undeclared flows of one domain that are sealed singly in
// sumEvery.
const undeclaredEach = 100

// undeclared seals what the agent of a domain did not tell of, and how much could not
// be compared (invariant I4).
func (d *Director) undeclared(ctx context.Context, f *finding) error {
	d.stats.Undeclared.Add(uint64(len(f.undeclared)))
	var all []*record.Event
	for i := range f.undeclared {
		if len(all) == undeclaredEach {
			n := uint64(len(f.undeclared) - i)
			all = append(all, &record.Event{Reason: fmt.Sprintf("%d destinations more were not told by the agent, beyond what is sealed singly", n), Count: n,
				Network: &record.Network{Direction: "egress"}})
			break
		}
		all = append(all, f.undeclared[i].entry())
	}
	if len(all) > 0 {
		if _, err := d.cfg.Seal(ctx, f.id, record.ClassNetworkUndeclared, all); err != nil {
			return err
		}
	}
	if f.uncompared == 0 {
		return nil
	}
	return d.note(ctx, f.id, fmt.Sprintf("%d destinations that taps saw could not be compared with what the agent tells: it was silent or lost events, or there were too many", f.uncompared), "uncompared")
}

// losses seals what was not told: without room in a tap's ring, beyond the rate of a
// tap, or without room on the way from there.
func (d *Director) losses(ctx context.Context) error {
	all, err := d.cfg.Guard.Counters()
	if err != nil {
		d.cfg.Log.ErrorContext(ctx, "counters of taps are not read", "error", err)
		return nil
	}
	if len(all) == 0 {
		return nil // what was missed of taps that are gone is told with the next one
	}
	missed := d.missed.Swap(0)
	for _, c := range all {
		d.mu.Lock()
		was := d.was[c.Device.Index]
		d.was[c.Device.Index] = c
		d.mu.Unlock()
		lost, beyond := c.Lost-min(was.Lost, c.Lost), c.Suppressed-min(was.Suppressed, c.Suppressed)
		if lost+beyond == 0 && missed == 0 {
			continue
		}
		d.stats.Lost.Add(lost + beyond)
		text := fmt.Sprintf("the packet filter on %s could not tell of %d flows and left out %d beyond its rate; of all taps together %d were lost on the way: each was filtered all the same", c.Device.Name, lost, beyond, missed)
		if err := d.note(ctx, c.Device.Domain, text, "lost"); err != nil {
			return err
		}
	}
	d.stats.Lost.Add(missed)
	return nil
}

type refusedAgain struct {
	dev   Device
	event *record.Event
}

// maxRefused is how many sums one tap can hold.
const maxRefused = 2048

// refusedAgain takes the sums of denied flows that were tried more than once out of
// the taps. The packet whose event told of the flow is not counted again; packets
// that come between the look and the removal are counted by the counters only.
func (g *Guard) refusedAgain() ([]refusedAgain, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []refusedAgain
	for _, t := range g.taps {
		m := t.objects.maps[bpfegress.EgressMapRefused]
		var k bpfegress.EgressDenied
		var v bpfegress.EgressCounts
		var taken []bpfegress.EgressDenied
		it := m.Iterate()
		for it.Next(&k, &v) {
			taken = append(taken, k)
			if v.Packets < 2 {
				continue
			}
			f := flowOf(&k.Flow, familyOf(&k))
			e := dropOf(t.dev, &f, Reason(k.Reason), k.Ethertype, k.Audited != 0, v.Packets-1, v.Bytes)
			e.Reason += ", tried again"
			all = append(all, refusedAgain{t.dev, e})
			if len(taken) >= maxRefused {
				break
			}
		}
		if err := it.Err(); err != nil {
			// The table changed too often under the look; what is left follows next time.
			g.cfg.Log.Debug("a look at denied flows was cut short", "device", t.dev.Name, "error", err)
		}
		for _, k := range taken {
			_ = m.Delete(k) // it may have been replaced
		}
	}
	return all, nil
}

func familyOf(k *bpfegress.EgressDenied) uint8 {
	switch k.Ethertype {
	case 0x0800:
		return 4
	case 0x86dd:
		return 6
	}
	return 0
}
