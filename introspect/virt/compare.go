package virt

import (
	"bytes"
	"sort"

	"github.com/provostd/provost/introspect/domain"
)

// compare tells what is different between two sets of domains, ordered by UUID.
func compare(before, after map[domain.UUID]Known) []Change {
	ids := map[domain.UUID]bool{}
	for id := range before {
		ids[id] = true
	}
	for id := range after {
		ids[id] = true
	}
	var out []Change
	for id := range ids {
		b, was := before[id]
		a, is := after[id]
		c := Change{}
		if was {
			c.Before = &b
		}
		if is {
			c.After = &a
		}
		switch {
		case !was:
			c.What = []string{"appeared"}
		case !is:
			c.What = []string{"vanished"}
		default:
			c.What = differences(b, a)
		}
		if len(c.What) > 0 {
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		x, y := out[i].id(), out[j].id()
		return bytes.Compare(x[:], y[:]) < 0
	})
	return out
}

func (c Change) id() domain.UUID {
	if c.After != nil {
		return c.After.UUID
	}
	return c.Before.UUID
}

// differences names what is different in one domain. A new id, pid or start time of QEMU, or a new
// generation id, means another run of guest memory; the state alone would hide a stop and a start.
func differences(b, a Known) []string {
	var out []string
	add := func(word string, differs bool) {
		if differs {
			out = append(out, word)
		}
	}
	was, is := b.State.Active(), a.State.Active()
	add("started", !was && is)
	add("stopped", was && !is)
	// The process is compared only where it could be read both times; the id always can.
	other := b.ID != a.ID || b.GenerationID != a.GenerationID || b.QEMU != a.QEMU && b.QEMU.Pid != 0 && a.QEMU.Pid != 0
	add("restarted", was && is && other)
	add("state", was && is && b.State != a.State)
	add("renamed", b.Name != a.Name)
	add("config", b.ConfigDigest != a.ConfigDigest && b.ConfigDigest != "" && a.ConfigDigest != "" || b.Persistent != a.Persistent)
	return out
}
