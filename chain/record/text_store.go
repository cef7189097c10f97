package record

import (
	"fmt"
	"strings"
	"time"
)

// restoreText says what a restore gave up.
func restoreText(b *strings.Builder, m *Restore) {
	fmt.Fprintf(b, "ledger restored from the copy of %s, host log at size %d, by %s: ",
		time.Unix(0, m.Created).UTC().Format(time.RFC3339), m.Size, Printable([]byte(m.Requester)))
	switch m.State {
	case "complete":
		b.WriteString("nothing that was published is lost")
	case "unknown":
		b.WriteString("what was published after it is not known")
	default:
		fmt.Fprintf(b, "%d published entries of the host log are given up", m.Lost)
	}
	if m.Reason != "" {
		fmt.Fprintf(b, " (%s)", Printable([]byte(m.Reason)))
	}
}

// damageText says which rows were damaged and what became of them.
func damageText(b *strings.Builder, m *Damage) {
	fmt.Fprintf(b, "%s damaged", Printable([]byte(m.Table)))
	if m.Origin != "" {
		fmt.Fprintf(b, " in %s", m.Origin)
	}
	if m.First != 0 || m.Last != 0 {
		fmt.Fprintf(b, ", entries %d to %d", m.First, m.Last)
	}
	fmt.Fprintf(b, ", %s: %s", m.Done, Printable([]byte(m.Problem)))
}
