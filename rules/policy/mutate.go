package policy

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Mutant is a bundle with one operator of a condition turned around: tests that
// still pass do not need that operator.
type Mutant struct {
	Place
	Column int    `json:"column"`
	Was    string `json:"was"`
	Is     string `json:"is"`

	from, to int // bytes of the file
}

// mutations turn an operator around.
var mutations = map[hclsyntax.TokenType]string{
	hclsyntax.TokenAnd: "||", hclsyntax.TokenOr: "&&", hclsyntax.TokenEqualOp: "!=", hclsyntax.TokenNotEqual: "==",
	hclsyntax.TokenLessThan: ">=", hclsyntax.TokenLessThanEq: ">", hclsyntax.TokenGreaterThan: "<=", hclsyntax.TokenGreaterThanEq: "<",
	hclsyntax.TokenBang: "",
}

// Mutants returns every mutant of the bundle, in order of files and places.
func (b *Bundle) Mutants() []Mutant {
	var all []Mutant
	for _, name := range keys(b.Files) {
		if !strings.HasSuffix(name, Suffix) {
			continue
		}
		f, diags := hclsyntax.ParseConfig(b.Files[name], name, hcl.InitialPos)
		tokens, _ := hclsyntax.LexConfig(b.Files[name], name, hcl.InitialPos)
		if diags.HasErrors() {
			continue // it was loaded: Files was changed since
		}
		conditions := conditionRanges(f.Body.(*hclsyntax.Body))
		for _, t := range tokens {
			is, ok := mutations[t.Type]
			inside := func(r hcl.Range) bool { return r.Start.Byte <= t.Range.Start.Byte && t.Range.End.Byte <= r.End.Byte }
			if !ok || !slices.ContainsFunc(conditions, inside) {
				continue
			}
			all = append(all, Mutant{Place: place(t.Range), Column: t.Range.Start.Column, Was: string(t.Bytes), Is: is, from: t.Range.Start.Byte, to: t.Range.End.Byte})
		}
	}
	return all
}

// conditionRanges are the places of all conditions below a body.
func conditionRanges(body *hclsyntax.Body) []hcl.Range {
	var all []hcl.Range
	if a := body.Attributes["condition"]; a != nil {
		all = append(all, a.Expr.Range())
	}
	for _, blk := range body.Blocks {
		all = append(all, conditionRanges(blk.Body)...)
	}
	return all
}

// Mutate loads a mutant of the bundle. It is nil where the mutant is refused:
// then loading has found what tests would have to find.
func (b *Bundle) Mutate(m Mutant) *Bundle {
	l := &loader{rep: newReport(), files: make(map[string][]byte, len(b.Files))}
	var bodies []*hclsyntax.Body
	for _, name := range keys(b.Files) {
		data := b.Files[name]
		if name == m.File {
			data = slices.Concat(data[:m.from], []byte(m.Is), data[m.to:])
		}
		l.files[name] = data
		if !strings.HasSuffix(name, Suffix) {
			continue // of a list, which finds it in files
		}
		l.names = append(l.names, name)
		if body := l.parse(name, data); body != nil {
			bodies = append(bodies, body)
		}
	}
	out := l.bundle(bodies)
	if l.rep.hasErrors() {
		return nil
	}
	return out
}
