package egress

import (
	"net/netip"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

func payload(t *testing.T, protocol string, to netip.Addr, port uint32) []byte {
	t.Helper()
	b, err := record.Encode(&record.Event{Network: &record.Network{Family: 4, Protocol: protocol, DestinationIp: to.AsSlice(), DestinationPort: port}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWitness: a flow is undeclared only if the agent could have told of it and did
// not.
func TestWitness(t *testing.T) {
	const syn = 2
	dev := Device{Domain: vm, Name: "vnet0"}
	flow := func(protocol uint8, port uint16) Flow {
		return Flow{Family: 4, Protocol: protocol, Local: guest4, Remote: denied4, RemotePort: port}
	}
	tcp := Event{Kind: Out, TCPFlags: syn, Flow: flow(protocolTCP, 80)}
	type step func(*witness)
	saw := func(e Event) step { return func(w *witness) { w.saw(dev, &e) } }
	says := func(c record.Class, o record.Origin, b []byte) step {
		return func(w *witness) { w.heard(vm, c, o, b) }
	}
	alive := says(record.ClassProcessExec, record.OriginGuest, nil)
	var now time.Time
	after := func(d time.Duration) step { return func(*witness) { now = now.Add(d) } }
	for name, c := range map[string]struct {
		steps                  []step
		undeclared, uncompared int
	}{
		"told":               {[]step{saw(tcp), says(record.ClassNetworkConnect, record.OriginGuest, payload(t, "tcp", denied4, 80)), after(grace), alive}, 0, 0},
		"told before":        {[]step{says(record.ClassNetworkConnect, record.OriginGuest, payload(t, "tcp", denied4, 80)), after(time.Minute), saw(tcp), after(grace), alive}, 0, 0},
		"not told":           {[]step{alive, saw(tcp), after(grace), alive}, 1, 0},
		"in time yet":        {[]step{saw(tcp), after(grace - 1), alive}, 0, 0},
		"another port":       {[]step{saw(tcp), says(record.ClassNetworkConnect, record.OriginGuest, payload(t, "tcp", denied4, 81)), after(grace), alive}, 1, 0},
		"another protocol":   {[]step{saw(tcp), says(record.ClassNetworkSend, record.OriginGuest, payload(t, "udp", denied4, 80)), after(grace), alive}, 1, 0},
		"another address":    {[]step{saw(tcp), says(record.ClassNetworkConnect, record.OriginGuest, payload(t, "tcp", allowed4, 80)), after(grace), alive}, 1, 0},
		"said by the host":   {[]step{alive, saw(tcp), says(record.ClassNetworkConnect, record.OriginHost, payload(t, "tcp", denied4, 80)), after(grace), alive}, 1, 0},
		"lost by the agent":  {[]step{saw(tcp), after(time.Second), says(record.ClassAgentDropped, record.OriginGuest, nil), after(grace), alive}, 0, 1},
		"lost by the host":   {[]step{saw(tcp), after(time.Second), says(record.ClassAgentSequenceGap, record.OriginHost, nil), after(grace), alive}, 0, 1},
		"unreadable":         {[]step{saw(tcp), says(record.ClassNetworkConnect, record.OriginGuest, []byte{255}), after(grace), alive}, 0, 1},
		"no agent":           {[]step{saw(tcp), after(4 * grace)}, 0, 0},
		"silent since":       {[]step{alive, after(time.Second), saw(tcp), after(grace)}, 0, 0},
		"silent for long":    {[]step{alive, after(time.Second), saw(tcp), after(4 * grace)}, 0, 1},
		"datagram":           {[]step{alive, saw(Event{Kind: Out, Flow: flow(protocolUDP, 53)}), after(grace), alive}, 1, 0},
		"before the agent":   {[]step{saw(tcp), after(time.Second), alive, after(grace), alive}, 0, 1},
		"before it restarts": {[]step{alive, after(time.Second), saw(tcp), after(time.Second), says(record.ClassAgentHooks, record.OriginGuest, nil), after(grace), alive}, 0, 1},
		"DHCP":               {[]step{saw(Event{Kind: Out, Flow: flow(protocolUDP, 67)}), after(grace), alive}, 0, 0},
		"echo":               {[]step{saw(Event{Kind: Out, Flow: flow(protocolICMP, 8)}), after(grace), alive}, 0, 0},
		"reset":              {[]step{saw(Event{Kind: Out, TCPFlags: 4, Flow: flow(protocolTCP, 80)}), after(grace), alive}, 0, 0},
		"begun elsewhere":    {[]step{saw(Event{Kind: In, TCPFlags: syn, Flow: flow(protocolTCP, 80)}), after(grace), alive}, 0, 0},
	} {
		now = time.Unix(1_700_000_000, 0)
		w := newWitness(func() time.Time { return now })
		for _, s := range c.steps {
			s(w)
		}
		var undeclared, uncompared int
		for _, f := range w.due() {
			undeclared, uncompared = undeclared+len(f.undeclared), uncompared+int(f.uncompared)
		}
		if undeclared != c.undeclared || uncompared != c.uncompared {
			t.Errorf("%s: %d undeclared and %d not compared, want %d and %d", name, undeclared, uncompared, c.undeclared, c.uncompared)
		}
	}
}

// TestWitnessBounds: a guest with very many flows costs bounded memory, and what is
// beyond is counted.
func TestWitnessBounds(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	w := newWitness(func() time.Time { return now })
	for i := range maxSeen + 5 {
		w.saw(Device{Domain: vm}, &Event{Kind: Out, Flow: Flow{Family: 4, Protocol: protocolUDP, Remote: netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}), RemotePort: 9}})
	}
	for i := range maxDeclared + 5 {
		w.heard(vm, record.ClassNetworkSend, record.OriginGuest, payload(t, "udp", netip.AddrFrom4([4]byte{9, 2, byte(i >> 8), byte(i)}), 9))
	}
	c := w.of(vm)
	if len(c.seen) != maxSeen || len(c.declared) > maxDeclared || c.beyond != 5 {
		t.Errorf("holds %d and %d, %d beyond", len(c.seen), len(c.declared), c.beyond)
	}
	now = now.Add(grace)
	w.heard(vm, record.ClassProcessExec, record.OriginGuest, nil)
	for _, f := range w.due() {
		if len(f.undeclared) != 0 || f.uncompared != maxSeen+5 {
			t.Errorf("%d undeclared, %d not compared behind a table that was cleared", len(f.undeclared), f.uncompared)
		}
	}
}
