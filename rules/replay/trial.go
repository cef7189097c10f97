package replay

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// Trial judges recorded entries by a candidate and by the bundle in force, both from
// the same empty memory, and says what would be different. It is for one goroutine.
type Trial struct {
	candidate, active *rules.Engine
	since             int64 // host monotone time from which on is counted
	clock             func() time.Duration
	r                 *TrialReport
	counts            map[string]*TrialPolicy
	noisy             *frequent
	log               *trialLog
	ended             map[string]*trialLog // logs that go on in another shard, by origin
	timed             time.Duration
	samples           uint64
}

// NewTrial begins a trial that counts from since on. clock, which may be nil, measures
// what an entry costs.
func NewTrial(candidate, active *rules.Engine, since time.Time, clock func() time.Duration) *Trial {
	t := &Trial{candidate: candidate, active: active, since: since.UnixNano(), clock: clock, counts: map[string]*TrialPolicy{}, ended: map[string]*trialLog{}, noisy: newFrequent(maxNoisy),
		r: &TrialReport{Since: since.UTC().Format(time.RFC3339), Candidate: candidate.Bundle().Digest.String(), Active: active.Bundle().Digest.String(),
			Policies: []*TrialPolicy{}, Actions: []TrialActions{}, Noisy: []Noisy{}}}
	for _, p := range candidate.Bundle().Policies {
		t.count(p.Name).Candidate = true
	}
	for _, p := range active.Bundle().Policies {
		t.count(p.Name).Active = true
	}
	return t
}

// Window is how far ahead of the time that is counted entries must begin, so that
// policies remember what they would.
func (t *Trial) Window() time.Duration {
	longest := 5 * time.Minute // errors have a cooldown always
	for _, e := range []*rules.Engine{t.candidate, t.active} {
		for _, p := range e.Bundle().Policies {
			longest = max(longest, memoryOf(p))
		}
	}
	return longest
}

// memoryOf is how long a policy remembers.
func memoryOf(p *policy.Policy) (d time.Duration) {
	if p.Cooldown != nil {
		d = max(d, p.Cooldown.Period)
	}
	if p.Threshold != nil {
		d = max(d, p.Threshold.Window)
	}
	if p.Sequence != nil {
		d = max(d, p.Sequence.Within)
	}
	if p.FirstSeen != nil {
		d = max(d, p.FirstSeen.History)
	}
	if p.Limit != nil {
		d = max(d, p.Limit.Per)
	}
	for _, e := range p.Escalates {
		if e.Threshold != nil {
			d = max(d, e.Threshold.Window)
		}
	}
	return d
}

// trialLog is the log that is read.
type trialLog struct {
	origin, domain, name string
	was, is              *rules.State
	hours                map[string]*hour // by kind of action
}

// hour counts the actions of the hour that is read.
type hour struct {
	at    int64 // hours since 1970
	count uint64
	of    int // in TrialReport.Actions
}

// Begin goes on with the next log, that of a domain. A shard comes behind the one before
// it, where that is read at all.
func (t *Trial) Begin(origin, domain, name string) {
	if t.log != nil && t.log.was.Ended() {
		t.ended[t.log.origin] = t.log
	}
	t.log = &trialLog{origin: origin, domain: domain, name: name, hours: map[string]*hour{}, was: &rules.State{}, is: &rules.State{}}
	t.r.Logs++
	o, shard, ok := shardBefore(origin)
	if last := t.ended[o]; ok && last != nil {
		delete(t.ended, o)
		if was, is := last.was.Continue(shard), last.is.Continue(shard); was != nil && is != nil {
			t.log.was, t.log.is = was, is
		}
	}
}

// Learn takes an entry ahead of those that are judged, for what it says of the domain.
func (t *Trial) Learn(nothing *rules.Engine, leaf record.Leaf, hash record.Hash, m record.Message) error {
	for _, st := range []*rules.State{t.log.was, t.log.is} {
		if _, err := nothing.Eval(st, leaf, hash, m); err != nil && !errors.Is(err, rules.ErrNoPayload) {
			return fmt.Errorf("replay: %w", err)
		}
	}
	return nil
}

// sampleEvery is of how many entries the cost of one is measured.
const sampleEvery = 16

// Entry judges the next entry of the log. m is its payload decoded, nil where that is
// gone.
func (t *Trial) Entry(leaf record.Leaf, hash record.Hash, m record.Message) error {
	counted := leaf.Mono >= t.since
	measure := t.clock != nil && counted && t.r.Entries%sampleEvery == 0
	var begin time.Duration
	if measure {
		begin = t.clock()
	}
	is, err := t.candidate.Eval(t.log.is, leaf, hash, m)
	if measure {
		t.timed += t.clock() - begin
		t.samples++
	}
	if errors.Is(err, rules.ErrNoPayload) {
		if counted {
			t.r.NotGiven++
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	was, err := t.active.Eval(t.log.was, leaf, hash, m)
	if err != nil && !errors.Is(err, rules.ErrNoPayload) {
		return fmt.Errorf("replay: %w", err)
	}
	if counted {
		t.r.Entries++
		t.compare(&leaf, was, is, m)
	} else {
		t.r.Ahead++
	}
	return nil
}

// compare counts what the two say of one entry.
func (t *Trial) compare(leaf *record.Leaf, was, is []*record.Verdict, m record.Message) {
	for _, v := range is {
		if v.Error != "" {
			t.count(v.Policy).Errors++
			continue
		}
		if !matched(v) {
			continue
		}
		c := t.count(v.Policy)
		c.Matches++
		if !slices.ContainsFunc(was, func(w *record.Verdict) bool { return w.Policy == v.Policy && matched(w) }) {
			c.New++
			c.NewExamples = example(c.NewExamples, t.log.origin, leaf.Index)
		}
		for _, a := range v.Actions {
			t.act(leaf, a.Kind)
		}
		t.noisy.add(v.Policy + "\x00" + t.log.name + "\x00" + subject(m))
	}
	for _, v := range was {
		if v.Error != "" || !matched(v) {
			continue
		}
		c := t.count(v.Policy)
		c.Was++
		if !slices.ContainsFunc(is, func(w *record.Verdict) bool { return w.Policy == v.Policy && matched(w) }) {
			c.Lost++
			c.LostExamples = example(c.LostExamples, t.log.origin, leaf.Index)
		}
	}
}

// matched tells a match from a report on what a cooldown has swallowed.
func matched(v *record.Verdict) bool {
	return v.Policy != "" && (len(v.Actions) > 0 || v.Suppressed == 0)
}

// maxExamples bounds the entries that are named for each policy.
const maxExamples = 3

func example(all []Example, origin string, index uint64) []Example {
	if len(all) >= maxExamples {
		return all
	}
	return append(all, Example{Log: origin, Entry: index})
}

func (t *Trial) count(name string) *TrialPolicy {
	c := t.counts[name]
	if c == nil {
		c = &TrialPolicy{Name: name}
		t.counts[name] = c
	}
	return c
}

// act counts an action that the candidate wants on the domain, by the hour.
func (t *Trial) act(leaf *record.Leaf, kind string) {
	t.r.Wanted++
	h := t.log.hours[kind]
	if h == nil {
		h = &hour{of: len(t.r.Actions)}
		t.log.hours[kind] = h
		t.r.Actions = append(t.r.Actions, TrialActions{Domain: t.log.domain, Name: t.log.name, Kind: kind})
	}
	if at := leaf.Wall / int64(time.Hour); at != h.at {
		h.at, h.count = at, 0
	}
	h.count++
	a := &t.r.Actions[h.of]
	a.Total++
	if h.count > a.Peak {
		a.Peak, a.PeakHour = h.count, time.Unix(0, h.at*int64(time.Hour)).UTC().Format(time.RFC3339)
	}
}

// Report ends the trial.
func (t *Trial) Report() *TrialReport {
	names := make([]string, 0, len(t.counts))
	for name := range t.counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.r.Policies = append(t.r.Policies, t.counts[name])
	}
	for _, k := range t.noisy.top(maxShown) {
		t.r.Noisy = append(t.r.Noisy, k.noisy())
	}
	if t.samples > 0 {
		t.r.Nanoseconds = uint64(t.timed.Nanoseconds()) / t.samples
	}
	return t.r
}

// subject names what an entry is about, in the words of its payload.
func subject(m record.Message) string {
	e, ok := m.(*record.Event)
	if !ok {
		return ""
	}
	text := ""
	add := func(b []byte) {
		if len(b) == 0 {
			return
		}
		if text != "" {
			text += " "
		}
		text += record.Printable(b[:min(len(b), maxSubject)])
	}
	if e.Process != nil {
		add(e.Process.Executable)
	}
	if e.File != nil {
		add(e.File.Path)
	}
	return text
}

// maxSubject bounds each word of a subject.
const maxSubject = 256
