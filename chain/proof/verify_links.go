package proof

import (
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// links checks what verdicts say of their causes and outcomes of their
// verdicts, where both are in the bundle.
func (v *verification) links() {
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		if o == nil {
			continue
		}
		switch m := o.message.(type) {
		case *record.Verdict:
			if m.CauseShard == 0 { // evidence is of one log
				v.link(o, "cause", m.CauseIndex, m.CauseHash)
			}
			if a := m.Approval; a != nil && len(a.VerdictHash) > 0 && a.VerdictShard == 0 && v.entries[a.VerdictIndex] != nil { // a bundle is about the cause
				v.link(o, "verdict", a.VerdictIndex, a.VerdictHash, record.ClassPolicyVerdict)
			}
		case *record.Outcome:
			v.link(o, "verdict", m.VerdictIndex, m.VerdictHash, record.ClassPolicyVerdict, record.ClassPolicyError, record.ClassPolicyMismatch)
		}
	}
}

// link checks that the named entry is there with the named hash, and is of one
// of the classes; none named means that any will do.
func (v *verification) link(o *opened, what string, index uint64, hash []byte, classes ...record.Class) {
	target := v.entries[index]
	if target == nil {
		v.failEntry(o.Entry, ".payload", "its %s, entry %d, is missing or unreadable", what, index)
		return
	}
	if index >= o.Index {
		v.failEntry(o.Entry, ".payload", "its %s, entry %d, does not stand before it", what, index)
	}
	if string(hash) != string(target.hash[:]) {
		v.failEntry(o.Entry, ".payload", "its %s, entry %d, has leaf hash %s, it names %x", what, index, target.hash, hash)
	}
	if len(classes) > 0 && !slices.Contains(classes, target.leaf.Header.Class) {
		v.failEntry(o.Entry, ".payload", "its %s, entry %d, is a %s", what, index, target.leaf.Header.Class)
	}
}

// concludeLinks says what was decided about what, and what came of it.
func (v *verification) concludeLinks(say func(string, ...any)) {
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		switch m := o.message.(type) {
		case *record.Verdict:
			if a := m.Approval; a != nil && o.leaf.Header.Class != record.ClassPolicyVerdict {
				say("Entry %d: approval %q of group %q was %s on %s (%s), %d of %d uses.", o.Index, printable(a.Id), printable(a.Group), printable(a.State), causeOf(m), printable(m.CauseClass), a.Uses, a.MaxUses)
				continue
			}
			if o.leaf.Header.Class == record.ClassPolicyMismatch {
				say("Entry %d: the engine disagreed with itself about policy %q on %s: %s.", o.Index, m.Policy, causeOf(m), printable(m.Error))
				continue
			}
			if o.leaf.Header.Class == record.ClassPolicyError {
				say("Entry %d: policy %q could not judge %s: %s.", o.Index, m.Policy, causeOf(m), printable(m.Error))
				continue
			}
			say("Entry %d: policy %q (%s, %s) decided on %s (%s) after it was sealed.", o.Index, m.Policy, printable(m.Severity), printable(m.Mode), causeOf(m), printable(m.CauseClass))
		case *record.Outcome:
			say("Entry %d: the action %q of the verdict in entry %d was %s; state before %q, after %q.", o.Index, m.Kind, m.VerdictIndex, printable(m.Result), m.StateBefore, m.StateAfter)
		}
	}
}

// causeOf names the entry that a verdict is on. One of an earlier shard is for the
// evidence of that shard to show.
func causeOf(m *record.Verdict) string {
	if m.CauseShard > 0 {
		return fmt.Sprintf("entry %d of shard %d", m.CauseIndex, m.CauseShard)
	}
	return fmt.Sprintf("entry %d", m.CauseIndex)
}
