package rules

import (
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/index"
	"github.com/provostd/provost/rules/policy"
)

// part is one condition of a policy, which the index files by itself.
type part struct {
	policy    int // in the bundle
	step      int // number in the sequence, behind the steps that of the reset; else 0
	on        []record.Class
	condition *policy.Condition
}

// partsOf returns the conditions of the policy with number i.
func partsOf(i int, p *policy.Policy) []part {
	if p.Sequence == nil {
		return []part{{policy: i, on: p.On, condition: p.Condition}}
	}
	var all []part
	for n, s := range p.Sequence.Steps {
		all = append(all, part{policy: i, step: n, on: s.On, condition: s.Condition})
	}
	if r := p.Sequence.Reset; r != nil {
		all = append(all, part{policy: i, step: len(all), on: r.On, condition: r.Condition})
	}
	return all
}

// names returns which part of the policy it is: one of the Part constants, and
// the step's name.
func (n *part) names(p *policy.Policy) (part, name string) {
	switch {
	case p.Sequence == nil:
		return PartCondition, ""
	case n.step == len(p.Sequence.Steps):
		return PartReset, ""
	}
	return PartStep, p.Sequence.Steps[n.step].Name
}

func newIndex(parts []part) *index.Index {
	list := make([]index.Part, len(parts))
	for i, p := range parts {
		list[i] = index.Part{On: p.on, Condition: p.condition}
	}
	return index.New(list)
}
