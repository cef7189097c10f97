package replay

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const (
	// late is how far the newest entry must be behind a cause before its verdict
	// counts as missing: a host judges a moment after it seals.
	late = time.Minute
	// maxExpected bounds the verdicts that were not come upon yet.
	maxExpected = 1 << 16
	// maxDifferences bounds what is named of one log; the rest is counted.
	maxDifferences = 100
)

// logCheck is the check of one log.
type logCheck struct {
	c      *Check
	r      *LogReport
	state  *rules.State
	engine *rules.Engine // nil: what was in force is not known
	next   uint64
	mono   int64

	blind    bool            // what policies remember is not known, of any
	blindOf  map[string]bool // of these
	expected []*expected     // not come upon yet, in the order they were decided
	unopened []uint64        // sealed verdicts whose payload is not given, newest last; only the newest one counts
	unread   []span          // records that were not given
	counts   map[string]*PolicyReport
	byClass  map[record.Class]*candidates

	before *ended // the shard before, where it was given
	sum    []byte // SHA-256 of what policies begin with; nil: that is not known
	// memoryless says that what policies remember of shards before is not known: those
	// that remember nothing are asked all the same.
	memoryless bool
	carries    bool // the log has said what was carried
	closed     *closing
}

// closing is the entry that closed a log for the next shard.
type closing struct {
	index  uint64
	hash   record.Hash
	erased bool // records were erased behind it
}

// expected is a verdict that policies gave and that must be sealed.
type expected struct {
	v      *record.Verdict
	bytes  []byte
	mono   int64 // of its cause
	unsure bool
	asked  bool // its cause is one that is asked for
}

// span is a range of entries, both included.
type span struct{ first, last uint64 }

func newLogCheck(c *Check, origin string) *logCheck {
	l := &logCheck{c: c, r: &LogReport{Origin: origin, Activations: []*Activation{}, Differences: []Difference{}}, state: &rules.State{}, engine: c.nothing,
		blindOf: map[string]bool{}, counts: map[string]*PolicyReport{}, byClass: map[record.Class]*candidates{}}
	l.begin()
	return l
}

func (l *logCheck) entry(leaf record.Leaf, hash record.Hash, payload []byte) error {
	if leaf.Index < l.next {
		return fmt.Errorf("check verdicts of %s: entry %d comes behind entry %d: %w", l.r.Origin, leaf.Index, l.next-1, record.ErrReject)
	}
	if leaf.Index > l.next { // pruned, or left out: what stood there is not known
		l.r.Skipped += leaf.Index - l.next
		l.blind, l.engine = true, nil
		if l.next == 0 {
			l.sum = nil
		}
	}
	l.next, l.mono = leaf.Index+1, max(l.mono, leaf.Mono)
	asked := l.c.within(leaf.Wall)
	if asked {
		l.r.Entries++
	}
	var m record.Message
	if payload != nil {
		var err error
		if m, err = record.Decode(leaf.Header.Class, payload); err != nil {
			m = nil // the host could not judge it either, and has sealed that
		}
	}
	if leaf.Origin == record.OriginPolicy && sealsVerdict(leaf.Header.Class) {
		l.sealed(&leaf, m, asked)
	}
	if leaf.Origin == record.OriginPolicy && leaf.Header.Class == record.ClassPolicyCarried {
		l.carried(&leaf, m)
	}
	if err := l.judge(leaf, hash, m, asked); err != nil {
		return err
	}
	if leaf.Origin == record.OriginHost && leaf.Header.Class == record.ClassPolicyLoaded {
		l.activate(&leaf, m)
	}
	if e, ok := m.(*record.Erased); ok && leaf.Origin != record.OriginGuest {
		for _, r := range e.Ranges {
			l.r.erased = append(l.r.erased, span{r.First, r.Last})
		}
		if l.closed != nil {
			l.closed.erased = true
		}
	}
	return nil
}

// sealsVerdict reports whether entries of a class are decisions of policies.
func sealsVerdict(c record.Class) bool {
	_, ok := record.NewPayload(c).(*record.Verdict)
	return ok
}

// judge asks the policies in force about an entry.
func (l *logCheck) judge(leaf record.Leaf, hash record.Hash, m record.Message, asked bool) error {
	engine := l.engine
	if engine == nil {
		engine = l.c.nothing
		if asked {
			l.r.Unknown++
		}
	}
	verdicts, err := engine.Eval(l.state, leaf, hash, m)
	if l.closed == nil && l.state.Ended() {
		l.closed = &closing{index: leaf.Index, hash: hash}
	}
	switch {
	case errors.Is(err, rules.ErrNoPayload):
		l.notGiven(&leaf, engine, asked)
	case err != nil:
		return fmt.Errorf("check verdicts of %s: %w", l.r.Origin, err)
	case l.engine != nil:
		l.judged(&leaf, asked)
	}
	for _, v := range verdicts {
		if l.engine == nil || v.Policy == "" {
			continue
		}
		b, err := canonical(v)
		if err != nil {
			return err
		}
		l.expected = append(l.expected, &expected{v: v, bytes: b, mono: leaf.Mono, unsure: l.unsure(v), asked: asked})
	}
	for len(l.expected) > maxExpected {
		l.lacks(l.expected[0])
		l.expected = l.expected[1:]
	}
	return nil
}

// judged counts an entry for the activation in force and its policies.
func (l *logCheck) judged(leaf *record.Leaf, asked bool) {
	if !asked || len(l.r.Activations) == 0 {
		return
	}
	l.r.Activations[len(l.r.Activations)-1].Judged++
	l.r.Judged++
	l.candidates(l.engine, leaf).judged++
}

func (l *logCheck) count(name string) *PolicyReport {
	p := l.counts[name]
	if p == nil {
		p = &PolicyReport{Name: name}
		l.counts[name] = p
	}
	return p
}

// candidates are the policies which judge entries of a class on this domain. What is
// known of the domain changes with entries of the host.
func (l *logCheck) candidates(e *rules.Engine, leaf *record.Leaf) *candidates {
	if leaf.Origin == record.OriginHost {
		l.settle()
	}
	all := l.byClass[leaf.Header.Class]
	if all == nil {
		all = &candidates{policies: e.Judging(l.state, leaf.Header.Class)}
		l.byClass[leaf.Header.Class] = all
	}
	return all
}

// candidates are the policies that judge a class, and how many entries they judged
// that were not counted for each of them yet.
type candidates struct {
	policies []*policy.Policy
	judged   uint64
}

// settle counts for each policy what was judged, and forgets which judge what.
func (l *logCheck) settle() {
	for _, c := range l.byClass {
		for _, p := range c.policies {
			n := l.count(p.Name)
			n.Judged += c.judged
			n.remembers = n.remembers || remembers(p)
		}
	}
	clear(l.byClass)
}

// notGiven notes that policies could not be asked about an entry: what they would
// remember of it is not known from here on.
func (l *logCheck) notGiven(leaf *record.Leaf, e *rules.Engine, asked bool) {
	if n := len(l.unread); n > 0 && l.unread[n-1].last+1 == leaf.Index {
		l.unread[n-1].last++
	} else {
		l.unread = append(l.unread, span{leaf.Index, leaf.Index})
	}
	concerned := l.candidates(e, leaf).policies
	for _, p := range concerned {
		l.blindOf[p.Name] = true
		if asked {
			l.count(p.Name).NotJudged++
		}
	}
	if leaf.Origin != record.OriginGuest && len(concerned) == 0 {
		l.blind = true // what it says of the domain, or of approvals, every policy goes by
	}
}

// activate takes what the log says of the policies that follow.
func (l *logCheck) activate(leaf *record.Leaf, m record.Message) {
	l.settle()
	one := &Activation{Entry: leaf.Index, Wall: leaf.Wall}
	l.r.Activations = append(l.r.Activations, one)
	a, ok := m.(*record.BundleActivation)
	if !ok {
		one.Problem = "its payload is not given"
		l.engine, l.blind = nil, true
		return
	}
	one.Name, one.Version, one.Digest, one.Policies = a.Name, a.Version, fmt.Sprintf("%x", a.Digest), len(a.Policies)
	e, err := l.c.engine(a)
	if err != nil {
		one.Problem = err.Error()
		l.engine, l.blind = nil, true
		return
	}
	l.engine = e
}

// unsure reports whether a verdict depends on what is not known any more.
func (l *logCheck) unsure(v *record.Verdict) bool {
	if l.engine == nil {
		return true
	}
	if !l.blind && !l.memoryless && !l.blindOf[v.Policy] {
		return false
	}
	if v.Error != "" || v.Suppressed > 0 {
		return true // errors have a cooldown always
	}
	for _, p := range l.engine.Bundle().Policies {
		if p.Name == v.Policy {
			// A shard tells the facts of its domain anew, in its first entries.
			unknown := l.blind || l.memoryless && l.state.VM().State == ""
			return unknown && p.Target != nil || remembers(p)
		}
	}
	return true // a report on a policy of before
}

// remembers reports whether what a policy says of an entry depends on entries
// before it.
func remembers(p *policy.Policy) bool {
	return p.Cooldown != nil || p.Threshold != nil || p.Sequence != nil || p.FirstSeen != nil || p.Limit != nil || p.Approval != nil || len(p.Escalates) > 0
}

// sealed takes a verdict that the log has.
func (l *logCheck) sealed(leaf *record.Leaf, m record.Message, asked bool) {
	v, ok := m.(*record.Verdict)
	switch {
	case !ok:
		l.unopened = append(l.unopened[:0], leaf.Index)
		if asked {
			l.r.Unopened++
		}
		return
	case v.Policy == "":
		if asked {
			l.r.Own++
		}
		return
	}
	l.mustCarry(leaf)
	b, err := canonical(v)
	if err != nil {
		l.differ(Difference{Kind: KindExtra, CauseShard: v.CauseShard, Cause: v.CauseIndex, Entry: &leaf.Index, Policy: v.Policy, Problem: err.Error()}, asked)
		return
	}
	at := slices.IndexFunc(l.expected, func(e *expected) bool { return bytes.Equal(e.bytes, b) })
	if at >= 0 {
		if asked {
			l.r.Verdicts++
			l.count(v.Policy).Verdicts++
		}
		l.expected = slices.Delete(l.expected, at, at+1)
		return
	}
	near := slices.IndexFunc(l.expected, func(e *expected) bool {
		return e.v.Policy == v.Policy && e.v.CauseShard == v.CauseShard && e.v.CauseIndex == v.CauseIndex && rules.ClassOf(e.v) == leaf.Header.Class
	})
	unsure := l.unsure(v) || near >= 0 && l.expected[near].unsure || v.CauseShard == 0 && l.inUnread(v.CauseIndex)
	switch {
	case unsure:
		if asked {
			l.r.Unsure++
		}
	case near >= 0:
		l.differ(Difference{Kind: KindDiffers, CauseShard: v.CauseShard, Cause: v.CauseIndex, Entry: &leaf.Index, Policy: v.Policy, Problem: "it says " + compareVerdicts(v, l.expected[near].v)}, asked)
	default:
		l.differ(Difference{Kind: KindExtra, CauseShard: v.CauseShard, Cause: v.CauseIndex, Entry: &leaf.Index, Policy: v.Policy, Problem: "it is sealed, and the policies in force do not give it"}, asked)
	}
	if near >= 0 {
		l.expected = slices.Delete(l.expected, near, near+1)
	}
}

func (l *logCheck) inUnread(index uint64) bool {
	return slices.ContainsFunc(l.unread, func(s span) bool { return s.first <= index && index <= s.last })
}

// lacks takes an expected verdict that is not sealed.
func (l *logCheck) lacks(e *expected) {
	switch {
	case !e.asked:
	case e.unsure || len(l.unopened) > 0 && (e.v.CauseShard > 0 || l.unopened[0] > e.v.CauseIndex):
		l.r.Unsure++ // it may be the one that is not given
	case l.mono-e.mono < int64(late):
		l.r.Pending++
	default:
		l.differ(Difference{Kind: KindMissing, CauseShard: e.v.CauseShard, Cause: e.v.CauseIndex, Policy: e.v.Policy, Problem: fmt.Sprintf("the policies in force give it (%s, %s), and it is not sealed", e.v.Mode, actionsOf(e.v))}, true)
	}
}

func (l *logCheck) differ(d Difference, asked bool) {
	if !asked {
		return
	}
	if len(l.r.Differences) >= maxDifferences {
		l.r.More++
		return
	}
	l.r.Differences = append(l.r.Differences, d)
}

func (l *logCheck) end() {
	l.settle()
	for _, e := range l.expected {
		l.lacks(e)
	}
	for _, s := range l.unread {
		l.r.Withheld += s.last - s.first + 1
	}
	l.r.Erased = overlap(l.unread, merged(l.r.erased))
	l.r.Withheld -= l.r.Erased
	l.r.Policies = []*PolicyReport{}
	for _, name := range slices.Sorted(maps.Keys(l.counts)) {
		p := l.counts[name]
		p.NotEvaluated = l.notEvaluated(p)
		l.r.Policies = append(l.r.Policies, p)
	}
}

// merged returns spans in order, without overlaps.
func merged(all []span) []span {
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var out []span
	for _, s := range all {
		if n := len(out); n > 0 && s.first <= out[n-1].last {
			out[n-1].last = max(out[n-1].last, s.last)
		} else if s.first <= s.last {
			out = append(out, s)
		}
	}
	return out
}

// overlap counts what two lists of ordered spans share.
func overlap(a, b []span) (n uint64) {
	for len(a) > 0 && len(b) > 0 {
		if first, last := max(a[0].first, b[0].first), min(a[0].last, b[0].last); first <= last {
			n += last - first + 1
		}
		if a[0].last < b[0].last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return n
}

// canonical returns bytes that are equal for equal verdicts. It takes the parameters
// of the actions away, whose order in an encoding is not fixed.
func canonical(v *record.Verdict) ([]byte, error) {
	var parameters []byte
	for i, a := range v.Actions {
		for _, k := range slices.Sorted(maps.Keys(a.Parameters)) {
			parameters = fmt.Appendf(parameters, "%d %q %q\n", i, k, a.Parameters[k])
		}
		a.Parameters = nil
	}
	b, err := record.Encode(v)
	return append(b, parameters...), err
}

// compareVerdicts says where two verdicts differ.
func compareVerdicts(have, want *record.Verdict) string {
	switch {
	case have.Mode != want.Mode:
		return fmt.Sprintf("mode %s, want %s", have.Mode, want.Mode)
	case !bytes.Equal(have.BundleDigest, want.BundleDigest):
		return fmt.Sprintf("bundle %x, want %x", have.BundleDigest, want.BundleDigest)
	case actionsOf(have) != actionsOf(want):
		return fmt.Sprintf("%s, want %s", actionsOf(have), actionsOf(want))
	case have.Suppressed != want.Suppressed:
		return fmt.Sprintf("%d suppressed, want %d", have.Suppressed, want.Suppressed)
	case have.Error != want.Error:
		return fmt.Sprintf("error %q, want %q", have.Error, want.Error)
	}
	return "something else in its title, severity, messages or cause"
}

func actionsOf(v *record.Verdict) string {
	if len(v.Actions) == 0 {
		return "no action"
	}
	text := ""
	for i, a := range v.Actions {
		if i > 0 {
			text += ", "
		}
		text += a.Kind
	}
	return text
}
