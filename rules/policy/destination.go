package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Destination is an entry of a prevent block: who may be reached, or not, and on which
// port.
type Destination struct {
	Prefix   netip.Prefix
	Port     uint16 // 0: every one, and protocols that have none
	Protocol string // of Port: tcp, udp, or "" for both
}

// ParseDestination reads an address or a prefix, with or without a port behind it:
// 192.0.2.0/24, 2001:db8::1, 192.0.2.7:443, [2001:db8::/32]:53/udp.
func ParseDestination(s string) (Destination, error) {
	if p, err := parsePrefix(s); err == nil {
		return Destination{Prefix: p}, nil
	} else if strings.Count(s, ":") != 1 && !strings.HasPrefix(s, "[") {
		return Destination{}, err // without a port
	}
	address, rest, _ := cutLast(s, ":")
	if strings.HasPrefix(address, "[") {
		inner, ok := strings.CutSuffix(address[1:], "]")
		if !ok || !strings.Contains(inner, ":") {
			return Destination{}, fmt.Errorf("want a port behind the brackets of an IPv6 address, such as [2001:db8::1]:443")
		}
		address = inner
	}
	p, err := parsePrefix(address)
	if err != nil {
		return Destination{}, err
	}
	port, protocol, named := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return Destination{}, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	if named && protocol != "tcp" && protocol != "udp" {
		return Destination{}, fmt.Errorf("%q is none of tcp, udp; without it, both are meant", protocol)
	}
	return Destination{Prefix: p, Port: uint16(n), Protocol: protocol}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
