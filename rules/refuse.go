package rules

import (
	"fmt"
	"maps"
	"slices"

	"github.com/provostd/provost/rules/policy"
)

// Capabilities of a host besides kinds of action, for Options.Actions. An argument of an
// action is a capability of its own: the kind, a blank, its name, and where not every
// value can be honoured = and the value.
const (
	// CanPrevent is followed by the kind of a prevent block.
	CanPrevent = "prevent "
	// CanResolve says that names in prevent blocks have addresses here.
	CanResolve = "resolve names"
	// CanLimitHost says that enforcement counts limits of the whole host.
	CanLimitHost = "limit host"
)

// refuse returns what of a policy this host could not honour (I10).
func (e *Engine) refuse(p *policy.Policy) []error {
	var problems []error
	can := func(what string) bool { return e.opts.Actions == nil || slices.Contains(e.opts.Actions, what) }
	actions := slices.Clone(p.Actions)
	for _, x := range p.Escalates {
		actions = append(actions, x.Actions...)
	}
	for _, a := range actions {
		if !can(a.Kind) {
			problems = append(problems, fmt.Errorf("policy %q: this host cannot do the action %q", p.Name, a.Kind))
		}
		for _, ch := range a.Channels {
			if !slices.Contains(e.opts.Channels, ch) {
				hint := "alert_channel blocks of its configuration make them"
				if n := policy.Nearest(ch, e.opts.Channels); n != "" {
					hint = fmt.Sprintf("did you mean %q?", n)
				}
				problems = append(problems, fmt.Errorf("policy %q: this host has no alert channel %q; %s", p.Name, ch, hint))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(a.Parameters)) {
			if value := a.Parameters[name]; !can(a.Kind+" "+name) && !can(a.Kind+" "+name+"="+value) {
				problems = append(problems, fmt.Errorf("policy %q: this host cannot do the action %q with arguments %s = %q", p.Name, a.Kind, name, value))
			}
		}
	}
	for _, n := range p.Prevent {
		if !can(CanPrevent + n.Kind) {
			problems = append(problems, fmt.Errorf("policy %q: this host cannot prevent %s", p.Name, n.Kind))
		} else if n.ByName() && !can(CanResolve) {
			problems = append(problems, fmt.Errorf("policy %q: this host has no resolvers in its configuration (egress.resolvers) that could say which addresses names have", p.Name))
		}
	}
	if m := p.Limit; m != nil && m.Scope == policy.LimitHost && !can(CanLimitHost) {
		problems = append(problems, fmt.Errorf("policy %q: this host cannot count a limit of the scope \"host\"", p.Name))
	}
	if err := refuseApproval(p, e.opts.Approvers); err != nil {
		problems = append(problems, err)
	}
	return problems
}
