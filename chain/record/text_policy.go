package record

import (
	"fmt"
	"strconv"
	"strings"
)

// verdictText says what a policy decided and what that rests on.
func verdictText(b *strings.Builder, m *Verdict) {
	kinds := make([]string, len(m.Actions))
	for i, a := range m.Actions {
		kinds[i] = a.Kind
	}
	what := strings.Join(kinds, ", ")
	switch {
	case what == "":
		what = "no action"
	case m.WouldHave:
		what = "would have done: " + what
	}
	fmt.Fprintf(b, "policy %s (%s, %s) on leaf %s %s: %s", m.Policy, m.Severity, m.Mode, leafText(m.CauseShard, m.CauseIndex), m.CauseClass, what)
	if m.Escalation != "" {
		fmt.Fprintf(b, "; escalation %s", Printable([]byte(m.Escalation)))
	}
	if m.Counted > 0 {
		fmt.Fprintf(b, "; %d counted", m.Counted)
	}
	for _, s := range m.Steps {
		fmt.Fprintf(b, "; step %s on leaf %s", s.Name, leafText(s.Shard, s.Index))
		if s.Count > 1 {
			fmt.Fprintf(b, ", the last of %d", s.Count)
		}
	}
	if m.LimitMax > 0 {
		fmt.Fprintf(b, "; its limit of %d is reached", m.LimitMax)
	}
	if m.Limited != "" {
		fmt.Fprintf(b, "; its limit leaves: %s", Printable([]byte(m.Limited)))
	}
	if a := m.Approval; a != nil {
		fmt.Fprintf(b, "; approval %s of %s is %s", Printable([]byte(a.Id)), Printable([]byte(a.Group)), Printable([]byte(a.State)))
	}
	switch {
	case m.Exception != "":
		fmt.Fprintf(b, "; exception %s has ended, it covered %d", Printable([]byte(m.Exception)), m.Suppressed)
	case m.Suppressed > 0:
		fmt.Fprintf(b, "; %d swallowed by the cooldown", m.Suppressed)
	}
	if m.Error != "" {
		fmt.Fprintf(b, "; error: %s", Printable([]byte(m.Error)))
	}
}

// leafText names a leaf of this log, or of an earlier shard of its incarnation.
func leafText(shard uint32, index uint64) string {
	if shard == 0 {
		return strconv.FormatUint(index, 10)
	}
	return fmt.Sprintf("%d of shard %d", index, shard)
}

// carriedText says what policies begin a shard with.
func carriedText(b *strings.Builder, m *PolicyCarried) {
	if m.Problem != "" {
		fmt.Fprintf(b, "policies remember nothing of %s: %s", Printable([]byte(m.Origin)), Printable([]byte(m.Problem)))
		return
	}
	fmt.Fprintf(b, "policies remember what they did behind leaf %d of %s: %d bytes, SHA-256 %x", m.ClosedIndex, Printable([]byte(m.Origin)), m.Bytes, m.Sha256)
	for _, a := range m.Approvals {
		fmt.Fprintf(b, "; approval %s of leaf %s, %d uses", Printable([]byte(a.Id)), leafText(a.Shard, a.Index), a.Uses)
	}
}

// outcomeText says what an action did.
func outcomeText(b *strings.Builder, m *Outcome) {
	fmt.Fprintf(b, "%s for policy %s: %s", m.Kind, m.Policy, m.Result)
	if m.StateBefore != "" || m.StateAfter != "" {
		fmt.Fprintf(b, ", %s -> %s", m.StateBefore, m.StateAfter)
	}
	if m.OtherIndex > 0 {
		fmt.Fprintf(b, " by the action of verdict %d", m.OtherIndex)
	}
	if m.Detail != "" {
		fmt.Fprintf(b, "; %s", Printable([]byte(m.Detail)))
	}
	linksText(b, m.Links)
	filesText(b, m.Files)
	if m.Error != "" {
		fmt.Fprintf(b, ": %s", Printable([]byte(m.Error)))
	}
}

// alertText says what became of an alert at one channel.
func alertText(b *strings.Builder, m *AlertResult) {
	fmt.Fprintf(b, "alert of verdict %d", m.VerdictIndex)
	if m.Origin != "" {
		fmt.Fprintf(b, " of %s", Printable([]byte(m.Origin)))
	}
	fmt.Fprintf(b, " for channel %s (%s) ", Word([]byte(m.Channel)), Word([]byte(m.Type)))
	if m.Error != "" {
		fmt.Fprintf(b, "is given up, %d attempts: %s", m.Attempts, Printable([]byte(m.Error)))
		return
	}
	fmt.Fprintf(b, "is delivered, %d attempts: %s", m.Attempts, Printable([]byte(m.Detail)))
}

// heldText says what became of actions that last.
func heldText(b *strings.Builder, c Class, m *Held) {
	switch c {
	case ClassPolicyActing:
		b.WriteString("about to change the domain for ")
	case ClassPolicyReapplied:
		b.WriteString("done again: ")
	default:
		b.WriteString("released: ")
	}
	for i, h := range m.Holds {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(b, "%s of policy %s (verdict %d)", Printable([]byte(h.Action)), Printable([]byte(h.Policy)), h.VerdictIndex)
	}
	if m.Cause != "" {
		fmt.Fprintf(b, "; %s", Printable([]byte(m.Cause)))
	}
	if m.Requester != "" {
		fmt.Fprintf(b, " %s: %s", Printable([]byte(m.Requester)), Printable([]byte(m.Reason)))
	}
	if len(m.Signers) > 0 {
		fmt.Fprintf(b, "; signed by %s", Printable([]byte(strings.Join(m.Signers, ", "))))
	}
	if m.StateBefore != "" || m.StateAfter != "" {
		fmt.Fprintf(b, ", %s -> %s", m.StateBefore, m.StateAfter)
	}
	if m.Detail != "" {
		fmt.Fprintf(b, "; %s", Printable([]byte(m.Detail)))
	}
	linksText(b, m.Links)
	if m.Error != "" {
		fmt.Fprintf(b, ": %s", Printable([]byte(m.Error)))
	}
}

func linksText(b *strings.Builder, links []*Link) {
	for _, l := range links {
		fmt.Fprintf(b, "; interface %s %s, persistent %s", Printable([]byte(l.Key)), Printable([]byte(l.Live)), Printable([]byte(l.Persistent)))
	}
}

// snapshotText tells the digests of a snapshot.
func snapshotText(b *strings.Builder, m *Snapshotted) {
	fmt.Fprintf(b, "snapshot %s of policy %s (verdict %d)", Printable([]byte(m.Name)), Printable([]byte(m.Policy)), m.VerdictIndex)
	filesText(b, m.Files)
}

// removedText tells which files of snapshots are gone.
func removedText(b *strings.Builder, m *SnapshotRemoved) {
	switch {
	case m.Target == "":
		fmt.Fprintf(b, "snapshot %s of verdict %d is not kept any more: policy %s keeps %d", Printable([]byte(m.Name)), m.VerdictIndex, Printable([]byte(m.Policy)), m.Keep)
	case m.Intended:
		fmt.Fprintf(b, "about to merge images of disk %s into %s", Printable([]byte(m.Target)), Printable([]byte(m.Into)))
	case m.Error != "":
		fmt.Fprintf(b, "images of disk %s are not merged", Printable([]byte(m.Target)))
	default:
		fmt.Fprintf(b, "images of disk %s are merged into %s, and gone", Printable([]byte(m.Target)), Printable([]byte(m.Into)))
	}
	filesText(b, m.Files)
	if m.Detail != "" {
		fmt.Fprintf(b, "; %s", Printable([]byte(m.Detail)))
	}
	if m.Error != "" {
		fmt.Fprintf(b, ": %s", Printable([]byte(m.Error)))
	}
}

func filesText(b *strings.Builder, files []*SnapshotFile) {
	for _, f := range files {
		fmt.Fprintf(b, "; %s %s%s, %d bytes", Printable([]byte(f.Role)), Printable([]byte(f.Target)), Printable([]byte(" "+f.Path)), f.Size)
		if len(f.Sha256) > 0 {
			fmt.Fprintf(b, ", SHA-256 %x", f.Sha256)
		}
		if f.Error != "" {
			fmt.Fprintf(b, ": %s", Printable([]byte(f.Error)))
		}
	}
}
