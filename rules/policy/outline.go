package policy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Outline is the text of a bundle without spacing, comments and order: what two
// bundles are compared by, and what a catalogue is written from.
type Outline struct {
	Bundle   OutlineBlock
	Policies map[string]OutlineBlock
	Lists    map[string]OutlineList
	Macros   map[string]string // condition
	Locals   map[string]string // value
	// Uses names the lists, macros and locals which a policy needs, directly or
	// not, such as "macro.is_shell", in order.
	Uses map[string][]string
}

// OutlineBlock is one block.
type OutlineBlock struct {
	Title      string            // such as `action "alert"`; equal ones are numbered
	Attributes map[string]string // expressions, in one line each
	Blocks     []OutlineBlock    // in order of writing
	Comment    string            // what stands right above it
	Source     string            // in canonical form
}

// OutlineList is a list with its values in order.
type OutlineList struct {
	Type   string
	Values []string
}

// Outline returns the outline of b.
func (b *Bundle) Outline() *Outline {
	o := &Outline{Policies: map[string]OutlineBlock{}, Lists: map[string]OutlineList{}, Macros: map[string]string{}, Locals: map[string]string{}, Uses: map[string][]string{}}
	needs := map[string]map[string]bool{}
	for _, name := range keys(b.Files) {
		if !strings.HasSuffix(name, Suffix) {
			continue
		}
		src := canonicalText(name, b.Files[name])
		f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
		if diags.HasErrors() {
			continue // it was loaded: Files was changed since
		}
		for _, blk := range f.Body.(*hclsyntax.Body).Blocks {
			o.add(blk, src, needs)
		}
	}
	for name, li := range b.env.lists {
		values := slices.Clone(li.values)
		slices.Sort(values)
		o.Lists[name] = OutlineList{Type: li.typ, Values: values}
	}
	for name := range o.Policies {
		o.Uses[name] = closure(needs, "policy."+name)
	}
	return o
}

func (o *Outline) add(blk *hclsyntax.Block, src []byte, needs map[string]map[string]bool) {
	switch blk.Type {
	case "bundle":
		o.Bundle = outlineBlock(blk, src)
	case "policy":
		o.Policies[blk.Labels[0]] = outlineBlock(blk, src)
		needs["policy."+blk.Labels[0]] = variables(blk.Body)
	case "macro":
		if a := blk.Body.Attributes["condition"]; a != nil {
			o.Macros[blk.Labels[0]] = oneLine(a.Expr.Range(), src)
		}
		needs["macro."+blk.Labels[0]] = variables(blk.Body)
	case "list":
		needs["list."+blk.Labels[0]] = variables(blk.Body)
	case "locals":
		for name, a := range blk.Body.Attributes {
			o.Locals[name] = oneLine(a.Expr.Range(), src)
			needs["local."+name] = variablesOf(a.Expr)
		}
	}
}

// closure returns what a name needs, directly or not.
func closure(needs map[string]map[string]bool, name string) []string {
	seen := map[string]bool{}
	todo := []string{name}
	for len(todo) > 0 {
		last := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for n := range needs[last] {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func variables(body *hclsyntax.Body) map[string]bool {
	all := map[string]bool{}
	for _, a := range body.Attributes {
		maps.Copy(all, variablesOf(a.Expr))
	}
	for _, b := range body.Blocks {
		maps.Copy(all, variables(b.Body))
	}
	return all
}

func variablesOf(x hclsyntax.Expression) map[string]bool {
	all := map[string]bool{}
	for _, t := range x.Variables() {
		if root := t.RootName(); root == "list" || root == "macro" || root == "local" {
			if name, ok := secondName(t); ok {
				all[root+"."+name] = true
			}
		}
	}
	return all
}

func outlineBlock(blk *hclsyntax.Block, src []byte) OutlineBlock {
	r := blockRange(blk)
	out := OutlineBlock{Title: blk.Type, Attributes: map[string]string{}, Comment: commentAbove(src, r.Start.Byte), Source: string(src[r.Start.Byte:r.End.Byte])}
	for _, l := range blk.Labels {
		out.Title += fmt.Sprintf(" %q", l)
	}
	for name, a := range blk.Body.Attributes {
		out.Attributes[name] = oneLine(a.Expr.Range(), src)
	}
	count := map[string]int{}
	for _, b := range blk.Body.Blocks {
		inner := outlineBlock(b, src)
		if count[inner.Title]++; count[inner.Title] > 1 {
			inner.Title += fmt.Sprintf(" (%d)", count[inner.Title])
		}
		out.Blocks = append(out.Blocks, inner)
	}
	return out
}

// oneLine writes an expression in one line, without comments.
func oneLine(r hcl.Range, src []byte) string {
	tokens, _ := hclsyntax.LexExpression(src[r.Start.Byte:r.End.Byte], r.Filename, r.Start)
	kept := tokens[:0:0]
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenComment, hclsyntax.TokenNewline, hclsyntax.TokenEOF:
		default:
			kept = append(kept, t)
		}
	}
	var b bytes.Buffer
	for i, t := range kept {
		closes := t.Type == hclsyntax.TokenCParen || t.Type == hclsyntax.TokenCBrack || t.Type == hclsyntax.TokenCBrace
		if i+1 < len(kept) && t.Type == hclsyntax.TokenComma {
			if n := kept[i+1].Type; n == hclsyntax.TokenCParen || n == hclsyntax.TokenCBrack || n == hclsyntax.TokenCBrace {
				continue // of a list that goes over several lines
			}
		}
		if i > 0 && !closes && t.Type != hclsyntax.TokenComma && kept[i-1].Range.End.Byte != t.Range.Start.Byte {
			if p := kept[i-1].Type; p != hclsyntax.TokenOParen && p != hclsyntax.TokenOBrack {
				b.WriteByte(' ')
			}
		}
		b.Write(t.Bytes)
	}
	return strings.TrimSpace(b.String())
}

// commentAbove returns the lines of comment that end right above a place.
func commentAbove(src []byte, at int) string {
	lines := strings.Split(strings.TrimSuffix(string(src[:at]), "\n"), "\n")
	first := len(lines)
	for first > 0 && (strings.HasPrefix(lines[first-1], "#") || strings.HasPrefix(lines[first-1], "//")) {
		first--
	}
	var out []string
	for _, l := range lines[first:] {
		l = strings.TrimPrefix(strings.TrimPrefix(l, "//"), "#")
		out = append(out, strings.TrimSpace(l))
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}
