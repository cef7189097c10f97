package probe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/bpf"
)

// Options are the classes of events that are seen only where they are wanted:
// they are many, or tell more of a tenant than most operators should know.
type Options struct {
	Signals bool // signals between processes
	Unix    bool // connections to unix sockets
	DNS     bool // names that are asked for, and the answers
	Renames bool // processes that give themselves another name
	Digests bool // SHA-256 of files that were written, at their last close
}

// ParseOptions reads names separated by commas: signals, unix, dns, renames,
// digests; or none.
func ParseOptions(s string) (Options, error) {
	var o Options
	all := map[string]*bool{"signals": &o.Signals, "unix": &o.Unix, "dns": &o.DNS, "renames": &o.Renames, "digests": &o.Digests}
	if strings.TrimSpace(s) == "none" {
		return o, nil
	}
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		p := all[name]
		if p == nil {
			var names []string
			for n := range all {
				names = append(names, n)
			}
			slices.Sort(names)
			return Options{}, fmt.Errorf("parse classes %q: no optional class is named %q; there are %s, or none alone", s, name, strings.Join(names, ", "))
		}
		*p = true
	}
	return o, nil
}

// bits is what the programs read.
func (o Options) bits() uint32 {
	var b bpf.ProbeOptional
	for _, x := range []struct {
		on  bool
		bit bpf.ProbeOptional
	}{
		{o.Signals, bpf.ProbeOptionalOPT_SIGNAL}, {o.Unix, bpf.ProbeOptionalOPT_UNIX},
		{o.DNS, bpf.ProbeOptionalOPT_DNS}, {o.Renames, bpf.ProbeOptionalOPT_COMM},
	} {
		if x.on {
			b |= x.bit
		}
	}
	return uint32(b)
}
