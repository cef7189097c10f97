package egress

import (
	bpfegress "github.com/provostd/provost/bpf/egress"
)

// Counters are what a tap has counted since it is guarded.
type Counters struct {
	Device                                        Device
	OutPackets, OutBytes, InPackets, InBytes      uint64
	Lost, Suppressed, Audited, CutIn, LongAnswers uint64
	Denied                                        map[Reason]uint64
}

// Counters returns those of every guarded tap.
func (g *Guard) Counters() ([]Counters, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Counters
	for _, t := range g.taps {
		n, err := t.counters()
		if err != nil {
			return nil, err
		}
		c := Counters{
			Device:     t.dev,
			OutPackets: n[bpfegress.EgressCounterCOUNT_OUT_PACKETS], OutBytes: n[bpfegress.EgressCounterCOUNT_OUT_BYTES],
			InPackets: n[bpfegress.EgressCounterCOUNT_IN_PACKETS], InBytes: n[bpfegress.EgressCounterCOUNT_IN_BYTES],
			Lost: n[bpfegress.EgressCounterCOUNT_LOST], Suppressed: n[bpfegress.EgressCounterCOUNT_SUPPRESSED],
			Audited: n[bpfegress.EgressCounterCOUNT_AUDITED], CutIn: n[bpfegress.EgressCounterCOUNT_CUT_IN],
			LongAnswers: n[bpfegress.EgressCounterCOUNT_DNS_LONG], Denied: map[Reason]uint64{},
		}
		for r := range reasons {
			c.Denied[Reason(r)] = n[int(bpfegress.EgressCounterCOUNT_DENIED)+r]
		}
		all = append(all, c)
	}
	return all, nil
}
