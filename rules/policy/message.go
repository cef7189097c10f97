package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

const (
	// MaxMessage bounds a rendered message in bytes: a verdict is sealed, and
	// a guest decides how long its paths are.
	MaxMessage = 4096
	// maxPart bounds one interpolated value, so that a long command line
	// cannot push the rest out.
	maxPart = 1024
	// missingText stands for a value that the event lacks.
	missingText = "(unknown)"
)

// Message is a compiled text with values of the event in it.
type Message struct {
	parts []messagePart
}

type messagePart struct {
	literal string
	get     func(*event.Event) string
}

// Render returns the text for e. Values come from the guest: control
// characters and bytes that are not UTF-8 are escaped, so that no file name can
// forge a line or steer a terminal. What is missing is written "(unknown)".
// The text shares no memory with e.
func (m *Message) Render(e *event.Event) string {
	if m == nil {
		return ""
	}
	var b strings.Builder
	for _, p := range m.parts {
		if p.get == nil {
			b.WriteString(p.literal)
		} else {
			writeSafe(&b, p.get(e))
		}
	}
	return clip(b.String(), MaxMessage)
}

// Safe returns s with control characters and bytes that are not UTF-8 escaped
// and at most MaxMessage bytes long.
func Safe(s string) string {
	var b strings.Builder
	writeEscaped(&b, s)
	return clip(b.String(), MaxMessage)
}

func writeSafe(b *strings.Builder, s string) { writeEscaped(b, clip(s, maxPart)) }

func writeEscaped(b *strings.Builder, s string) {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(b, `\x%02x`, s[0])
		case r == '\\':
			b.WriteString(`\\`)
		case unicode.IsPrint(r):
			b.WriteString(s[:n])
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit - len("...")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// compileMessage compiles a checked template.
func compileMessage(x hclsyntax.Expression, v *env) *Message {
	m := &Message{}
	for _, p := range messageParts(x) {
		if l, ok := p.(*hclsyntax.LiteralValueExpr); ok && l.Val.Type() == cty.String && !l.Val.IsNull() {
			m.parts = append(m.parts, messagePart{literal: l.Val.AsString()})
			continue
		}
		m.parts = append(m.parts, messagePart{get: compilePart(p, v)})
	}
	return m
}

// messageParts returns the literals and interpolations of a template.
func messageParts(x hclsyntax.Expression) []hclsyntax.Expression {
	switch t := x.(type) {
	case *hclsyntax.TemplateExpr:
		return t.Parts
	case *hclsyntax.TemplateWrapExpr:
		return []hclsyntax.Expression{t.Wrapped}
	}
	return []hclsyntax.Expression{x}
}

func compilePart(x hclsyntax.Expression, v *env) func(*event.Event) string {
	c := &compiler{env: v, scope: make(map[string]binding), ctx: v.consts}
	if t, ok := c.expr(x); ok {
		switch {
		case t.s != nil && !t.fails:
			return func(e *event.Event) string {
				if s, st := t.s(e); st == present {
					return s
				}
				return missingText
			}
		case t.n != nil && !t.fails:
			return func(e *event.Event) string {
				if n, st := t.n(e); st == present {
					return strconv.FormatUint(n, 10)
				}
				return missingText
			}
		case t.b != nil && !t.fails:
			return func(e *event.Event) string { return strconv.FormatBool(t.b(e) == True) }
		case t.list != nil:
			return func(e *event.Event) string { return t.list.join(e) }
		}
	}
	o := newOracle(x, v)
	return func(e *event.Event) string {
		val, diags := o.of(e)
		if diags.HasErrors() || !val.IsKnown() || val.IsNull() {
			return missingText
		}
		return valueText(val)
	}
}

func (l *listTerm) join(e *event.Event) string {
	var b strings.Builder
	for i := range l.len(e) {
		if b.Len() > maxPart {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if s, ok := l.at(e, i); ok {
			b.WriteString(s)
		} else {
			b.WriteString(missingText)
		}
	}
	return b.String()
}

func valueText(v cty.Value) string {
	switch {
	case v.IsNull():
		return missingText
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True())
	case v.CanIterateElements():
		var all []string
		for it := v.ElementIterator(); it.Next() && len(all) < 64; {
			_, e := it.Element()
			all = append(all, valueText(e))
		}
		return strings.Join(all, ", ")
	}
	return missingText
}

// checkMessage checks a template's names and functions. Values of any type
// may be written; missing ones are no error.
func checkMessage(x hclsyntax.Expression, v *env, on event.ClassSet) bool {
	c := &checker{env: v, rep: v.rep, on: on, fields: make(map[event.Field]bool)}
	c.named = c.names(x)
	c.oracle = newOracle(x, v)
	ctx := c.oracle.unknownContext(0)
	c.walk(x, ctx)
	if c.bad {
		return false
	}
	// Part by part: a list in a message is joined, which HCL would refuse.
	for _, p := range messageParts(x) {
		val, diags := p.Value(ctx)
		switch t := val.Type(); {
		case diags.HasErrors():
			c.bad = true
			c.rep.adopt(CodeType, diags)
		case val.IsNull():
			c.fail(CodeNull, p.Range(), "Not a text", "This is null; a message needs text.")
		case t != cty.DynamicPseudoType && !t.IsPrimitiveType() && !t.IsListType() && !t.IsTupleType():
			c.fail(CodeType, p.Range(), "Not a text", "This cannot be written into a message: it is "+describeType(val)+".")
		}
	}
	return !c.bad
}
