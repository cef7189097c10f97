package replay

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
)

// ended is a log that was read to its end and goes on in another shard.
type ended struct {
	state   *rules.State
	closed  closing
	given   uint64 // entries
	blind   bool   // what policies remember is not known
	blindOf map[string]bool
	inexact string // why not all of it is, "" where all is
}

// shardBefore returns origin and number of the shard before that of an origin.
func shardBefore(origin string) (before string, shard uint32, ok bool) {
	// <host>/vm/<uuid>/<incarnation>/<shard>, from 1 on
	parts := strings.Split(origin, "/")
	if len(parts) != 5 || parts[1] != "vm" {
		return "", 0, false
	}
	n, err := strconv.ParseUint(parts[4], 10, 32)
	if err != nil || n <= 1 {
		return "", 0, false
	}
	parts[4] = strconv.FormatUint(n-1, 10)
	return strings.Join(parts, "/"), uint32(n - 1), true
}

// onward returns what goes on from a log in its next shard, nil where nothing does.
func (l *logCheck) onward() *ended {
	if l.closed == nil {
		return nil
	}
	e := &ended{state: l.state, closed: *l.closed, given: l.next, blind: l.blind || l.memoryless, blindOf: l.blindOf}
	switch {
	case e.blind:
		e.inexact = "not all of that is given"
	case len(l.unread) > 0:
		e.inexact = "records of it that policies judged were erased, or are not given"
	case l.closed.erased:
		e.inexact = "records of it were erased behind its end"
	}
	return e
}

// begin takes over what policies remember of the shard before.
func (l *logCheck) begin() {
	origin, shard, ok := shardBefore(l.r.Origin)
	if !ok {
		return
	}
	l.r.Before = &Before{Origin: origin, Problem: "the log does not say yet what it is"}
	if l.before = l.c.ended[origin]; l.before == nil {
		l.memoryless = true
		return
	}
	delete(l.c.ended, origin)
	next := l.before.state.Continue(shard)
	if next == nil || l.before.blind {
		l.memoryless = true
		return
	}
	l.state, l.blindOf = next, maps.Clone(l.before.blindOf)
	if b, err := next.MarshalBinary(); err == nil {
		sum := sha256.Sum256(b)
		l.sum = sum[:]
	}
}

// carried takes what a log says of what policies began with, and holds it against
// what the shard before gives.
func (l *logCheck) carried(leaf *record.Leaf, m record.Message) {
	differ := func(format string, args ...any) {
		l.differ(Difference{Kind: KindCarried, Entry: &leaf.Index, Problem: fmt.Sprintf(format, args...)}, true)
	}
	b := l.r.Before
	switch {
	case b == nil:
		differ("it says what was carried from another log, and the first shard of an incarnation begins with nothing")
		return
	case l.carries:
		differ("it says again what policies began with")
		return
	}
	l.carries, b.Entry = true, &leaf.Index
	p, ok := m.(*record.PolicyCarried)
	if !ok {
		b.Problem = "the payload of the entry that says so is not given"
		return
	}
	if b.Problem = l.holds(p, differ); b.Problem == "" {
		b.Compared = true
	}
}

// holds compares what a log says policies began with to what the shard before gives,
// and returns why it cannot, or why it is not that.
func (l *logCheck) holds(p *record.PolicyCarried, differ func(string, ...any)) string {
	b, last := l.r.Before, l.before
	const wrong = "it is not what the log says"
	switch {
	case p.Problem != "":
		// What was decided ahead of this entry was decided without it, too.
		l.memoryless = true
		for _, e := range l.expected {
			e.unsure = true
		}
		differ("policies began without what they had remembered: %s", p.Problem)
		return p.Problem
	case p.Origin != b.Origin:
		differ("it says that %s is the shard before, and that is %s", p.Origin, b.Origin)
		return wrong
	case last == nil:
		return "that log is not given, or not to its end: give the evidence of all of it, too"
	case p.ClosedIndex != last.closed.index || len(p.ClosedHash) > 0 && !bytes.Equal(p.ClosedHash, last.closed.hash[:]):
		differ("it says that entry %d (leaf hash %x) closed the shard before, and entry %d (%s) did", p.ClosedIndex, p.ClosedHash, last.closed.index, last.closed.hash)
		return wrong
	case last.inexact != "":
		return last.inexact
	case l.sum == nil:
		return "the beginning of the log is not given"
	case p.Version != rules.StateVersion:
		return fmt.Sprintf("it was saved in version %d, and this program compares version %d", p.Version, rules.StateVersion)
	case p.Size > last.given:
		return fmt.Sprintf("%d entries of that log were judged before, and %d are given", p.Size, last.given)
	case !bytes.Equal(p.Sha256, l.sum):
		differ("it says that policies began with a state of SHA-256 %x, and the shard before gives %x: they were made to forget, or to remember what was not", p.Sha256, l.sum)
		return wrong
	}
	return ""
}

// mustCarry finds a verdict that stands ahead of the entry which says what policies
// began with.
func (l *logCheck) mustCarry(leaf *record.Leaf) {
	if l.r.Before == nil || l.carries || l.r.Skipped > 0 {
		return
	}
	l.carries = true // told once
	l.differ(Difference{Kind: KindCarried, Entry: &leaf.Index, Problem: "a verdict is sealed, and no entry before it says what policies began with"}, true)
}

// notEvaluated says why verdicts of a policy were not compared, "" where all were.
func (l *logCheck) notEvaluated(p *PolicyReport) string {
	switch {
	case !p.remembers:
		return ""
	case l.memoryless:
		return "it remembers, and what it remembered of " + l.r.Before.Origin + " is not known"
	case l.blind || l.blindOf[p.Name]:
		return "it remembers, and records that it judged are not given"
	}
	return ""
}
