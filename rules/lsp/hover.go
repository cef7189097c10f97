package lsp

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

func (s *server) hover(_ context.Context, p positionParams) (*hover, error) {
	dir, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) || len(text) > policy.MaxFileSize {
		return nil, err
	}
	at := offset(text, p.Position)
	if doc, where, ok := quotedDoc(text, at); ok {
		if doc == "" {
			return nil, nil
		}
		return &hover{Contents: *markdown(doc), Range: spanOf(text, where.start, where.end)}, nil
	}
	r, ok := referenceAt(text, at)
	if !ok {
		return nil, nil
	}
	doc := s.nameDoc(dir, name, text, r)
	if doc == "" {
		return nil, nil
	}
	return &hover{Contents: *markdown(doc), Range: spanOf(text, r.start, r.end)}, nil
}

// quotedDoc explains an event type or the kind of an action in quotes.
func quotedDoc(text []byte, at int) (string, span2, bool) {
	p := placeAt(text, at)
	if !p.quoted {
		return "", span2{}, false
	}
	end := at
	for end < len(text) && text[end] != '"' && text[end] != '\n' {
		end++
	}
	where := span2{p.strStart, end}
	word := string(text[where.start:where.end])
	_, attr := p.block()
	if attr == "" && len(p.pending) == 1 && p.pending[0] == "action" {
		doc := blockDocs["action "+word]
		return doc, where, doc != ""
	}
	if c, err := record.ParseClass(word); attr == "on" && err == nil && event.IsSubject(c) {
		return classDoc(c), where, true
	}
	return "", where, true // nothing is known of other texts
}

// nameDoc explains a name outside of quotes.
func (s *server) nameDoc(dir, file string, text []byte, r reference) string {
	if r.defined() != "" {
		b := s.bundleOf(dir)
		defer b.close()
		if d, ok := target(b.texts(), file, r.start); ok {
			return d.doc + "\n\n" + d.detail()
		}
		return ""
	}
	for _, f := range policy.Functions() {
		if r.call && f.Name == r.name {
			return fmt.Sprintf("`%s` gives a %s\n\n%s", f.Usage, f.Returns, f.Doc)
		}
	}
	p := placeAt(text, r.start)
	if f, attr := p.block(); attr == "" && p.frames[len(p.frames)-1].block {
		return wordDoc(f, p, r)
	}
	parts := strings.Split(r.name, ".")
	if parts[0] == "step" && len(parts) > 2 {
		parts = parts[2:]
	}
	for n := len(parts); n > 0; n-- {
		if info, ok := event.Lookup(strings.Join(parts[:n], ".")); ok {
			return "**" + info.Name + "** (" + info.Kind.String() + ")\n\n" + fieldDoc(info)
		}
	}
	return ""
}

// wordDoc explains the name of an argument or a block.
func wordDoc(f *frame, p *place, r reference) string {
	if len(p.pending) > 0 {
		return ""
	}
	label := ""
	if len(f.labels) > 0 {
		label = f.labels[0]
	}
	shape, _ := policy.ShapeOf(f.typ, label)
	if slices.Contains(shape.Blocks, r.name) {
		return "**" + r.name + "**\n\n" + blockDocs[r.name]
	}
	if slices.Contains(shape.Arguments, r.name) {
		doc, _ := lookup(argumentDocs, f.typ, r.name)
		return "**" + r.name + "**\n\n" + doc
	}
	return ""
}

// fieldDoc explains a field: what it is, who says so, who else calls it what.
func fieldDoc(f *event.Info) string {
	var b strings.Builder
	b.WriteString(f.Doc)
	if len(f.Enum) > 0 {
		b.WriteString("\n\nOne of: " + strings.Join(f.Enum, ", ") + ".")
	}
	if f.Host {
		b.WriteString("\n\nThe host knows it.")
	} else {
		b.WriteString("\n\nThe event's author says so: what `event.origin` \"guest\" says, a hostile guest can forge.")
	}
	b.WriteString("\n\nOn: " + classList(f.Classes) + ".")
	if all := policy.AliasesOf(f.Name); len(all) > 0 {
		b.WriteString("\n\nElsewhere called: " + strings.Join(all, ", ") + ".")
	}
	return b.String()
}

// classList writes a set of types, whole categories as "file.*".
func classList(set event.ClassSet) string {
	total, have := make(map[string]int), make(map[string][]string)
	var order []string
	for _, c := range event.Subjects() {
		category, _, _ := strings.Cut(c.String(), ".")
		if total[category]++; set.Has(c) {
			if have[category] == nil {
				order = append(order, category)
			}
			have[category] = append(have[category], c.String())
		}
	}
	if len(order) == len(total) {
		return "all events"
	}
	var out []string
	for _, category := range order {
		if len(have[category]) == total[category] {
			out = append(out, category+".*")
		} else {
			out = append(out, have[category]...)
		}
	}
	return strings.Join(out, ", ")
}

// classDoc says which fields events of a type carry, by their first names.
func classDoc(c record.Class) string {
	var groups []string
	for _, name := range event.Names() {
		info, _ := event.Lookup(name)
		if root := info.Field.Root(); info.Classes.Has(c) && !slices.Contains(groups, root) {
			groups = append(groups, root)
		}
	}
	author := "the host"
	if c.FromGuest() {
		author = "the guest"
	}
	return fmt.Sprintf("**%s**, an event of %s\n\nFields: %s.*", c, author, strings.Join(groups, ".*, "))
}
