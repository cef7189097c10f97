package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var networkKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_CONNECT: {record.ClassNetworkConnect, (*decoder).connect},
}

func (d *decoder) connect(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventNet](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	n := &record.Network{Protocol: "tcp", SourcePort: x.Sport, DestinationPort: x.Dport, Direction: "egress"}
	switch {
	case x.Family == unix.AF_INET:
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[:4], x.Daddr[:4]
	case mapped(x.Daddr):
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[12:], x.Daddr[12:]
	default:
		n.Family, n.SourceIp, n.DestinationIp = 6, x.Saddr[:], x.Daddr[:]
	}
	e.Network = n
	return e, nil
}

// mapped reports whether a is an IPv4 address in IPv6's clothes.
func mapped(a [16]uint8) bool {
	return [12]uint8(a[:12]) == [12]uint8{10: 0xff, 11: 0xff}
}
