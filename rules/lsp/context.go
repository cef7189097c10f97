package lsp

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// A text that is being written does not parse most of the time. So places in it
// are found with its tokens alone, and only with those before the place: what
// follows may be anything.

// frame is an open brace: a block, or something else in an expression.
type frame struct {
	block  bool
	key    string // an object: what it is the value of
	object bool
	typ    string
	labels []string
	start  int // byte behind the brace
	depth  int // open brackets and parentheses in it
	attr   string
}

// place is what surrounds one byte of a text.
type place struct {
	frames   []frame  // outermost first; the file itself is the first
	pending  []string // words of a line that is neither argument nor block yet
	quoted   bool     // in a quoted text, and not in "${...}" of it
	str      string   // the text before the place in the quotes
	strStart int
	word     string // names and dots that end at the place: "process.par"
	wordFrom int
}

// block returns the innermost block, and the argument whose value the place is
// in.
func (p *place) block() (*frame, string) {
	for i := len(p.frames) - 1; ; i-- {
		if f := &p.frames[i]; f.block {
			return f, f.attr
		}
	}
}

// enclosing returns the innermost block of one of the types, or nil.
func (p *place) enclosing(types ...string) *frame {
	for i := len(p.frames) - 1; i > 0; i-- {
		if f := &p.frames[i]; f.block && slices.Contains(types, f.typ) {
			return f
		}
	}
	return nil
}

// maxFrames bounds nesting; the loader takes less.
const maxFrames = 1000

// placeAt finds what surrounds a byte of a text.
func placeAt(text []byte, at int) *place {
	tokens, _ := hclsyntax.LexConfig(text[:at], "", hcl.InitialPos)
	p := &place{frames: []frame{{block: true}}}
	var quotes []int // frames that a quoted text stands in
	for _, t := range tokens {
		top := &p.frames[len(p.frames)-1]
		switch t.Type {
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			quotes = append(quotes, len(p.frames))
			p.str, p.strStart = "", t.Range.End.Byte
		case hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenQuotedNewline:
			if n := len(quotes); n > 0 {
				quotes = quotes[:n-1]
			}
			if top.block && top.attr == "" && len(p.pending) > 0 {
				p.pending = append(p.pending, p.str)
			}
		case hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit:
			p.str = string(t.Bytes)
		case hclsyntax.TokenOBrace, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if len(p.frames) < maxFrames {
				p.open(t)
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd:
			if len(p.frames) > 1 {
				if top.block || top.object {
					p.pending = nil
				}
				p.frames = p.frames[:len(p.frames)-1]
			}
		default:
			p.line(t, top)
		}
	}
	n := len(quotes)
	p.quoted = n > 0 && quotes[n-1] == len(p.frames)
	if !p.quoted {
		p.word, p.wordFrom = wordBefore(tokens, at)
	}
	return p
}

// open enters a brace.
func (p *place) open(t hclsyntax.Token) {
	top := &p.frames[len(p.frames)-1]
	f := frame{start: t.Range.End.Byte}
	if t.Type == hclsyntax.TokenOBrace && top.block && top.attr == "" && len(p.pending) > 0 {
		f.block, f.typ, f.labels = true, p.pending[0], p.pending[1:]
		p.pending = nil
	} else if t.Type == hclsyntax.TokenOBrace {
		f.object, f.key = true, top.attr
	}
	p.frames = append(p.frames, f)
}

// line follows the words of a line.
func (p *place) line(t hclsyntax.Token, top *frame) {
	switch t.Type {
	case hclsyntax.TokenOParen, hclsyntax.TokenOBrack:
		top.depth++
	case hclsyntax.TokenCParen, hclsyntax.TokenCBrack:
		top.depth = max(0, top.depth-1)
	case hclsyntax.TokenIdent:
		if (top.block || top.object) && top.attr == "" {
			p.pending = append(p.pending, string(t.Bytes))
		}
	case hclsyntax.TokenEqual, hclsyntax.TokenColon:
		if (top.block && t.Type == hclsyntax.TokenEqual || top.object) && top.attr == "" && len(p.pending) > 0 {
			top.attr = p.pending[len(p.pending)-1]
			p.pending = nil
		}
	case hclsyntax.TokenNewline:
		if (top.block || top.object) && top.depth == 0 {
			top.attr, p.pending = "", nil
		}
	case hclsyntax.TokenComma:
		if top.object && top.depth == 0 {
			top.attr, p.pending = "", nil
		}
	}
}

// wordBefore returns the names and dots that end at a byte.
func wordBefore(tokens hclsyntax.Tokens, at int) (string, int) {
	from, word := at, ""
	for i := len(tokens) - 1; i >= 0; i-- {
		t := tokens[i]
		if t.Type == hclsyntax.TokenEOF {
			continue
		}
		if t.Range.End.Byte != from || t.Type != hclsyntax.TokenIdent && t.Type != hclsyntax.TokenDot {
			break
		}
		word, from = string(t.Bytes)+word, t.Range.Start.Byte
	}
	return word, from
}

// inner is what one block holds at its own level.
type inner struct {
	texts  map[string][]string // argument: the texts in its value
	blocks []frame
	names  map[string]span2 // argument: where its name stands
}

// span2 is a range of bytes.
type span2 struct{ start, end int }

// innerOf reads a block whose text begins behind its brace, as far as it goes.
func innerOf(text []byte, start int) inner {
	in := inner{texts: make(map[string][]string), names: make(map[string]span2)}
	tokens, _ := hclsyntax.LexConfig(text[start:], "", hcl.InitialPos)
	depth, attr := 0, ""
	var pending []string
	var last hclsyntax.Token
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if depth == 0 && attr == "" && t.Type == hclsyntax.TokenOBrace && len(pending) > 0 {
				in.blocks = append(in.blocks, frame{block: true, typ: pending[0], labels: pending[1:], start: start + t.Range.End.Byte})
				pending = nil
			}
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			if depth--; depth < 0 {
				return in
			}
		case hclsyntax.TokenNewline:
			if depth == 0 {
				attr, pending = "", nil
			}
		case hclsyntax.TokenIdent:
			if depth == 0 && attr == "" {
				pending, last = append(pending, string(t.Bytes)), t
			}
		case hclsyntax.TokenEqual:
			if depth == 0 && attr == "" && len(pending) > 0 {
				attr = pending[len(pending)-1]
				in.names[attr] = span2{start + last.Range.Start.Byte, start + last.Range.End.Byte}
			}
		case hclsyntax.TokenQuotedLit:
			if attr != "" && depth <= 1 {
				in.texts[attr] = append(in.texts[attr], string(t.Bytes))
			} else if depth == 0 {
				pending = append(pending, string(t.Bytes))
			}
		}
	}
	return in
}

// classes returns the event types that a block judges, the empty set where it
// does not say.
func (in inner) classes() event.ClassSet {
	var set event.ClassSet
	for _, name := range in.texts["on"] {
		if c, err := record.ParseClass(name); err == nil {
			set = set.Union(event.SetOf(c))
		}
	}
	return set
}
