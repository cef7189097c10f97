package policytest

import (
	"fmt"

	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// Coverage says which parts of a bundle its tests have seen come out in every
// way.
type Coverage struct {
	Points  int      `json:"points"`
	Covered int      `json:"covered"`
	Missing []*Point `json:"missing"`
}

// Percent is how much is covered, rounded down.
func (c *Coverage) Percent() int {
	if c.Points == 0 {
		return 100
	}
	return 100 * c.Covered / c.Points
}

// Point is something that can come out in two ways, or that must happen.
type Point struct {
	Policy string `json:"policy,omitempty"` // none for parts of macros
	Part   string `json:"part"`
	Name   string `json:"name,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Text   string `json:"text,omitempty"`
	// Never lists the ways in which it was never seen.
	Never []string `json:"never"`

	key  string
	seen map[string]bool
	want []string
}

// What a Point of a whole policy is about.
const (
	partSelects = "target selects" // the target as a whole
	partVerdict = "verdict"        // that the policy gives one
	partMacro   = "macro"          // a part of a macro, wherever it is used
)

// coverage collects what tests have seen.
type coverage struct {
	points []*Point
	byKey  map[string]*Point
}

// newCoverage lists what there is to be seen.
func newCoverage(b *policy.Bundle, tracer func(*policy.Condition) *policy.Tracer) *coverage {
	c := &coverage{byKey: make(map[string]*Point)}
	for _, p := range b.Policies {
		if p.Mode == policy.ModeOff || len(p.On) == 0 && p.Sequence == nil {
			continue // it judges nothing
		}
		c.add(&Point{Policy: p.Name, Part: partVerdict, key: p.Name + "\x00" + partVerdict, want: []string{policy.ResultTrue}})
		if p.Target != nil {
			c.add(&Point{Policy: p.Name, Part: partSelects, key: p.Name + "\x00" + partSelects, want: []string{policy.ResultTrue, policy.ResultFalse}})
			c.condition(p, rules.PartTarget, "", p.Target.Condition, tracer)
		}
		c.condition(p, rules.PartCondition, "", p.Condition, tracer)
		for _, x := range p.Exceptions {
			c.condition(p, rules.PartException, x.Name, x.Condition, tracer)
		}
		if s := p.Sequence; s != nil {
			for _, st := range s.Steps {
				c.condition(p, rules.PartStep, st.Name, st.Condition, tracer)
			}
			if s.Reset != nil {
				c.condition(p, rules.PartReset, "", s.Reset.Condition, tracer)
			}
		}
	}
	return c
}

func (c *coverage) add(p *Point) {
	if c.byKey[p.key] == nil {
		p.seen = make(map[string]bool)
		c.points = append(c.points, p)
		c.byKey[p.key] = p
	}
}

func (c *coverage) condition(p *policy.Policy, part, name string, cond *policy.Condition, tracer func(*policy.Condition) *policy.Tracer) {
	if cond == nil {
		return
	}
	walk(tracer(cond).Parts(), false, func(t *policy.Trace, inMacro bool) {
		pt := &Point{Policy: p.Name, Part: part, Name: name, File: t.File, Line: t.Line, Column: t.Column, Text: t.Text,
			key: pointKey(p, part, name, t, inMacro), want: []string{policy.ResultTrue, policy.ResultFalse}}
		if inMacro {
			pt.Policy, pt.Part, pt.Name = "", partMacro, ""
		}
		c.add(pt)
	})
}

// walk visits the parts that count: leaves and uses of macros.
func walk(t *policy.Trace, inMacro bool, f func(t *policy.Trace, inMacro bool)) {
	if (t.Kind == policy.PartLeaf || t.Kind == policy.PartMacro) && !t.Constant {
		f(t, inMacro)
	}
	for _, q := range t.Parts {
		walk(q, inMacro || t.Kind == policy.PartMacro, f)
	}
}

func pointKey(p *policy.Policy, part, name string, t *policy.Trace, inMacro bool) string {
	if inMacro {
		return t.ID()
	}
	return fmt.Sprintf("%s\x00%s\x00%s\x00%s", p.Name, part, name, t.ID())
}

func (c *coverage) see(key, result string) {
	if p := c.byKey[key]; p != nil {
		p.seen[result] = true
	}
}

func (c *coverage) asked(p *policy.Policy, part, name string, t *policy.Trace) {
	if part != rules.PartTarget {
		c.see(p.Name+"\x00"+partSelects, policy.ResultTrue)
	}
	walk(t, false, func(t *policy.Trace, inMacro bool) { c.see(pointKey(p, part, name, t, inMacro), t.Result) })
}

func (c *coverage) ended(p *policy.Policy, by string) {
	if by == rules.EndTarget {
		c.see(p.Name+"\x00"+partSelects, policy.ResultFalse)
	}
}

func (c *coverage) fired(p *policy.Policy) {
	c.see(p.Name+"\x00"+partVerdict, policy.ResultTrue)
	c.see(p.Name+"\x00"+partSelects, policy.ResultTrue)
}

func (c *coverage) report() *Coverage {
	out := &Coverage{Points: len(c.points), Missing: []*Point{}}
	for _, p := range c.points {
		for _, w := range p.want {
			if !p.seen[w] {
				p.Never = append(p.Never, w)
			}
		}
		if len(p.Never) == 0 {
			out.Covered++
		} else {
			out.Missing = append(out.Missing, p)
		}
	}
	return out
}
