package policy

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

// Bounds of what a policy remembers of one VM.
const (
	maxCount = 10_000
	maxSteps = 8
	// MaxCaptures bounds Policy.Captures.
	MaxCaptures = 64
	// DefaultKeys is how many keys a window has where its policy does not say.
	DefaultKeys = 4_096
	maxKeys     = 100_000
)

// threshold decodes the policy's own threshold.
func (l *loader) threshold(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	b := l.single(pb.Body, "threshold")
	if b == nil {
		return
	}
	p.Threshold = l.thresholdBlock(v, b, on)
	l.onlyMemory(b, p.Sequence != nil)
}

// onlyMemory refuses a second block that decides by what came before.
func (l *loader) onlyMemory(b *hclsyntax.Block, another bool) {
	if another {
		l.rep.err(CodeBadValue, b.TypeRange, "Two windows", "A policy has one of threshold, sequence and first_seen. Make a second policy, or use an escalate block for a threshold beside the others.")
	}
}

// thresholdBlock never returns nil: what is wrong was reported.
func (l *loader) thresholdBlock(v *env, b *hclsyntax.Block, on event.ClassSet) *Threshold {
	t := &Threshold{MaxKeys: DefaultKeys}
	if !l.shapeOf(b, thresholdShape) {
		return t
	}
	if l.need(b, "A threshold", "count", "10") {
		t.Count = uint64(l.number(v, b.Body, "count", 2, maxCount))
	}
	if l.need(b, "A threshold", "window", `"1m"`) {
		t.Window = l.duration(v, b.Body, "window", minPeriod, maxPeriod)
	}
	if a := b.Body.Attributes["by"]; a != nil {
		t.By = l.by(a, on)
	}
	if a := b.Body.Attributes["distinct"]; a != nil {
		t.Distinct = l.fieldValue(a.Expr, "distinct", on)
	}
	l.maxKeys(v, b, &t.MaxKeys)
	return t
}

func (l *loader) maxKeys(v *env, b *hclsyntax.Block, into *int) {
	if n := l.number(v, b.Body, "max_keys", 1, maxKeys); n > 0 {
		*into = int(n)
	}
}

func (l *loader) firstSeen(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	b := l.single(pb.Body, "first_seen")
	if b == nil {
		return
	}
	f := &FirstSeen{MaxKeys: DefaultKeys}
	p.FirstSeen = f
	l.onlyMemory(b, p.Sequence != nil || p.Threshold != nil)
	if !l.shapeOf(b, firstSeenShape) {
		return
	}
	if l.need(b, "A first_seen block", "by", "[process.executable]") {
		f.By = l.by(b.Body.Attributes["by"], on)
	}
	if l.need(b, "A first_seen block", "history", `"14d"`) {
		f.History = l.duration(v, b.Body, "history", time.Minute, maxHistory)
	}
	f.Learn = l.duration(v, b.Body, "learn", minPeriod, maxHistory)
	l.maxKeys(v, b, &f.MaxKeys)
}

// sequence decodes the sequence and returns the types of its last step, whose
// event is the one that matches.
func (l *loader) sequence(v *env, pb *hclsyntax.Block, p *Policy) event.ClassSet {
	b := l.single(pb.Body, "sequence")
	s := &Sequence{MaxKeys: DefaultKeys}
	p.Sequence = s
	if !l.shapeOf(b, sequenceShape) {
		return event.ClassSet{}
	}
	if l.need(b, "A sequence", "within", `"10m"`) {
		s.Within = l.duration(v, b.Body, "within", minPeriod, maxPeriod)
	}
	l.maxKeys(v, b, &s.MaxKeys)
	blocks := blocksOf(b.Body, "step")
	if len(blocks) < 2 || len(blocks) > maxSteps {
		l.rep.err(CodeMissing, b.DefRange(), "Wrong number of steps", fmt.Sprintf("A sequence has 2 to %d steps, and this one has %d. For one kind of event that repeats, use a threshold.", maxSteps, len(blocks)))
	}
	last := event.ClassSet{}
	for _, sb := range blocks {
		if st := l.step(v, sb, p); st != nil {
			s.Steps = append(s.Steps, st)
			last = st.set
		}
	}
	if r := l.single(b.Body, "reset"); r != nil && l.shapeOf(r, resetShape) {
		s.Reset = &Step{}
		l.stepBody(v.within(scope{policy: p, steps: s.Steps}), r, "A reset", s.Reset)
	}
	l.sequenceKeys(b, s)
	for _, st := range s.parts() {
		p.Watches = p.Watches || watches(st.On)
	}
	return last
}

func (l *loader) step(v *env, b *hclsyntax.Block, p *Policy) *Step {
	if !l.shapeOf(b, stepShape) || !l.validName(b) {
		return nil
	}
	st := &Step{Name: b.Labels[0], Count: 1}
	for _, o := range p.Sequence.Steps {
		if o.Name == st.Name {
			l.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate step", fmt.Sprintf("The sequence has a step %q already.", st.Name))
		}
	}
	if n := l.number(v, b.Body, "count", 1, maxCount); n > 0 {
		st.Count = uint64(n)
	}
	l.stepBody(v.within(scope{policy: p, steps: p.Sequence.Steps}), b, "A step", st)
	return st
}

func (l *loader) stepBody(v *env, b *hclsyntax.Block, what string, st *Step) {
	if l.need(b, what, "on", `["process.exec"]`) {
		st.set, st.On = l.on(v, b.Body)
	}
	st.Condition = l.condition(v, b.Body, st.set)
	if a := b.Body.Attributes["by"]; a != nil {
		st.By = l.by(a, st.set)
	}
}

// sequenceKeys gives every step the key by which its events are held together.
func (l *loader) sequenceKeys(b *hclsyntax.Block, s *Sequence) {
	common := b.Body.Attributes["by"]
	own := 0
	for _, sb := range b.Body.Blocks {
		if sb.Body.Attributes["by"] != nil {
			own++
		}
	}
	if common == nil && own == 0 {
		return
	}
	if common == nil && own != len(b.Body.Blocks) {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", "Where steps have a \"by\" of their own, every step and the reset need one, or the sequence a common one.")
		return
	}
	for i, st := range s.parts() {
		if len(st.By) > 0 || common == nil {
			continue
		}
		by := l.by(common, st.set)
		if i == 0 {
			s.By = by
		}
		st.By = by
	}
	if common != nil && s.By == nil {
		s.By = l.by(common, event.ClassSet{})
	}
	for _, st := range s.parts() {
		if n := len(s.parts()[0].By); len(st.By) != n && !l.rep.hasErrors() {
			l.rep.err(CodeBadValue, b.DefRange(), "Keys of different length", fmt.Sprintf("The events of a sequence are held together by as many values each: one step has %d and another %d.", n, len(st.By)))
			return
		}
	}
}

const maxEscalates = 8

func (l *loader) escalates(v *env, pb *hclsyntax.Block, p *Policy, on event.ClassSet) {
	for i, b := range blocksOf(pb.Body, "escalate") {
		if !l.shapeOf(b, escalateShape) || !l.validName(b) {
			continue
		}
		if i == maxEscalates {
			l.rep.err(CodeTooComplex, b.DefRange(), "Too many escalate blocks", fmt.Sprintf("A policy has at most %d.", maxEscalates))
		}
		for _, o := range p.Escalates {
			if o.Name == b.Labels[0] {
				l.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate escalate", fmt.Sprintf("Policy %q has an escalate block %q already.", p.Name, o.Name))
			}
		}
		e := &Escalate{Name: b.Labels[0]}
		if tb := l.single(b.Body, "threshold"); tb == nil {
			l.rep.err(CodeMissing, b.DefRange(), "Missing threshold", "An escalate block needs a threshold block, which says how many matches it takes.")
		} else {
			e.Threshold = l.thresholdBlock(v, tb, on)
		}
		sc := v.scope
		sc.counts = true
		if e.Actions = l.actions(v.within(sc), b, on); len(blocksOf(b.Body, "action")) == 0 {
			l.rep.err(CodeMissing, b.DefRange(), "Missing action", "An escalate block needs at least one action.")
		}
		p.Escalates = append(p.Escalates, e)
	}
}

// stateDigests cover what gives the policy's memory its meaning: windows
// survive a new bundle where theirs stays the same. That of a threshold or a
// sequence covers what is counted, that of first_seen only the values: a
// history stays true when the policy looks for more or less of it.
func (l *loader) stateDigests(v *env, b *hclsyntax.Block, p *Policy) {
	var parts []string
	if c := p.Cooldown; c != nil {
		parts = append([]string{c.Period.String()}, names(c.By)...)
	}
	p.StateDigest = stateDigest(p.Name, parts...)
	what := l.policyDigest(v, l.matchingText(b), l.transitive(v))
	if t := p.Threshold; t != nil {
		t.StateDigest = t.digest(p.Name, "threshold", what)
	}
	for _, e := range p.Escalates {
		e.Threshold.StateDigest = e.Threshold.digest(p.Name, "escalate "+e.Name, what)
	}
	if s := p.Sequence; s != nil {
		// Values are kept by their numbers, and messages have some of them.
		parts := []string{"sequence", string(what[:])}
		for _, c := range p.Captures {
			parts = append(parts, c.name)
		}
		s.StateDigest = stateDigest(p.Name, parts...)
	}
	if f := p.FirstSeen; f != nil {
		f.StateDigest = stateDigest(p.Name, append([]string{"first_seen"}, names(f.By)...)...)
	}
	if m := p.Limit; m != nil {
		m.StateDigest = stateDigest(p.Name, "limit")
	}
}

// matchingText is the source of what decides which events match.
func (l *loader) matchingText(b *hclsyntax.Block) string {
	text := ""
	for _, name := range []string{"on", "condition"} {
		if a := b.Body.Attributes[name]; a != nil {
			text += l.text(a.SrcRange) + "\x00"
		}
	}
	for _, sb := range b.Body.Blocks {
		if sb.Type == "sequence" || sb.Type == "exception" {
			text += l.text(blockRange(sb)) + "\x00"
		}
	}
	return text
}

func (t *Threshold) digest(policy, what string, matching Digest) Digest {
	distinct := ""
	if t.Distinct != nil {
		distinct = t.Distinct.Name()
	}
	return stateDigest(policy, append([]string{what, string(matching[:]), t.Window.String(), distinct}, names(t.By)...)...)
}

func names(by []*Value) []string {
	var all []string
	for _, v := range by {
		all = append(all, v.Name())
	}
	return all
}
