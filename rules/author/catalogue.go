package author

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/policy"
)

// Catalogue writes what a bundle watches for as Markdown: a table of its policies,
// which techniques of ATT&CK they cover, and each policy with the comment above it
// and its text.
func Catalogue(w io.Writer, b *policy.Bundle) error {
	o := b.Outline()
	var t strings.Builder
	fmt.Fprintf(&t, "# Policies of %s %s\n\nWritten by `provost policy docs`. %d policies, digest `%s`.\n", cell(b.Name), cell(b.Version), len(b.Policies), b.Digest)
	if b.Mode != policy.ModeUnset {
		fmt.Fprintf(&t, "No policy of the bundle is stronger than `%s`.\n", b.Mode)
	}
	t.WriteString("\n| policy | watches for | severity | mode | event types | actions |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, p := range b.Policies {
		fmt.Fprintf(&t, "| [%s](#%s) | %s | %s | %s | %s | %s |\n", p.Name, p.Name, cell(p.Title), p.Severity, capped(p, b.Mode), eventTypes(p), actions(p))
	}
	matrix(&t, b)
	for _, p := range b.Policies {
		section(&t, p, o)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// cell makes a text fit for a cell of a table, without markup of its own.
func cell(s string) string {
	return strings.NewReplacer("\n", " ", "\r", " ", "|", `\|`, "<", "&lt;", "`", "'", "[", `\[`, "*", `\*`).Replace(s)
}

func eventTypes(p *policy.Policy) string {
	var all []string
	for _, c := range p.On {
		all = append(all, c.String())
	}
	return strings.Join(all, ", ")
}

func actions(p *policy.Policy) string {
	var all []string
	for _, a := range p.Actions {
		all = append(all, a.Kind)
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

// matrix lists the techniques that policies name under their tactics.
func matrix(t *strings.Builder, b *policy.Bundle) {
	covered := map[string][]string{}
	for _, p := range b.Policies {
		for _, id := range p.Attack {
			covered[id] = append(covered[id], fmt.Sprintf("[%s](#%s)", p.Name, p.Name))
		}
	}
	t.WriteString("\n## ATT&CK\n\n")
	if len(covered) == 0 {
		t.WriteString("No policy names a technique.\n")
		return
	}
	t.WriteString("What policies say of themselves. A policy that names a technique sees some of its uses, seldom all.\n\n| tactic | technique | policies |\n| --- | --- | --- |\n")
	row := func(tactic, id string) {
		name := id
		if k := techniques[id]; k.name != "" {
			name += " " + k.name
		}
		fmt.Fprintf(t, "| %s | [%s](https://attack.mitre.org/techniques/%s/) | %s |\n", tactic, name, strings.ReplaceAll(id, ".", "/"), strings.Join(covered[id], ", "))
	}
	all := slices.Sorted(func(yield func(string) bool) {
		for id := range covered {
			if !yield(id) {
				return
			}
		}
	})
	for _, tactic := range tactics {
		for _, id := range all {
			if slices.Contains(techniques[id].tactics, tactic.key) {
				row(tactic.name, id)
			}
		}
	}
	for _, id := range all {
		if techniques[id].name == "" {
			row("not in this table", id)
		}
	}
}

func section(t *strings.Builder, p *policy.Policy, o *policy.Outline) {
	fmt.Fprintf(t, "\n## %s\n\n%s\n", p.Name, cell(p.Title))
	for _, text := range []string{p.Description, o.Policies[p.Name].Comment} {
		if text != "" {
			fmt.Fprintf(t, "\n%s\n", strings.ReplaceAll(text, "<", "&lt;"))
		}
	}
	var facts []string
	if p.Owner != "" {
		facts = append(facts, "Owner: "+cell(p.Owner)+".")
	}
	if len(p.Tags) > 0 {
		facts = append(facts, "Tags: "+cell(strings.Join(p.Tags, ", "))+".")
	}
	if uses := o.Uses[p.Name]; len(uses) > 0 {
		facts = append(facts, "Uses `"+strings.Join(uses, "`, `")+"`.")
	}
	if len(facts) > 0 {
		fmt.Fprintf(t, "\n%s\n", strings.Join(facts, " "))
	}
	for _, r := range p.References {
		fmt.Fprintf(t, "- <%s>\n", strings.NewReplacer("<", "%3C", ">", "%3E", "\n", "").Replace(r))
	}
	source := o.Policies[p.Name].Source
	fence := "```"
	for strings.Contains(source, fence) {
		fence += "`"
	}
	fmt.Fprintf(t, "\n%shcl\n%s\n%s\n", fence, source, fence)
}
