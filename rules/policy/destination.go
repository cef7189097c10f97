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
	Name     string // in DNS, in lower case; Prefix is then zero
	Port     uint16 // 0: every one, and protocols that have none
	Protocol string // of Port: tcp, udp, or "" for both
}

// ParseDestination reads an address, a prefix or a name, with or without a port behind
// it: 192.0.2.0/24, 2001:db8::1, 192.0.2.7:443, [2001:db8::/32]:53/udp, api.example.net:443.
func ParseDestination(s string) (Destination, error) {
	if p, err := parsePrefix(s); err == nil {
		return Destination{Prefix: p}, nil
	} else if strings.Count(s, ":") != 1 && !strings.HasPrefix(s, "[") { // without a port
		if name, ok := hostName(s); ok {
			return Destination{Name: name}, nil
		}
		return Destination{}, err
	}
	address, rest, _ := cutLast(s, ":")
	if strings.HasPrefix(address, "[") {
		inner, ok := strings.CutSuffix(address[1:], "]")
		if !ok || !strings.Contains(inner, ":") {
			return Destination{}, fmt.Errorf("want a port behind the brackets of an IPv6 address, such as [2001:db8::1]:443")
		}
		address = inner
	}
	name, named := hostName(address)
	p, err := parsePrefix(address)
	if err != nil && !named {
		return Destination{}, err
	}
	port, protocol, told := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return Destination{}, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	if told && protocol != "tcp" && protocol != "udp" {
		return Destination{}, fmt.Errorf("%q is none of tcp, udp; without it, both are meant", protocol)
	}
	return Destination{Prefix: p, Name: name, Port: uint16(n), Protocol: protocol}, nil
}

// hostName reports whether s is a name that DNS may have: at least two labels, the
// last one with a letter, so that no misspelt address is one.
func hostName(s string) (string, bool) {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return "", false
	}
	for i, l := range labels {
		letter := false
		for _, c := range l {
			switch {
			case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
				letter = true
			case '0' <= c && c <= '9' || c == '-' || c == '_':
			default:
				return "", false
			}
		}
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || i == len(labels)-1 && !letter {
			return "", false
		}
	}
	return strings.ToLower(s), true
}

// ByName reports whether a destination of the block is a name.
func (p *Prevent) ByName() bool {
	for _, s := range p.Allow {
		if d, err := ParseDestination(s); err == nil && d.Name != "" {
			return true
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
