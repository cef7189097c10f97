package author

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/policy"
)

// Diff is what differs between two bundles in meaning: spacing, comments and the
// order of files and blocks are none of it.
type Diff struct {
	Old      BundleID     `json:"old"`
	New      BundleID     `json:"new"`
	Bundle   []Change     `json:"bundle"`
	Policies []PolicyDiff `json:"policies"` // in order of name
	Lists    []ListDiff   `json:"lists"`    // in order of name
	Macros   []Change     `json:"macros"`
	Locals   []Change     `json:"locals"`
	// Retouched are policies whose text has changed and whose meaning has not.
	Retouched []string `json:"retouched"`
}

// BundleID names a bundle.
type BundleID struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Digest   string `json:"digest"`
	Policies int    `json:"policies"`
}

// What has become of a policy or a list.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Change is one setting. One that is not there is empty.
type Change struct {
	What string `json:"what"` // such as `action "alert".message`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// PolicyDiff is one policy.
type PolicyDiff struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Title    string   `json:"title"`
	Severity string   `json:"severity"`
	Mode     string   `json:"mode"` // of policy and bundle
	OldMode  string   `json:"old_mode,omitempty"`
	Actions  []string `json:"actions"`
	Changes  []Change `json:"changes"`
	// Through are changed lists, macros and locals that the policy uses.
	Through []string `json:"through"`
	// Forgets says that what the policy remembers (cooldowns, windows) is lost
	// when the new bundle is applied: it would have another meaning.
	Forgets bool `json:"forgets"`
}

// ListDiff is one list.
type ListDiff struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Type    string   `json:"type"`
	OldType string   `json:"old_type,omitempty"`
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
}

// Empty reports whether the bundles mean the same.
func (d *Diff) Empty() bool {
	return len(d.Bundle)+len(d.Policies)+len(d.Lists)+len(d.Macros)+len(d.Locals) == 0
}

// Compare returns what differs between two bundles.
func Compare(before, after *policy.Bundle) *Diff {
	o, n := before.Outline(), after.Outline()
	d := &Diff{Old: id(before), New: id(after), Policies: []PolicyDiff{}, Lists: []ListDiff{}, Retouched: []string{},
		Macros: texts("macro.", o.Macros, n.Macros), Locals: texts("local.", o.Locals, n.Locals)}
	d.Bundle = texts("", o.Bundle.Attributes, n.Bundle.Attributes)
	for _, name := range union(o.Lists, n.Lists) {
		if l, differs := compareList(name, o.Lists, n.Lists); differs {
			d.Lists = append(d.Lists, l)
		}
	}
	changed := map[string]bool{}
	for _, c := range slices.Concat(d.Macros, d.Locals) {
		changed[c.What] = true
	}
	for _, l := range d.Lists {
		changed["list."+l.Name] = true
	}
	was, is := byName(before), byName(after)
	for _, name := range union(was, is) {
		p := comparePolicy(name, was[name], is[name], before.Mode, after.Mode, o, n)
		for _, u := range n.Uses[name] {
			if changed[u] && p.Kind == Changed {
				p.Through = append(p.Through, u)
			}
		}
		switch {
		case p.Kind != Changed || len(p.Changes)+len(p.Through) > 0 || p.Mode != p.OldMode:
			d.Policies = append(d.Policies, p)
		case was[name].Digest != is[name].Digest:
			d.Retouched = append(d.Retouched, name)
		}
	}
	return d
}

func id(b *policy.Bundle) BundleID {
	return BundleID{Name: b.Name, Version: b.Version, Digest: b.Digest.String(), Policies: len(b.Policies)}
}

func byName(b *policy.Bundle) map[string]*policy.Policy {
	m := make(map[string]*policy.Policy, len(b.Policies))
	for _, p := range b.Policies {
		m[p.Name] = p
	}
	return m
}

func union[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

func texts(prefix string, before, after map[string]string) []Change {
	out := []Change{}
	for _, name := range union(before, after) {
		if before[name] != after[name] {
			out = append(out, Change{prefix + name, before[name], after[name]})
		}
	}
	return out
}

func compareList(name string, before, after map[string]policy.OutlineList) (ListDiff, bool) {
	o, was := before[name]
	n, is := after[name]
	d := ListDiff{Name: name, Kind: Changed, Type: n.Type, Added: without(n.Values, o.Values), Removed: without(o.Values, n.Values)}
	switch {
	case !was:
		d.Kind = Added
	case !is:
		d.Kind, d.Type = Removed, o.Type
	case o.Type != n.Type:
		d.OldType = o.Type
	case len(d.Added)+len(d.Removed) == 0:
		return d, false
	}
	return d, true
}

// without returns the values of a that b lacks; both are sorted.
func without(a, b []string) []string {
	out := []string{}
	for _, s := range a {
		if _, found := slices.BinarySearch(b, s); !found {
			out = append(out, s)
		}
	}
	return out
}

// capped is the mode that a bundle lets a policy have.
func capped(p *policy.Policy, bundle policy.Mode) string {
	if bundle != policy.ModeUnset {
		return min(p.Mode, bundle).String()
	}
	return p.Mode.String()
}

func comparePolicy(name string, before, after *policy.Policy, oldMode, newMode policy.Mode, o, n *policy.Outline) PolicyDiff {
	p, kind, mode := after, Changed, newMode
	switch {
	case before == nil:
		kind = Added
	case after == nil:
		p, kind, mode = before, Removed, oldMode
	}
	d := PolicyDiff{Name: name, Kind: kind, Title: p.Title, Severity: p.Severity, Mode: capped(p, mode), Actions: []string{}, Changes: []Change{}, Through: []string{}}
	for _, a := range p.Actions {
		d.Actions = append(d.Actions, a.Kind)
	}
	if kind != Changed {
		return d
	}
	d.OldMode = capped(before, oldMode)
	d.Forgets = forgets(before, after)
	if before.Digest == after.Digest {
		return d
	}
	if before.Mode != after.Mode {
		d.Changes = append(d.Changes, Change{"mode", before.Mode.String(), after.Mode.String()})
	}
	if before.Severity != after.Severity {
		d.Changes = append(d.Changes, Change{"severity", before.Severity, after.Severity})
	}
	was, is := o.Policies[name], n.Policies[name]
	for _, b := range []policy.OutlineBlock{was, is} {
		delete(b.Attributes, "mode") // compared with their defaults above
		delete(b.Attributes, "severity")
	}
	d.Changes = append(d.Changes, compareBlock("", was, is)...)
	return d
}

func compareBlock(path string, before, after policy.OutlineBlock) []Change {
	out := texts(path, before.Attributes, after.Attributes)
	was, is := titles(before.Blocks), titles(after.Blocks)
	for _, t := range union(was, is) {
		o, n := was[t], is[t]
		switch {
		case o == nil:
			out = append(out, Change{What: path + t, New: plainBlock(n)})
		case n == nil:
			out = append(out, Change{What: path + t, Old: plainBlock(o)})
		default:
			out = append(out, compareBlock(path+t+".", *o, *n)...)
		}
	}
	if a, b := order(before.Blocks, was, is), order(after.Blocks, was, is); a != b {
		out = append(out, Change{What: path + "order", Old: a, New: b})
	}
	return out
}

func titles(blocks []policy.OutlineBlock) map[string]*policy.OutlineBlock {
	m := make(map[string]*policy.OutlineBlock, len(blocks))
	for i := range blocks {
		m[blocks[i].Title] = &blocks[i]
	}
	return m
}

// order lists the actions and steps that both sides have: they are done, and
// expected, in order of writing.
func order(blocks []policy.OutlineBlock, was, is map[string]*policy.OutlineBlock) string {
	var all []string
	for _, b := range blocks {
		kind, _, _ := strings.Cut(b.Title, " ")
		if (kind == "action" || kind == "step") && was[b.Title] != nil && is[b.Title] != nil {
			all = append(all, b.Title)
		}
	}
	return strings.Join(all, ", ")
}

// plainBlock writes a block in one line.
func plainBlock(b *policy.OutlineBlock) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(b.Attributes)) {
		parts = append(parts, name+" = "+b.Attributes[name])
	}
	for i := range b.Blocks {
		parts = append(parts, b.Blocks[i].Title+" "+plainBlock(&b.Blocks[i]))
	}
	if len(parts) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(parts, "; ") + " }"
}

// maxValues bounds how many values of a list are written out.
const maxValues = 10

// WriteText writes the difference for people.
func (d *Diff) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s %s, %d policies, digest %.16s\n+++ %s %s, %d policies, digest %.16s\n", d.Old.Name, d.Old.Version, d.Old.Policies, d.Old.Digest, d.New.Name, d.New.Version, d.New.Policies, d.New.Digest)
	if d.Empty() {
		b.WriteString("\nThey mean the same.\n")
	}
	writeChanges(&b, "\nbundle\n", d.Bundle)
	for _, p := range d.Policies {
		p.write(&b)
	}
	for _, l := range d.Lists {
		fmt.Fprintf(&b, "\n%s list %s (%s)\n", sign(l.Kind), l.Name, l.Type)
		if l.OldType != "" {
			fmt.Fprintf(&b, "    type: %s -> %s\n", l.OldType, l.Type)
		}
		writeValues(&b, "+", l.Added)
		writeValues(&b, "-", l.Removed)
	}
	writeChanges(&b, "\nmacros\n", d.Macros)
	writeChanges(&b, "\nlocals\n", d.Locals)
	if len(d.Retouched) > 0 {
		fmt.Fprintf(&b, "\nother spacing or comments only: %s\n", strings.Join(d.Retouched, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sign(kind string) string {
	return map[string]string{Added: "+", Removed: "-", Changed: "~"}[kind]
}

func (p *PolicyDiff) write(b *strings.Builder) {
	mode := p.Mode
	if p.OldMode != "" && p.OldMode != p.Mode {
		mode = p.OldMode + " -> " + p.Mode
	}
	fmt.Fprintf(b, "\n%s policy %s (%s, %s; %s)\n", sign(p.Kind), p.Name, p.Severity, mode, cmp.Or(strings.Join(p.Actions, ", "), "no action"))
	writeChanges(b, "", p.Changes)
	if len(p.Through) > 0 {
		fmt.Fprintf(b, "    means something else through %s\n", strings.Join(p.Through, ", "))
	}
	if p.Forgets {
		b.WriteString("    what it remembers begins anew: cooldowns and windows\n")
	}
}

func writeChanges(b *strings.Builder, head string, all []Change) {
	if len(all) > 0 {
		b.WriteString(head)
	}
	for _, c := range all {
		fmt.Fprintf(b, "    %s\n", c.What)
		if c.Old != "" {
			fmt.Fprintf(b, "      - %s\n", c.Old)
		}
		if c.New != "" {
			fmt.Fprintf(b, "      + %s\n", c.New)
		}
	}
}

func writeValues(b *strings.Builder, sign string, values []string) {
	for _, v := range values[:min(len(values), maxValues)] {
		fmt.Fprintf(b, "    %s %s\n", sign, v)
	}
	if n := len(values) - maxValues; n > 0 {
		fmt.Fprintf(b, "    %s %d more\n", sign, n)
	}
}
