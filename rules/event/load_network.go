package event

import (
	"net/netip"
	"strconv"

	"github.com/provostd/provost/chain/record"
)

func (e *Event) loadNetwork(p *record.Network) {
	e.SetString(NetworkProtocol, p.Protocol)
	e.SetString(NetworkDirection, p.Direction)
	e.SetString(SocketType, p.Type)
	e.nonzero(NetworkNumber, uint64(p.Number))
	e.bytes(NetworkPath, p.Path)
	e.bytes(DestinationDomain, p.Name)
	e.nonzero(NetworkPackets, p.Packets)
	e.nonzero(NetworkBytes, p.Bytes)
	e.nonzero(NetworkBacklog, uint64(p.Backlog))
	e.nonzero(NetworkCookie, p.Cookie)
	if f := p.Flags; f != 0 {
		e.SetBool(NetworkFastOpen, f&record.NetworkFastOpen != 0)
		e.SetBool(NetworkFirst, f&record.NetworkFirst != 0)
	}
	switch p.Family {
	case 4:
		e.SetString(NetworkType, "ipv4")
	case 6:
		e.SetString(NetworkType, "ipv6")
	default:
		e.loadContexts(p)
		return
	}
	e.SetString(NetworkTransport, p.Protocol)
	if a, ok := netip.AddrFromSlice(p.SourceIp); ok {
		e.SetAddr(SourceIP, a)
		e.SetNumber(SourcePort, uint64(p.SourcePort))
	}
	if a, ok := netip.AddrFromSlice(p.DestinationIp); ok {
		e.SetAddr(DestinationIP, a)
		e.SetNumber(DestinationPort, uint64(p.DestinationPort))
	}
}

// loadContexts tells the ends of a vsock connection. Context 0 is the
// hypervisor's, so that 0 says something here.
func (e *Event) loadContexts(p *record.Network) {
	if p.Protocol != "vsock" && p.SourceCid == 0 && p.DestinationCid == 0 {
		return
	}
	e.SetNumber(SourceCID, uint64(p.SourceCid))
	e.SetNumber(DestinationCID, uint64(p.DestinationCid))
	e.SetNumber(SourcePort, uint64(p.SourcePort))
	e.SetNumber(DestinationPort, uint64(p.DestinationPort))
}

// maxAnswers bounds the lists of an answer of DNS, so that no guest can make
// one event cost much more than another (I8).
const maxAnswers = 64

func (e *Event) loadDNS(class record.Class, d *record.DNS) {
	e.bytes(DNSQuestionName, d.Question)
	e.SetString(DNSQuestionType, numbered(dnsTypes, "TYPE", d.Type))
	e.SetNumber(DNSID, uint64(d.Id))
	if class != record.ClassDNSAnswer {
		return
	}
	e.SetBool(DNSTruncated, d.Truncated)
	e.SetString(DNSResponseCode, numbered(dnsCodes, "RCODE", d.Code))
	e.texted(DNSAliases, d.Names[:min(len(d.Names), maxAnswers)])
	from := len(e.texts)
	for _, b := range d.Addresses[:min(len(d.Addresses), maxAnswers)] {
		if a, ok := netip.AddrFromSlice(b); ok {
			e.texts = append(e.texts, a.Unmap().String())
		}
	}
	if len(e.texts) > from {
		e.SetStrings(DNSResolvedIP, e.texts[from:len(e.texts):len(e.texts)])
	}
}

// The registered names of kinds of records and of answers that people meet.
var (
	dnsTypes = map[uint32]string{
		1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
		43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA",
	}
	dnsCodes = map[uint32]string{
		0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET",
		8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE",
	}
)

func numbered(names map[uint32]string, prefix string, n uint32) string {
	if s, ok := names[n]; ok {
		return s
	}
	return prefix + strconv.FormatUint(uint64(n), 10)
}
