package author

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/index"
	"github.com/provostd/provost/rules/policy"
)

// Cost is what the conditions of a bundle cost, as far as their text tells.
type Cost struct {
	Conditions []ConditionCost `json:"conditions"` // in order of policies
	Unguarded  int             `json:"unguarded"`  // conditions that are evaluated for each event of some type
	Slow       int             `json:"slow"`       // parts that are evaluated through cty
}

// ConditionCost is one condition on one type of event.
type ConditionCost struct {
	Policy string `json:"policy"`
	Part   string `json:"part"` // condition, or a step of a sequence
	Type   string `json:"type"`
	// Guard is what the index asks before the condition; empty: it is evaluated for each
	// event of the type.
	Guard string `json:"guard,omitempty"`
	// Candidates is how many of 1,000 events of the type get past the guard, about.
	Candidates float64     `json:"candidates_per_1000"`
	Slow       []SlowPlace `json:"slow,omitempty"`
}

// SlowPlace is a part of a condition that has no closure: some thousand times slower.
type SlowPlace struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// part is a condition of a policy.
type part struct {
	policy, name string
	on           []record.Class
	condition    *policy.Condition
}

func partsOf(b *policy.Bundle) (all []part) {
	for _, p := range b.Policies {
		if p.Sequence == nil {
			all = append(all, part{p.Name, "condition", p.On, p.Condition})
			continue
		}
		for _, s := range p.Sequence.Steps {
			all = append(all, part{p.Name, "step " + s.Name, s.On, s.Condition})
		}
		if s := p.Sequence.Reset; s != nil {
			all = append(all, part{p.Name, "reset", s.On, s.Condition})
		}
	}
	return all
}

// CostOf says what the conditions of a bundle cost.
func CostOf(b *policy.Bundle) *Cost {
	parts := partsOf(b)
	indexed := make([]index.Part, len(parts))
	for i, p := range parts {
		indexed[i] = index.Part{Condition: p.condition, On: p.on}
	}
	x := index.New(indexed)
	out := &Cost{Conditions: []ConditionCost{}}
	for i, p := range parts {
		var slow []SlowPlace
		if p.condition != nil {
			for _, r := range p.condition.Slow() {
				slow = append(slow, SlowPlace{r.Filename, r.Start.Line, sourceOf(b, r.Filename, r.Start.Byte, r.End.Byte)})
			}
		}
		out.Slow += len(slow)
		free := false
		for _, c := range p.on {
			one := ConditionCost{Policy: p.policy, Part: p.name, Type: c.String(), Candidates: 1000, Slow: slow}
			if g, ok := x.Guard(i, c); ok {
				one.Guard, one.Candidates = g.String(), 0
				for _, a := range g {
					one.Candidates += 1000 * a.Chance()
				}
				one.Candidates = min(one.Candidates, 1000)
			} else {
				free = true
			}
			out.Conditions = append(out.Conditions, one)
		}
		if free {
			out.Unguarded++
		}
	}
	return out
}

// sourceOf returns a part of a file in one line.
func sourceOf(b *policy.Bundle, name string, from, to int) string {
	data := b.Files[name]
	if from > to || to > len(data) {
		return ""
	}
	return strings.Join(strings.Fields(string(data[from:to])), " ")
}

// WriteText writes the cost for people: conditions that share a guard on several types
// in one line.
func (c *Cost) WriteText(w io.Writer) error {
	var b strings.Builder
	for i := 0; i < len(c.Conditions); {
		one := c.Conditions[i]
		var types []string
		for ; i < len(c.Conditions); i++ {
			if n := c.Conditions[i]; n.Policy != one.Policy || n.Part != one.Part || n.Guard != one.Guard {
				break
			}
			types = append(types, c.Conditions[i].Type)
		}
		guard := "every event: write a condition that names a path, a name, an address or another constant"
		if one.Guard != "" {
			guard = fmt.Sprintf("%s, about %.3g of 1,000 events", one.Guard, one.Candidates)
		}
		fmt.Fprintf(&b, "%s, %s on %s\n    asks first: %s\n", one.Policy, one.Part, strings.Join(types, ", "), guard)
		last := i == len(c.Conditions) || c.Conditions[i].Policy != one.Policy || c.Conditions[i].Part != one.Part
		if last {
			for _, s := range one.Slow {
				fmt.Fprintf(&b, "    slow: %s:%d: %s\n", s.File, s.Line, s.Text)
			}
		}
	}
	fmt.Fprintf(&b, "%d conditions are evaluated for each event of some type; %d parts are evaluated through cty\n", c.Unguarded, c.Slow)
	_, err := io.WriteString(w, b.String())
	return err
}

// memories are the digests of what a policy remembers, by the block that does.
func memories(p *policy.Policy) []policy.Digest {
	all := []policy.Digest{p.StateDigest}
	add := func(t *policy.Threshold) {
		if t != nil {
			all = append(all, t.StateDigest)
		}
	}
	add(p.Threshold)
	if p.Sequence != nil {
		all = append(all, p.Sequence.StateDigest)
	}
	if p.FirstSeen != nil {
		all = append(all, p.FirstSeen.StateDigest)
	}
	if p.Limit != nil {
		all = append(all, p.Limit.StateDigest)
	}
	for _, e := range p.Escalates {
		add(e.Threshold)
	}
	return all
}

// forgets reports whether something that a policy remembers is of no use to another
// version of it.
func forgets(before, after *policy.Policy) bool {
	now := memories(after)
	return slices.ContainsFunc(memories(before), func(d policy.Digest) bool { return !slices.Contains(now, d) })
}
