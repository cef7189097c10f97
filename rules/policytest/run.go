package policytest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Options say what is run.
type Options struct {
	Run      *regexp.Regexp // only tests whose names it finds; nil: all
	Coverage bool
}

// Report is what came of a run.
type Report struct {
	Passed   int       `json:"passed"`
	Failed   int       `json:"failed"`
	Tests    []*Result `json:"tests"`
	Coverage *Coverage `json:"coverage,omitempty"`
	Mutation *Mutation `json:"mutation,omitempty"`
}

// OK reports whether every test passed and nothing is left uncovered or
// survives, where that was asked for.
func (r *Report) OK() bool {
	return r.Failed == 0 && (r.Coverage == nil || len(r.Coverage.Missing) == 0) && (r.Mutation == nil || len(r.Mutation.Survivors) == 0)
}

// Result is what came of one test.
type Result struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`
	policy.Place
	Passed   bool      `json:"passed"`
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is an expectation that was not met.
type Failure struct {
	policy.Place
	Text string `json:"text"`
}

// Run runs the tests of a bundle. An error is none of a test: the bundle
// cannot be used, or ctx has ended.
func Run(ctx context.Context, b *policy.Bundle, tests *policy.Tests, o Options) (*Report, error) {
	engine, err := rules.New(b, rules.Options{Channels: policy.Channels(b)}) // a test sends nothing
	if err != nil {
		return nil, fmt.Errorf("run tests: %w", err)
	}
	r := &runner{bundle: b, engine: engine, tracers: make(map[*policy.Condition]*policy.Tracer)}
	if o.Coverage {
		r.coverage = newCoverage(b, r.tracer)
	}
	out := &Report{Tests: []*Result{}}
	for _, t := range tests.Tests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if o.Run != nil && !o.Run.MatchString(t.Name) {
			continue
		}
		res := r.test(t)
		if res.Passed = len(res.Failures) == 0; res.Passed {
			out.Passed++
		} else {
			out.Failed++
		}
		out.Tests = append(out.Tests, res)
	}
	if r.coverage != nil {
		out.Coverage = r.coverage.report()
	}
	return out, nil
}

// runner runs one test after the other.
type runner struct {
	bundle   *policy.Bundle
	engine   *rules.Engine
	tracers  map[*policy.Condition]*policy.Tracer
	coverage *coverage // nil: not wanted
}

func (r *runner) tracer(c *policy.Condition) *policy.Tracer {
	t := r.tracers[c]
	if t == nil {
		t = r.bundle.Tracer(c)
		r.tracers[c] = t
	}
	return t
}

// test runs one test on a log of its own.
func (r *runner) test(t *policy.Test) *Result {
	res := &Result{Name: t.Name, Policy: t.Policy.Name, Place: t.Place}
	fail := func(at policy.Place, format string, args ...any) {
		res.Failures = append(res.Failures, Failure{at, fmt.Sprintf(format, args...)})
	}
	l, err := newLog(t)
	if err != nil {
		fail(t.Place, "%v", err)
		return res
	}
	whole := &outcome{policy: t.Policy}
	for _, e := range t.Events {
		part := &outcome{policy: t.Policy}
		entries, err := l.entries(e)
		if err != nil {
			fail(e.Place, "%v", err)
			return res
		}
		for _, p := range entries {
			if err := r.happen(l, p, part); err != nil {
				fail(e.Place, "%v", err)
				return res
			}
		}
		if e.Expect != nil {
			for _, text := range part.compare(e.Expect) {
				fail(e.Expect.Place, "%s", text)
			}
		}
		whole.add(part)
	}
	if t.Expect != nil {
		for _, text := range whole.compare(t.Expect) {
			fail(t.Expect.Place, "%s", text)
		}
	}
	return res
}

// maxOwn bounds the entries that policies cause with one: no verdict leads to
// itself, so there are few.
const maxOwn = 10_000

// happen seals one entry, behind the approvals that come before it, has all of
// them judged, and seals and judges what policies make of them, as the daemon
// does.
func (r *runner) happen(l *log, p pending, out *outcome) error {
	queue, err := l.due(p.at)
	if err != nil {
		return err
	}
	queue = append(queue, p)
	for n := 0; len(queue) > 0; n++ {
		if n > maxOwn {
			return fmt.Errorf("one entry has caused more than %d others: this is a defect of the engine, please report it", maxOwn)
		}
		e, err := l.seal(queue[0])
		if err != nil {
			return err
		}
		queue = queue[1:]
		verdicts, err := r.judge(l, &e, out)
		if err != nil {
			return err
		}
		var own []pending
		for _, v := range verdicts {
			if v.Policy == "" && v.Error != "" {
				return fmt.Errorf("the engine finds: %s", v.Error)
			}
			own = append(own, pending{record.Leaf{Origin: record.OriginPolicy, Header: record.Header{Class: rules.ClassOf(v)}}, v, l.now})
		}
		queue = append(own, queue...)
	}
	return nil
}

// judge has one entry judged as a live one is, and once more under observation.
func (r *runner) judge(l *log, e *entry, out *outcome) ([]*record.Verdict, error) {
	live, err := r.engine.Eval(l.live, e.leaf, e.hash, e.payload)
	if errors.Is(err, rules.ErrNoPayload) {
		err = nil // recorded after its payload was erased: the daemon goes on, too
	}
	if err != nil {
		return nil, err
	}
	var broken error
	o := &rules.Observer{
		Asked: func(p *policy.Policy, part, name string, c *policy.Condition, ev *event.Event) {
			if p != out.policy {
				return
			}
			tr, err := r.tracer(c).Eval(ev)
			if err != nil {
				broken = err
			}
			out.asked(part, tr)
			if r.coverage != nil {
				r.coverage.asked(p, part, name, tr)
			}
		},
		Ended: func(p *policy.Policy, by, detail string) {
			if p != out.policy {
				return
			}
			out.ended(by, detail)
			if r.coverage != nil {
				r.coverage.ended(p, by)
			}
		},
	}
	watched, err := r.engine.Observe(l.watched, e.leaf, e.hash, e.payload, o)
	if err == nil || errors.Is(err, rules.ErrNoPayload) {
		err = broken
	}
	if err == nil {
		err = same(live, watched)
	}
	if err != nil {
		return nil, err
	}
	out.verdicts(live, e.leaf.Index)
	if r.coverage != nil && slices.ContainsFunc(live, func(v *record.Verdict) bool { return v.Policy == out.policy.Name && fired(v, e.leaf.Index) }) {
		r.coverage.fired(out.policy)
	}
	return live, nil
}

// same holds the two ways of judging to one result.
func same(live, watched []*record.Verdict) error {
	equal := len(live) == len(watched)
	for i := 0; equal && i < len(live); i++ {
		a, err := record.JSON(live[i])
		if err != nil {
			return err
		}
		b, err := record.JSON(watched[i])
		if err != nil {
			return err
		}
		equal = reflect.DeepEqual(a, b)
	}
	if !equal {
		return fmt.Errorf("the engine gives %d verdict(s), and %d others when it asks every policy: this is a defect of the engine, please report it", len(live), len(watched))
	}
	return nil
}
