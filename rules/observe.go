package rules

import (
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Observer is told how an entry is judged, step by step: for tests and
// explanations of policies. It changes nothing of what is decided.
type Observer struct {
	// Asked is called with every condition that takes part, before its answer is
	// used, and only while the event has what the condition reads. part is one of
	// the Part constants; for exceptions and steps name is theirs.
	Asked func(p *policy.Policy, part, name string, c *policy.Condition, ev *event.Event)
	// Ended is called once where a policy that looked at the entry gave no
	// verdict: by is one of the End constants, detail says more, such as the
	// name of the exception.
	Ended func(p *policy.Policy, by, detail string)
}

// The parts of a policy that have conditions.
const (
	PartTarget    = "target"
	PartCondition = "condition"
	PartException = "exception"
	PartStep      = "step"
	PartReset     = "reset"
)

// What keeps a policy from a verdict.
const (
	EndOff       = "off"       // its mode on this VM
	EndTarget    = "target"    // another VM is meant
	EndOwn       = "own"       // the entry was caused by a policy
	EndCondition = "condition" // it is false
	EndException = "exception" // detail: its name
	EndApproval  = "approval"  // detail: id of the approval that covers it
	EndThreshold = "threshold" // not often enough; detail: how often
	EndSequence  = "sequence"  // not the last step; detail: the step that was reached
	EndSeen      = "first_seen"
	EndCooldown  = "cooldown"
	EndError     = "error" // it could not be decided, and on_error ignores that
)

// Observe is Eval with an observer. It asks every policy whose types include
// the entry's, also those that an index of conditions would have spared.
func (e *Engine) Observe(st *State, leaf record.Leaf, leafHash record.Hash, payload record.Message, o *Observer) ([]*record.Verdict, error) {
	return e.eval(st, leaf, leafHash, payload, o)
}

// observeIdle tells of the policies that do not even ask their condition, and
// of the conditions of targets.
func (j *judgement) observeIdle(class record.Class) {
	last := -1
	for _, n := range j.engine.index.Judges(class) {
		i := j.engine.parts[n].policy
		if i == last {
			continue
		}
		last = i
		p := j.engine.bundle.Policies[i]
		off := j.engine.Mode(p, j.state.vm.UUID) == policy.ModeOff
		if p.Target != nil && !off {
			w := scratch.Get().(*workspace)
			w.event.LoadVM(&j.state.vm)
			j.asked(p, PartTarget, "", p.Target.Condition, &w.event)
			w.release()
		}
		switch {
		case off:
			j.ended(p, EndOff, "")
		case j.state.modes[i] == policy.ModeOff:
			j.ended(p, EndTarget, "")
		case j.engine.ownOutput(j.payload):
			j.ended(p, EndOwn, "")
		}
	}
}

func (j *judgement) asked(p *policy.Policy, part, name string, c *policy.Condition, ev *event.Event) {
	if j.observer != nil && j.observer.Asked != nil && c != nil {
		j.observer.Asked(p, part, name, c, ev)
	}
}

func (j *judgement) ended(p *policy.Policy, by, detail string) {
	if j.observer != nil && j.observer.Ended != nil {
		j.observer.Ended(p, by, detail)
	}
}
