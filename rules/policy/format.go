package policy

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns a policy or test file in its one canonical form: spacing and
// alignment as hclwrite makes them, no space at the ends of lines, one newline at
// the end. Words, order and comments stay. Text that does not parse is not
// touched: formatted is nil then, and the diagnostics say why.
func Format(name string, src []byte) (formatted []byte, diags hcl.Diagnostics) {
	l := &loader{rep: newReport()}
	if l.parse(name, src) == nil {
		return nil, l.sorted()
	}
	return canonicalText(name, src), l.sorted()
}

// maxPasses bounds how often a text is formatted until it stays as it is.
const maxPasses = 4

// canonicalText formats text that parses.
func canonicalText(name string, src []byte) []byte {
	out := trimLines(name, src)
	for range maxPasses { // aligning a line can change what its neighbours align to
		next := trimLines(name, hclwrite.Format(out))
		if bytes.Equal(next, out) {
			break
		}
		out = next
	}
	return out
}

// trimLines takes away spaces at the ends of lines, but for those inside of
// texts, where they mean something.
func trimLines(name string, src []byte) []byte {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	text := make([]bool, len(src)+1)
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit:
			for i := t.Range.Start.Byte; i < t.Range.End.Byte; i++ {
				text[i] = true
			}
		}
	}
	out := make([]byte, 0, len(src))
	from := 0
	for from < len(src) {
		end := from + bytes.IndexByte(src[from:], '\n')
		next := end + 1
		if end < from {
			end, next = len(src), len(src)
		}
		to := end
		for to > from && (src[to-1] == ' ' || src[to-1] == '\t' || src[to-1] == '\r') && !text[to-1] {
			to--
		}
		out = append(append(out, src[from:to]...), '\n')
		from = next
	}
	return append(bytes.TrimRight(out, "\n"), '\n')
}
