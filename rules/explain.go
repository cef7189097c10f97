package rules

import (
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Explanation says what one policy makes of one entry, and why.
type Explanation struct {
	Policy string `json:"policy"`
	Title  string `json:"title"`
	Mode   string `json:"mode"` // effective on this VM
	Index  uint64 `json:"index"`
	Class  string `json:"class"`
	Origin string `json:"origin"`
	Time   string `json:"time"` // host wall time, RFC 3339
	VM     string `json:"vm"`   // name
	// Matched says that the policy gave a verdict for this entry.
	Matched bool `json:"matched"`
	// By and Detail say what kept it from one, By being one of the End
	// constants.
	By     string `json:"ended_by,omitempty"`
	Detail string `json:"detail,omitempty"`
	Why    string `json:"why"` // in words

	Conditions []*ExplainedCondition `json:"conditions"`
	Actions    []ExplainedAction     `json:"actions,omitempty"`
	Error      string                `json:"error,omitempty"`
}

// ExplainedCondition is one condition that was asked.
type ExplainedCondition struct {
	Part  string        `json:"part"` // one of the Part constants
	Name  string        `json:"name,omitempty"`
	Trace *policy.Trace `json:"trace"`
}

// ExplainedAction is an action of the verdict.
type ExplainedAction struct {
	Kind    string `json:"kind"`
	Message string `json:"message,omitempty"`
}

// What else keeps a policy from a verdict on an entry.
const (
	EndType      = "type"      // it judges no entries of this type
	EndUndecided = "undecided" // it gave an error instead
)

// Explain judges an entry as Eval does, st included, and says what the policy
// with this name made of it. An error wraps record.ErrReject where there is no
// such policy or the entry cannot be judged.
func (e *Engine) Explain(st *State, leaf record.Leaf, leafHash record.Hash, payload record.Message, name string) (*Explanation, error) {
	p := e.Policy(name)
	if p == nil {
		return nil, fmt.Errorf("explain: bundle %q has no policy %q: %w", e.bundle.Name, name, record.ErrReject)
	}
	x := &Explanation{Policy: p.Name, Title: p.Title, Index: leaf.Index, Class: leaf.Header.Class.String(), Origin: leaf.Origin.String(),
		Time: time.Unix(0, leaf.Wall).UTC().Format(time.RFC3339Nano), By: EndType}
	var broken []error
	o := &Observer{
		Asked: func(q *policy.Policy, part, name string, c *policy.Condition, ev *event.Event) {
			if q != p {
				return
			}
			tr, err := e.bundle.Tracer(c).Eval(ev)
			broken = append(broken, err)
			x.Conditions = append(x.Conditions, &ExplainedCondition{Part: part, Name: name, Trace: tr})
		},
		Ended: func(q *policy.Policy, by, detail string) {
			if q == p {
				x.By, x.Detail = by, detail
			}
		},
	}
	verdicts, err := e.Observe(st, leaf, leafHash, payload, o)
	if err == nil {
		err = errors.Join(broken...)
	}
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	if p.Mode == policy.ModeOff { // it is not even among those that are asked
		x.By = EndOff
	}
	x.Mode, x.VM = e.Mode(p, st.vm.UUID).String(), policy.Safe(st.vm.Name)
	for _, v := range verdicts {
		x.verdict(v)
	}
	x.Why = x.why(p)
	return x, nil
}

// Policy returns the policy of the bundle with this name, or nil.
func (e *Engine) Policy(name string) *policy.Policy {
	for _, p := range e.bundle.Policies {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (x *Explanation) verdict(v *record.Verdict) {
	switch {
	case v.Policy != x.Policy || v.CauseShard != 0 || v.CauseIndex != x.Index || v.Error == "" && ClassOf(v) != record.ClassPolicyVerdict:
		return // another's, the report of a cooldown that has ended, or the use of an approval
	case v.Error != "":
		x.Error = v.Error
		if !x.Matched {
			x.By, x.Detail = EndUndecided, ""
		}
	default:
		x.Matched, x.By, x.Detail = true, "", ""
	}
	for _, a := range v.Actions {
		x.Actions = append(x.Actions, ExplainedAction{Kind: a.Kind, Message: a.Message})
	}
}

// why is the reason in one sentence without its full stop.
func (x *Explanation) why(p *policy.Policy) string {
	switch x.By {
	case "":
		if x.Mode == policy.ModeAudit.String() {
			return "it matches; its mode is audit, so that its actions are recorded and not done"
		}
		return "it matches"
	case EndType:
		return fmt.Sprintf("it does not judge %s entries", x.Class)
	case EndUndecided:
		return "it could not be decided: " + x.Error
	case EndOff:
		return "its mode on this VM is off"
	case EndTarget:
		return "its target does not select this VM"
	case EndOwn:
		return "a policy caused this entry, and what policies cause of policies is not judged again"
	case EndCondition:
		return "its condition is false"
	case EndException:
		return fmt.Sprintf("its condition is true, and the exception %q covers it", x.Detail)
	case EndApproval:
		return fmt.Sprintf("its condition is true, and the approval %q covers it", x.Detail)
	case EndThreshold:
		return "its condition is true, and has not been true often enough" + counted(x.Detail)
	case EndSequence:
		if x.Detail == "" {
			return "no step of its sequence is reached"
		}
		return fmt.Sprintf("its sequence has reached the step %q, which is not the last", x.Detail)
	case EndSeen:
		return "its condition is true, and these values have been seen before, or are still being learnt"
	case EndError:
		return "it could not be decided, and its on_error ignores that: " + policy.Safe(x.Detail)
	case EndCooldown:
		return "it matches, and its cooldown swallows the repeat"
	}
	return x.By
}

func counted(detail string) string {
	if detail == "" {
		return ""
	}
	return " (" + detail + ")"
}
