package proof

import (
	"fmt"
	"io"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// maxIndent bounds how far branches of branches are moved to the right.
const maxIndent = 12

// WriteText draws the tree for people: what goes on stands below, what branches off is
// moved to the right.
func (t *Tree) WriteText(w io.Writer) error {
	var b strings.Builder
	for i := range t.Domains {
		t.Domains[i].text(&b)
	}
	for _, s := range t.Told {
		fmt.Fprintf(&b, "  told: %s\n", printable(s))
	}
	for _, s := range t.Failures {
		fmt.Fprintf(&b, "  BROKEN: %s\n", printable(s))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d *TreeDomain) text(b *strings.Builder) {
	fmt.Fprintf(b, "domain %s\n", d.UUID)
	for _, l := range d.Logs {
		end := "open"
		if l.Closed {
			end = "closed"
		}
		fmt.Fprintf(b, "  log %s (%s, %s)\n", l.Origin, printable(l.Cause), end)
	}
	children, known := map[string][]*TreeEpoch{}, map[string]bool{}
	for i := range d.Epochs {
		known[d.Epochs[i].Epoch] = true
	}
	for i := range d.Epochs {
		e := &d.Epochs[i]
		parent := e.Parent
		if !known[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], e)
	}
	drawn := map[string]bool{}
	for _, root := range children[""] {
		draw(b, root, children, drawn, 1)
	}
	for i := range d.Epochs { // parents in a ring, which nobody honest seals
		draw(b, &d.Epochs[i], children, drawn, 1)
	}
	for _, m := range d.Moves {
		fmt.Fprintf(b, "  move %s -> %s: %s", m.From, m.To, m.State)
		if m.Session != 0 {
			fmt.Fprintf(b, ", agent session %x left at frame %d and goes on with frame %d", m.Session, m.Left, m.First)
		}
		b.WriteByte('\n')
	}
}

// draw writes an epoch and what follows it: the newest child goes on, the others are
// branches that were given up.
func draw(b *strings.Builder, e *TreeEpoch, children map[string][]*TreeEpoch, drawn map[string]bool, indent int) {
	for e != nil && !drawn[e.Epoch] {
		drawn[e.Epoch] = true
		fmt.Fprintf(b, "%s%s %s  %s entry %d, %s%s\n", strings.Repeat("  ", min(indent, maxIndent)), e.Epoch[:min(8, len(e.Epoch))], printable(e.Cause), e.Log, e.Index, stamp(e.Wall), e.branch())
		kids := children[e.Epoch]
		for _, k := range kids[:max(0, len(kids)-1)] {
			draw(b, k, children, drawn, indent+2)
		}
		e = nil
		if len(kids) > 0 {
			e = kids[len(kids)-1]
		}
	}
}

// branch says where an epoch branches off, where that is not the end of its parent.
func (e *TreeEpoch) branch() string {
	var b strings.Builder
	if e.Image != "" {
		fmt.Fprintf(&b, ", of %s (use %d)", record.Printable([]byte(e.Image)), e.Uses)
	}
	if e.Link == "holds" || e.Link == "elsewhere" {
		fmt.Fprintf(&b, ", behind entry %d of %s", e.ParentIndex, record.Printable([]byte(e.ParentLog)))
	}
	if e.Abandoned != "" {
		fmt.Fprintf(&b, "; %s is abandoned behind entry %d", e.Abandoned[:min(8, len(e.Abandoned))], e.AbandonedIndex)
	}
	if e.Presumed {
		b.WriteString("; presumed")
	}
	if e.Link == "broken" {
		b.WriteString("; BROKEN")
	}
	return b.String()
}
