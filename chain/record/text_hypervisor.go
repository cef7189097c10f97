package record

import (
	"fmt"
	"strings"
)

// changesShown bounds how many differences stand in one line for people.
const changesShown = 4

// hypervisorText says what the hypervisor tells of a domain or of the host.
// Each part writes one blank behind itself.
func hypervisorText(b *strings.Builder, h *Hypervisor) {
	words(b, Word([]byte(h.Device)), Word([]byte(h.Path)))
	if h.OldValue != "" || h.NewValue != "" {
		b.WriteString(value(h.OldValue) + " -> " + value(h.NewValue) + " ")
	}
	if h.Address != "" {
		b.WriteString("from " + Word([]byte(h.Address)) + " ")
	}
	words(b, Word([]byte(h.Status)))
	if i := h.Image; i != nil {
		imageText(b, i)
	}
	if h.Side != "" {
		b.WriteString(Word([]byte(h.Side)) + " configuration: ")
	}
	for i, c := range h.Changes {
		if i == changesShown {
			fmt.Fprintf(b, "and %d more ", uint64(len(h.Changes)-i)+h.Omitted)
			break
		}
		b.WriteString(ChangeText(c) + "; ")
	}
	if h.Learned != "" {
		b.WriteString("(found by " + Word([]byte(h.Learned)) + ") ")
	}
	if h.Repeats > 0 {
		fmt.Fprintf(b, "(%d like it were only counted) ", h.Repeats)
	}
	if c := h.ClaimedBy; c != nil {
		fmt.Fprintf(b, "claimed by %s (%s, pid %d) ", Word([]byte(c.User)), Word([]byte(c.Source)), c.Pid)
	}
}

func imageText(b *strings.Builder, i *Image) {
	words(b, Word([]byte(i.Role)))
	if i.Depth > 0 {
		fmt.Fprintf(b, "layer %d ", i.Depth)
	}
	fmt.Fprintf(b, "%d bytes ", i.Size)
	if len(i.Sha256) > 0 {
		fmt.Fprintf(b, "sha256 %x ", i.Sha256)
	}
	if i.Error != "" {
		b.WriteString("not read: " + Word([]byte(i.Error)) + " ")
	}
}

// ChangeText says one difference of a configuration in one line.
func ChangeText(c *ConfigChange) string {
	return Printable([]byte(c.GetPath())) + ": " + value(c.GetOldValue()) + " -> " + value(c.GetNewValue())
}

func value(s string) string {
	if s == "" {
		return "none"
	}
	return Word([]byte(s))
}
