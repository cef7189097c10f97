package record

import (
	"fmt"
	"strings"
)

// epochText says where an epoch hangs in the tree of epochs.
func epochText(b *strings.Builder, m *Epoch) {
	fmt.Fprintf(b, "epoch %x (%s), QEMU pid %d", m.Epoch, m.Cause, m.QemuPid)
	if len(m.Parent) > 0 {
		fmt.Fprintf(b, ", child of %x", m.Parent)
	}
	if len(m.ParentHash) > 0 {
		fmt.Fprintf(b, " behind entry %d of %s", m.ParentIndex, Printable([]byte(m.ParentOrigin)))
	}
	if m.Image != "" {
		fmt.Fprintf(b, ", memory of %s, used %d times", Printable([]byte(m.Image)), m.ImageUses)
	}
	if m.Presumed {
		b.WriteString(", presumed")
	}
	if len(m.Abandoned) > 0 {
		fmt.Fprintf(b, "; epoch %x is abandoned behind entry %d", m.Abandoned, m.AbandonedIndex)
	}
}

func handoverText(b *strings.Builder, m *Handover) {
	fmt.Fprintf(b, "memory of epoch %x %s, %s entry %d", m.Epoch, Printable([]byte(m.What)), Printable([]byte(m.Origin)), m.Index)
	if m.Destination != "" {
		fmt.Fprintf(b, ", to %s", Printable([]byte(m.Destination)))
	}
	if m.Session != 0 {
		fmt.Fprintf(b, "; agent session %x at frame %d", m.Session, m.Frame)
	}
}
