package lsp

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// definition is a list, local, macro or policy.
type definition struct {
	kind, name string
	file       string
	start, end int // of the name, in the file
	from, to   int // of the whole
	doc        string
}

// String returns the name as conditions write it.
func (d definition) String() string { return d.kind + "." + d.name }

func (d definition) detail() string { return d.kind + " of " + d.file }

// maxDefinition bounds how much of a definition is shown.
const maxDefinition = 1500

// definitionsOf finds the definitions in the texts of a bundle, in order of
// their files.
func definitionsOf(texts map[string][]byte) []definition {
	var all []definition
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		all = append(all, definitionsIn(file, texts[file])...)
	}
	return all
}

func definitionsIn(file string, text []byte) []definition {
	var all []definition
	tokens, _ := hclsyntax.LexConfig(text, file, hcl.InitialPos)
	depth, start := 0, 0
	var line hclsyntax.Tokens // words before a block's brace
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if depth == 0 && t.Type == hclsyntax.TokenOBrace {
				start = len(all)
				all = append(all, blockDefinitions(file, text, line, t.Range.End.Byte)...)
			}
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			if depth = max(0, depth-1); depth == 0 {
				for i := start; i < len(all); i++ {
					all[i].close(text, t.Range.End.Byte)
				}
				start, line = len(all), nil
			}
		case hclsyntax.TokenNewline:
			if depth == 0 {
				line = nil
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenQuotedLit:
			if depth == 0 {
				line = append(line, t)
			}
		}
	}
	for i := start; i < len(all); i++ { // the last block has no end yet
		all[i].close(text, len(text))
	}
	return all
}

// blockDefinitions returns what a block of the file defines.
func blockDefinitions(file string, text []byte, line hclsyntax.Tokens, body int) []definition {
	if len(line) == 0 {
		return nil
	}
	typ := string(line[0].Bytes)
	switch {
	case (typ == "list" || typ == "macro" || typ == "policy") && len(line) == 2:
		r := line[1].Range
		return []definition{{kind: typ, name: string(line[1].Bytes), file: file, start: r.Start.Byte, end: r.End.Byte, from: line[0].Range.Start.Byte}}
	case typ == "locals":
		var all []definition
		for name, at := range innerOf(text, body).names {
			all = append(all, definition{kind: "local", name: name, file: file, start: at.start, end: at.end, from: at.start})
		}
		slices.SortFunc(all, func(a, b definition) int { return a.start - b.start })
		return all
	}
	return nil
}

// close sets the end of a definition and with it what is shown of it.
func (d *definition) close(text []byte, end int) {
	d.to = end
	if d.kind == "local" {
		if i := strings.IndexByte(string(text[d.from:end]), '\n'); i >= 0 {
			d.to = d.from + i
		}
	}
	shown := strings.ToValidUTF8(string(text[d.from:min(d.to, d.from+maxDefinition)]), "")
	if d.to > d.from+maxDefinition {
		shown += "\n..."
	}
	d.doc = "```hcl\n" + strings.ReplaceAll(shown, "```", "'''") + "\n```"
}

// reference is a name in a text: "process.name", "list.shells", "under".
type reference struct {
	name       string
	parts      []span2
	start, end int
	call       bool // an opening parenthesis follows
}

// referenceAt returns the name that a byte is in or at the end of.
func referenceAt(text []byte, at int) (reference, bool) {
	for _, r := range referencesIn(text) {
		if r.start <= at && at <= r.end {
			return r, true
		}
	}
	return reference{}, false
}

// referencesIn returns all names of a text that stand outside of quotes, and
// those in "${...}".
func referencesIn(text []byte) []reference {
	tokens, _ := hclsyntax.LexConfig(text, "", hcl.InitialPos)
	var all []reference
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if t.Type != hclsyntax.TokenIdent {
			continue
		}
		r := reference{name: string(t.Bytes), start: t.Range.Start.Byte, end: t.Range.End.Byte, parts: []span2{{t.Range.Start.Byte, t.Range.End.Byte}}}
		for i+2 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenDot && tokens[i+2].Type == hclsyntax.TokenIdent {
			i += 2
			at := tokens[i].Range
			r.name += "." + string(tokens[i].Bytes)
			r.end = at.End.Byte
			r.parts = append(r.parts, span2{at.Start.Byte, at.End.Byte})
		}
		r.call = i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenOParen
		all = append(all, r)
	}
	return all
}

// defined returns the list, local or macro that a reference names, as
// "list.shells".
func (r reference) defined() string {
	parts := strings.Split(r.name, ".")
	if len(parts) < 2 || parts[0] != "list" && parts[0] != "macro" && parts[0] != "local" {
		return ""
	}
	return parts[0] + "." + parts[1]
}

// target returns the definition that a place names: a use of it, or its own
// name.
func target(texts map[string][]byte, file string, at int) (definition, bool) {
	all := definitionsOf(texts)
	for _, d := range all {
		if d.file == file && d.start <= at && at <= d.end {
			return d, true
		}
	}
	r, ok := referenceAt(texts[file], at)
	if !ok {
		return definition{}, false
	}
	for _, d := range all {
		if d.String() == r.defined() {
			return d, true
		}
	}
	return definition{}, false
}

func (s *server) definition(_ context.Context, p positionParams) ([]location, error) {
	dir, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) {
		return []location{}, err
	}
	b := s.bundleOf(dir)
	defer b.close()
	texts := b.texts()
	d, ok := target(texts, name, offset(text, p.Position))
	if !ok {
		return []location{}, nil
	}
	uri, _ := s.uri(dir, d.file)
	return []location{{URI: uri, Range: spanOf(texts[d.file], d.start, d.end)}}, nil
}

// uses returns where a definition's name stands: in the definition and
// wherever it is used.
func uses(texts map[string][]byte, d definition) map[string][]span2 {
	all := map[string][]span2{d.file: {{d.start, d.end}}}
	for file, text := range texts {
		for _, r := range referencesIn(text) {
			if r.defined() == d.String() {
				all[file] = append(all[file], r.parts[1])
			}
		}
	}
	return all
}

func (s *server) references(_ context.Context, p positionParams) ([]location, error) {
	dir, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) {
		return []location{}, err
	}
	b := s.bundleOf(dir)
	defer b.close()
	texts := b.texts()
	found := []location{}
	if d, ok := target(texts, name, offset(text, p.Position)); ok {
		all := uses(texts, d)
		for _, file := range slices.Sorted(maps.Keys(all)) {
			uri, _ := s.uri(dir, file)
			for _, at := range all[file] {
				found = append(found, location{URI: uri, Range: spanOf(texts[file], at.start, at.end)})
			}
		}
	}
	return found, nil
}

var validName = regexp.MustCompile(`\A[a-z_][a-z0-9_]{0,127}\z`)

func (s *server) rename(_ context.Context, p renameParams) (*workspaceEdit, error) {
	dir, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) {
		return nil, err
	}
	if !validName.MatchString(p.NewName) {
		return nil, fmt.Errorf("rename to %q: a name starts with a lower-case letter and has only a-z, 0-9 and \"_\": %w", p.NewName, record.ErrReject)
	}
	b := s.bundleOf(dir)
	defer b.close()
	texts := b.texts()
	d, ok := target(texts, name, offset(text, p.Position))
	if !ok {
		return nil, fmt.Errorf("rename: here is no list, local, macro or policy of the bundle: %w", record.ErrReject)
	}
	for _, other := range definitionsOf(texts) {
		if other.kind == d.kind && other.name == p.NewName && d.name != p.NewName {
			return nil, fmt.Errorf("rename %s: %s is defined in %s already: %w", d, other, other.file, record.ErrReject)
		}
	}
	edit := &workspaceEdit{Changes: make(map[string][]textEdit)}
	for file, all := range uses(texts, d) {
		uri, _ := s.uri(dir, file)
		for _, at := range all {
			edit.Changes[uri] = append(edit.Changes[uri], textEdit{Range: spanOf(texts[file], at.start, at.end), NewText: p.NewName})
		}
	}
	return edit, nil
}

// symbolKinds are the protocol's numbers.
var symbolKinds = map[string]int{"policy": 5, "macro": 12, "list": 18, "local": 14}

func (s *server) symbols(_ context.Context, p documentParams) ([]documentSymbol, error) {
	_, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) || len(text) > policy.MaxFileSize {
		return []documentSymbol{}, err
	}
	all := []documentSymbol{}
	for _, d := range definitionsIn(filepath.Base(name), text) {
		all = append(all, documentSymbol{Name: d.name, Detail: d.kind, Kind: symbolKinds[d.kind],
			Range: spanOf(text, d.from, d.to), SelectionRange: spanOf(text, d.start, d.end)})
	}
	return all, nil
}
