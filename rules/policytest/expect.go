package policytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// outcome is what one policy made of some entries.
type outcome struct {
	policy     *policy.Policy
	fired      []*record.Verdict
	errors     []string
	suppressed uint64
	approved   []string // ids, in order
	exceptions []string // names
	step       int      // of a sequence, the furthest: 0 for none
	last       string   // what kept the newest entry from a verdict
	trace      *policy.Trace
}

// fired tells the verdict on an entry from the report of a cooldown that ended
// with it, from an error, and from what becomes of approvals.
func fired(v *record.Verdict, index uint64) bool {
	return v.CauseShard == 0 && v.CauseIndex == index && rules.ClassOf(v) == record.ClassPolicyVerdict
}

func (o *outcome) asked(part string, t *policy.Trace) {
	if part == rules.PartCondition || part == rules.PartStep {
		o.trace = t
	}
}

func (o *outcome) ended(by, detail string) {
	o.last = by
	switch by {
	case rules.EndCooldown:
		o.suppressed++
	case rules.EndApproval:
		o.approved = append(o.approved, detail)
	case rules.EndException:
		o.exceptions = append(o.exceptions, detail)
	case rules.EndSequence:
		o.reached(detail)
	}
}

// reached remembers the furthest step.
func (o *outcome) reached(name string) {
	for i, s := range o.policy.Sequence.Steps {
		if s.Name == name {
			o.step = max(o.step, i+1)
		}
	}
}

func (o *outcome) verdicts(all []*record.Verdict, index uint64) {
	for _, v := range all {
		switch {
		case v.Policy != o.policy.Name:
		case v.Error != "":
			o.errors = append(o.errors, v.Error)
		case rules.ClassOf(v) == record.ClassApprovalUsedLate:
			o.approved = append(o.approved, v.Approval.Id)
		case fired(v, index):
			o.fired = append(o.fired, v)
			if s := o.policy.Sequence; s != nil {
				o.step = len(s.Steps)
			}
		}
	}
}

// add takes in what came after.
func (o *outcome) add(p *outcome) {
	o.fired = append(o.fired, p.fired...)
	o.errors = append(o.errors, p.errors...)
	o.suppressed += p.suppressed
	o.approved = append(o.approved, p.approved...)
	o.exceptions = append(o.exceptions, p.exceptions...)
	o.step = max(o.step, p.step)
	if p.last != "" {
		o.last = p.last
	}
	if p.trace != nil {
		o.trace = p.trace
	}
}

// compare says what differs from what was expected.
func (o *outcome) compare(x *policy.TestExpect) []string {
	var bad []string
	differ := func(name string, got, want any) {
		bad = append(bad, fmt.Sprintf("%s is %v, want %v", name, got, want))
	}
	if x.Matched != nil && *x.Matched != (len(o.fired) > 0) {
		bad = append(bad, fmt.Sprintf("matched is %v, want %v%s", len(o.fired) > 0, *x.Matched, o.because()))
	}
	if x.Verdicts != nil && *x.Verdicts != uint64(len(o.fired)) {
		differ("verdicts", len(o.fired), *x.Verdicts)
	}
	if x.Suppressed != nil && *x.Suppressed != o.suppressed {
		differ("suppressed", o.suppressed, *x.Suppressed)
	}
	if kinds := o.kinds(); x.Actions != nil && !slices.Equal(kinds, x.Actions) {
		differ("actions", kinds, x.Actions)
	}
	bad = append(bad, o.compareMessages(x)...)
	if x.Approved != nil && !slices.Contains(o.approved, *x.Approved) {
		differ("approved", o.approved, *x.Approved)
	}
	if x.Exception != nil && !slices.Contains(o.exceptions, *x.Exception) {
		differ("exception", o.exceptions, *x.Exception)
	}
	if x.Step != nil {
		have := "none"
		if o.step > 0 {
			have = o.policy.Sequence.Steps[o.step-1].Name
		}
		if have != *x.Step {
			differ("step", have, *x.Step)
		}
	}
	contains := func(s string) bool { return strings.Contains(s, *x.Error) }
	if x.Error != nil && !slices.ContainsFunc(o.errors, contains) {
		differ("error", fmt.Sprintf("%q", o.errors), fmt.Sprintf("one with %q", *x.Error))
	}
	if x.Error == nil && len(o.errors) > 0 {
		bad = append(bad, "the policy could not be decided, and no error is expected: "+o.errors[0])
	}
	return bad
}

func (o *outcome) kinds() []string {
	var all []string
	for _, v := range o.fired {
		for _, a := range v.Actions {
			all = append(all, a.Kind)
		}
	}
	return all
}

func (o *outcome) compareMessages(x *policy.TestExpect) []string {
	var have []string
	for _, v := range o.fired {
		for _, a := range v.Actions {
			if a.Message != "" {
				have = append(have, a.Message)
			}
		}
	}
	var bad []string
	if x.Message != nil && !slices.Contains(have, *x.Message) {
		bad = append(bad, fmt.Sprintf("no message is %q; there are: %q", *x.Message, have))
	}
	for _, want := range x.Contains {
		if !slices.ContainsFunc(have, func(s string) bool { return strings.Contains(s, want) }) {
			bad = append(bad, fmt.Sprintf("no message contains %q; there are: %q", want, have))
		}
	}
	return bad
}

// because says why there was no match, as far as the newest entry tells.
func (o *outcome) because() string {
	switch {
	case len(o.fired) > 0 && o.trace != nil:
		return "\n" + rules.TraceText(o.trace)
	case len(o.fired) > 0:
		return ""
	case o.last == "":
		return ": the policy looked at none of the events"
	case (o.last == rules.EndCondition || o.last == rules.EndSequence) && o.trace != nil:
		return ": ended by " + o.last + "\n" + rules.TraceText(o.trace)
	}
	return ": ended by " + o.last
}
