package policy

import (
	"slices"
	"time"
)

// Memory is how far back entries may bear upon what the policy makes of a new
// one, its target and approvals apart.
func (p *Policy) Memory() time.Duration {
	var back time.Duration
	for _, t := range p.thresholds() {
		back = max(back, t.Window)
	}
	if s := p.Sequence; s != nil {
		back = max(back, s.Within)
	}
	if f := p.FirstSeen; f != nil {
		back = max(back, f.History+f.Learn)
	}
	if l := p.Limit; l != nil {
		back = max(back, l.Per)
	}
	if c := p.Cooldown; c != nil {
		// What fired within its period did so by what came before.
		back += c.Period
	}
	return back
}

func (p *Policy) thresholds() []*Threshold {
	var all []*Threshold
	if p.Threshold != nil {
		all = append(all, p.Threshold)
	}
	for _, e := range p.Escalates {
		all = append(all, e.Threshold)
	}
	return all
}

// Channels are the alert channels that the bundle names, in order.
func Channels(b *Bundle) []string {
	var all []string
	for _, p := range b.Policies {
		actions := slices.Clone(p.Actions)
		for _, e := range p.Escalates {
			actions = append(actions, e.Actions...)
		}
		for _, a := range actions {
			all = append(all, a.Channels...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Nearest returns the name that whoever wrote word most likely meant, or "".
func Nearest(word string, names []string) string { return suggest(word, names) }
