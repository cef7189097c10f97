package policy

import (
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/provostd/provost/rules/event"
)

// The functions of the language on plain values. Closures and the cty twins
// both call these, so that only the plumbing around them can differ.

func lower(s string) string     { return recase(s, strings.ToLower) }
func upper(s string) string     { return recase(s, strings.ToUpper) }
func trimSpace(s string) string { return strings.TrimSpace(s) }

// recase keeps bytes that are not UTF-8, which the standard functions would
// replace and so make different file names equal.
func recase(s string, f func(string) string) string {
	if utf8.ValidString(s) {
		return event.Normalize(f(s))
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			b.WriteByte(s[0])
		} else {
			b.WriteString(f(s[:n]))
		}
		s = s[n:]
	}
	return event.Normalize(b.String())
}

// under reports whether name is dir or lies below it, component by component.
// Names that are not in canonical form are made so first: "/tmp/../etc/x" is
// under "/etc".
func under(name, dir string) bool {
	name, dir = canonical(name), canonical(dir)
	if name == "" || dir == "" {
		return false
	}
	if !strings.HasPrefix(name, dir) {
		return false
	}
	return len(name) == len(dir) || dir[len(dir)-1] == '/' || name[len(dir)] == '/'
}

// canonical is path.Clean without its work and its "." for clean names.
func canonical(p string) string {
	for i := 0; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		rest := p[i+1:]
		if rest == "" && i > 0 || strings.HasPrefix(rest, "/") || rest == "." || rest == ".." ||
			strings.HasPrefix(rest, "./") || strings.HasPrefix(rest, "../") {
			return path.Clean(p)
		}
	}
	return p
}

func baseName(p string) string { return path.Base(p) }
func dirName(p string) string  { return path.Dir(p) }

// runeCount counts characters; a byte that is not UTF-8 counts as one.
func runeCount(s string) uint64 { return uint64(utf8.RuneCountInString(s)) }

// entropy is the Shannon entropy of the bytes of s in bits for each byte.
func entropy(s string) float64 {
	if s == "" {
		return 0
	}
	var counts [256]int
	for i := 0; i < len(s); i++ {
		counts[s[i]]++
	}
	var h float64
	n := float64(len(s))
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / n
			h -= p * math.Log2(p)
		}
	}
	return h
}

var privateTexts = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
	"100.64.0.0/10", "fc00::/7", "fe80::/10", "::1/128"}

var privatePrefixes = mustRanges(privateTexts...)

// Internal are the addresses for which is_external does not hold, for filters of
// packets that look for prefixes.
func Internal() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range append([]string{"224.0.0.0/4", "ff00::/8", "0.0.0.0/32", "::/128", "255.255.255.255/32"}, privateTexts...) {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// isPrivate: RFC 1918, loopback, link-local, shared (RFC 6598) and unique
// local addresses.
func isPrivate(a netip.Addr) bool { return a.IsValid() && privatePrefixes.has(a) }

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// isExternal: neither private nor multicast, unspecified or broadcast.
func isExternal(a netip.Addr) bool {
	return a.IsValid() && !isPrivate(a) && !a.IsMulticast() && !a.IsUnspecified() && a != broadcast
}

// ranges is a set of addresses: sorted ranges that do not overlap.
type ranges []addrRange

type addrRange struct{ from, to netip.Addr }

func (r ranges) has(a netip.Addr) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].to.Compare(a) >= 0 })
	return i < len(r) && r[i].from.Compare(a) <= 0
}

// parsePrefix reads a CIDR prefix or a single address. Host bits must be zero
// and IPv4 must be written as IPv4, so that a list says what it means.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("write it without a zone and IPv4 as IPv4, such as %s", a.Unmap().WithZone(""))
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("want an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32")
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("write IPv4 prefixes as IPv4")
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("bits after the prefix are set; write %s", p.Masked())
	}
	return p, nil
}

func mustRanges(prefixes ...string) ranges {
	r, err := makeRanges(prefixes)
	if err != nil {
		panic(err) // constants of this file
	}
	return r
}

func makeRanges(prefixes []string) (ranges, error) {
	all := make(ranges, 0, len(prefixes))
	for _, s := range prefixes {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("parse prefix %q: %w", s, err)
		}
		all = append(all, addrRange{p.Addr(), lastAddr(p)})
	}
	slices.SortFunc(all, func(a, b addrRange) int { return a.from.Compare(b.from) })
	merged := all[:0]
	for _, r := range all {
		if n := len(merged); n > 0 && merged[n-1].to.Compare(r.from) >= 0 {
			if merged[n-1].to.Compare(r.to) < 0 {
				merged[n-1].to = r.to
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged, nil
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Glob is a compiled wildcard pattern: "*" is any run of characters, slashes
// included, "?" any one character, "[a-z]" and "[!a-z]" sets, "\" takes the
// next character literally. Matching takes time linear in the text.
type Glob struct {
	pattern string
	re      *regexp.Regexp
}

// ParseGlob compiles a pattern.
func ParseGlob(pattern string) (*Glob, error) { return parseGlob(pattern, false) }

func parseGlob(pattern string, fold bool) (*Glob, error) {
	var b strings.Builder
	b.WriteString(`(?s`)
	if fold {
		b.WriteByte('i')
	}
	b.WriteString(`)\A`)
	for i := 0; i < len(pattern); {
		r, n := utf8.DecodeRuneInString(pattern[i:])
		if r == utf8.RuneError && n == 1 {
			return nil, fmt.Errorf("the pattern is not UTF-8")
		}
		switch r {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		case '[':
			set, used, err := globSet(pattern[i:])
			if err != nil {
				return nil, err
			}
			b.WriteString(set)
			n = used
		case '\\':
			i += n
			if i >= len(pattern) {
				return nil, fmt.Errorf(`the pattern ends in "\"`)
			}
			r, n = utf8.DecodeRuneInString(pattern[i:])
			b.WriteString(regexp.QuoteMeta(string(r)))
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
		i += n
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("compile pattern: %w", err)
	}
	return &Glob{pattern, re}, nil
}

// globSet translates the set at the start of p and returns how many bytes of p
// it takes.
func globSet(p string) (string, int, error) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(p) && p[i] == '!' {
		b.WriteByte('^')
		i++
	}
	for first := true; i < len(p); first = false {
		r, n := utf8.DecodeRuneInString(p[i:])
		if r == ']' && !first {
			b.WriteByte(']')
			return b.String(), i + n, nil
		}
		switch r {
		case '-':
			b.WriteByte('-')
		case '\\', '[', ']', '^', '&', '~':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return "", 0, fmt.Errorf(`"[" has no closing "]"`)
}

// Match reports whether the whole of s fits the pattern.
func (g *Glob) Match(s string) bool { return g.re.MatchString(s) }

// String returns the pattern.
func (g *Glob) String() string { return g.pattern }

// wholeUint returns f where it is a whole number from 0 to 2^64-1. (The
// accuracy that big.Float.Uint64 returns calls 2.5 exact.)
func wholeUint(f *big.Float) (uint64, bool) {
	if f.Sign() < 0 || !f.IsInt() {
		return 0, false
	}
	i, _ := f.Int(nil)
	return i.Uint64(), i.IsUint64()
}

// portRange is a range of ports, both ends included.
type portRange struct{ from, to uint64 }

func inPorts(set []portRange, port uint64) bool {
	for _, r := range set {
		if r.from <= port && port <= r.to {
			return true
		}
	}
	return false
}

// parsePort reads "443" or "8000-8999".
func parsePort(s string) (portRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	var r portRange
	for _, p := range []struct {
		text string
		into *uint64
	}{{from, &r.from}, {to, &r.to}} {
		n, ok := new(big.Int).SetString(p.text, 10)
		if !ok || n.Sign() < 0 || n.Cmp(big.NewInt(65535)) > 0 {
			return portRange{}, fmt.Errorf("want a port 0-65535 or a range such as 8000-8999")
		}
		*p.into = n.Uint64()
	}
	if r.from > r.to {
		return portRange{}, fmt.Errorf("the range ends before it starts")
	}
	return r, nil
}

// textPredicates are the functions of two strings that also have a form
// without regard to case.
var textPredicates = map[string]func(s, t string) bool{
	"startswith":  strings.HasPrefix,
	"endswith":    strings.HasSuffix,
	"strcontains": strings.Contains,
	"equals":      func(s, t string) bool { return s == t },
}
