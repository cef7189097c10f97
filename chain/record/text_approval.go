package record

import (
	"fmt"
	"strings"
)

// approvalText says who approved, or revoked, and with which trust roots.
func approvalText(b *strings.Builder, m Message) {
	switch m := m.(type) {
	case *Approval:
		fmt.Fprintf(b, "approval signed by %s, %d wanted, handed in by %s", Printable([]byte(strings.Join(m.Signers, ", "))), m.Require, Printable([]byte(m.Submitter)))
		fmt.Fprintf(b, ": %s", oneLine(m.Statement))
	case *Revocation:
		fmt.Fprintf(b, "revocation signed by %s, handed in by %s: %s", Printable([]byte(strings.Join(m.Signers, ", "))), Printable([]byte(m.Submitter)), oneLine(m.Statement))
	case *Approvers:
		fmt.Fprintf(b, "approvers from now on, SHA-256 %x, %d bytes", m.Sha256, len(m.Text))
	}
}

// useText says what an approval did, without what it was done to.
func useText(b *strings.Builder, m *Verdict) {
	a := m.Approval
	fmt.Fprintf(b, "approval %s of %s %s", Printable([]byte(a.Id)), Printable([]byte(a.Group)), Printable([]byte(a.State)))
	if m.Policy != "" {
		fmt.Fprintf(b, " for policy %s (%s) on leaf %s %s", m.Policy, m.Mode, leafText(m.CauseShard, m.CauseIndex), m.CauseClass)
	}
	switch {
	case len(a.VerdictHash) > 0:
		fmt.Fprintf(b, ", closes verdict %s", leafText(a.VerdictShard, a.VerdictIndex))
	case a.VerdictShard > 0:
		fmt.Fprintf(b, ", closes the verdict on it in shard %d", a.VerdictShard)
	}
	fmt.Fprintf(b, ", %d of %d uses", a.Uses, a.MaxUses)
}

// oneLine puts a statement on one line, for people.
func oneLine(s []byte) string { return Printable([]byte(strings.Join(strings.Fields(string(s)), " "))) }
