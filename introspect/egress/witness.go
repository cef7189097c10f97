package egress

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// witness compares the flows that taps see with those that the agents in the guests
// tell of. It says of a flow that nobody declared it only if it was begun by the
// guest, is of a kind that agents tell of, and the agent has spoken since without
// telling of a loss, and did so when the flow began: what could not be compared is counted, and taken for no lie.
//
// Left out are flows that others began, ICMP and whatever has no ports, requests for
// addresses (UDP to ports 67 and 547), TCP that does not begin with a SYN, and
// domains whose agent says nothing at all. A destination that the guest's kernel
// rewrites, or another machine behind the guest, looks like a flow nobody declared.
type witness struct {
	now func() time.Time

	mu      sync.Mutex
	domains map[domain.UUID]*claims
}

// claims is what is known of one domain.
type claims struct {
	seen     map[destination]sight
	declared map[destination]time.Time
	spoke    time.Time // when the agent last did
	since    time.Time // when it began to: it saw nothing before
	lost     time.Time // when it or the host last told of a loss
	beyond   uint64    // flows that were not compared
}

type destination struct {
	protocol uint8
	address  netip.Addr
	port     uint16
}

type sight struct {
	at   time.Time
	dev  Device
	flow Flow
}

const (
	// grace is how long an agent has to tell of a flow.
	grace = 30 * time.Second
	// declaredFor is how long what an agent told of a destination counts: a
	// connection may be told, and its first packet seen, in either order, and a
	// table of the tap may forget a flow that goes on.
	declaredFor = 15 * time.Minute
	// maxSeen and maxDeclared bound what is held of one domain.
	maxSeen     = 4096
	maxDeclared = 16384
)

func newWitness(now func() time.Time) *witness {
	return &witness{now: now, domains: map[domain.UUID]*claims{}}
}

func (w *witness) of(id domain.UUID) *claims {
	c := w.domains[id]
	if c == nil {
		c = &claims{seen: map[destination]sight{}, declared: map[destination]time.Time{}}
		w.domains[id] = c
	}
	return c
}

// saw takes a flow that a tap told of.
func (w *witness) saw(dev Device, e *Event) {
	const syn, ack = 2, 16
	f := e.Flow
	switch {
	case e.Kind != Out || f.Family == 0:
		return
	case f.Protocol == protocolTCP && e.TCPFlags&(syn|ack) != syn:
		return
	case f.Protocol == protocolUDP && (f.RemotePort == 67 || f.RemotePort == 547):
		return
	case f.Protocol != protocolTCP && f.Protocol != protocolUDP:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.of(dev.Domain)
	d := destination{f.Protocol, f.Remote, f.RemotePort}
	if _, ok := c.seen[d]; ok {
		return
	}
	if len(c.seen) >= maxSeen {
		c.beyond++
		return
	}
	c.seen[d] = sight{w.now(), dev, f}
}

// heard takes an entry of a domain's log.
func (w *witness) heard(id domain.UUID, class record.Class, origin record.Origin, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	c := w.of(id)
	switch class {
	case record.ClassAgentDropped, record.ClassAgentSequenceGap, record.ClassAgentHeartbeatLost, record.ClassAgentAbsent, record.ClassAgentThrottled, record.ClassAgentAggregating:
		c.lost = now
	}
	if origin != record.OriginGuest {
		return
	}
	if c.spoke.IsZero() || class == record.ClassAgentHooks { // which an agent says first
		c.since = now
	}
	c.spoke = now
	switch class {
	case record.ClassNetworkConnect, record.ClassNetworkSend, record.ClassNetworkFlow:
	default:
		return
	}
	var e record.Event
	if e.UnmarshalVT(payload) != nil || e.Network == nil {
		c.lost = now // what cannot be read might have been it
		return
	}
	d, ok := declaredBy(e.Network)
	if !ok {
		return
	}
	if len(c.declared) >= maxDeclared {
		clear(c.declared)
		c.lost = now // what is forgotten must not turn into an accusation
	}
	c.declared[d] = now
}

// declaredBy is the destination that an agent tells of.
func declaredBy(n *record.Network) (destination, bool) {
	a, ok := netip.AddrFromSlice(n.DestinationIp)
	if !ok {
		return destination{}, false
	}
	p := map[string]uint8{"tcp": protocolTCP, "udp": protocolUDP}[n.Protocol]
	return destination{p, a.Unmap(), uint16(n.DestinationPort)}, p != 0
}

// finding is what nobody declared in one domain, and how many flows were not compared.
type finding struct {
	id         domain.UUID
	undeclared []sight
	uncompared uint64
}

// due decides what the agents had time to tell of.
func (w *witness) due() []finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	var all []finding
	for id, c := range w.domains {
		f := finding{id: id, uncompared: c.beyond}
		c.beyond = 0
		for d, s := range c.seen {
			if now.Sub(s.at) < grace {
				continue
			}
			// An agent that is behind has as long again; one that is silent is told
			// of elsewhere.
			if _, ok := c.declared[d]; !ok && c.spoke.Sub(s.at) < grace/2 && now.Sub(s.at) < 4*grace {
				continue
			}
			delete(c.seen, d)
			switch _, ok := c.declared[d]; {
			case ok:
			case s.at.Before(c.since) || c.lost.Add(grace).After(s.at) || c.spoke.Sub(s.at) < grace/2:
				f.uncompared++
			default:
				f.undeclared = append(f.undeclared, s)
			}
		}
		for d, at := range c.declared {
			if now.Sub(at) > declaredFor {
				delete(c.declared, d)
			}
		}
		if len(f.undeclared) > 0 || f.uncompared > 0 && !c.spoke.IsZero() {
			all = append(all, f)
		}
		if len(c.seen)+len(c.declared) == 0 && now.Sub(c.spoke) > declaredFor {
			delete(w.domains, id)
		}
	}
	return all
}

// entry is the finding about one flow.
func (s *sight) entry() *record.Event {
	e := dropOf(s.dev, &s.flow, 0, 0, false, 0, 0)
	e.Reason = fmt.Sprintf("seen on %s, and not told by the agent within %s", s.dev.Name, grace)
	return e
}
