package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

// Kinds of the parts of a condition.
const (
	PartAll   = "all"   // operands of "&&"
	PartAny   = "any"   // operands of "||"
	PartNot   = "not"   // operand of "!"
	PartIf    = "if"    // "? :": condition, then, else
	PartMacro = "macro" // use of a macro
	PartLeaf  = "leaf"  // anything else
)

// Results of the parts of a condition.
const (
	ResultTrue  = "true"
	ResultFalse = "false"
	ResultError = "error"
)

// Trace is a condition, or one part of it, and how it came out for an event.
// Strings that a guest chose are safe to show.
type Trace struct {
	Kind   string `json:"kind"`
	Text   string `json:"text,omitempty"` // source, on one line
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Constant says that the part reads no event.
	Constant bool         `json:"constant,omitempty"`
	Result   string       `json:"result,omitempty"` // empty: it was not evaluated
	Error    string       `json:"error,omitempty"`
	Fields   []FieldTrace `json:"fields,omitempty"` // that a leaf reads
	Parts    []*Trace     `json:"parts,omitempty"`
}

// FieldTrace is the value of a field for an event.
type FieldTrace struct {
	Name    string `json:"name"`
	Value   string `json:"value"` // as policies write it
	Missing bool   `json:"missing,omitempty"`
}

// ID names the place of a part: uses of one macro share the parts in it.
func (t *Trace) ID() string { return fmt.Sprintf("%s:%d:%d:%s", t.File, t.Line, t.Column, t.Kind) }

// Walk calls f for t and all its parts.
func (t *Trace) Walk(f func(*Trace)) {
	f(t)
	for _, p := range t.Parts {
		p.Walk(f)
	}
}

// Tracer evaluates the parts of one condition, each by the closure or the
// oracle that the whole one would use.
type Tracer struct {
	cond *Condition
	root *tracePart
}

type tracePart struct {
	is     Trace // without results
	leaf   boolFn
	oracle *oracle
	fields []tracedField
	parts  []*tracePart
}

// Tracer takes a condition of the bundle apart.
func (b *Bundle) Tracer(c *Condition) *Tracer {
	t := &tracing{files: b.Files, env: c.oracle.env}
	return &Tracer{cond: c, root: t.part(c.oracle.expr)}
}

type tracing struct {
	files map[string][]byte
	env   *env
}

func (t *tracing) part(x hclsyntax.Expression) *tracePart {
	rng := x.Range()
	p := &tracePart{is: Trace{File: rng.Filename, Line: rng.Start.Line, Column: rng.Start.Column, Text: t.text(rng), Constant: t.constant(x)}}
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		if !isMacro(x) {
			return t.part(x.Expression)
		}
		p.is.Kind, p.parts = PartMacro, []*tracePart{t.part(x.Expression)}
		return p
	case *hclsyntax.BinaryOpExpr:
		if x.Op == hclsyntax.OpLogicalAnd || x.Op == hclsyntax.OpLogicalOr {
			p.is.Kind = PartAll
			if x.Op == hclsyntax.OpLogicalOr {
				p.is.Kind = PartAny
			}
			for _, o := range chained(x) {
				p.parts = append(p.parts, t.part(o))
			}
			return p
		}
	case *hclsyntax.UnaryOpExpr:
		if x.Op == hclsyntax.OpLogicalNot {
			p.is.Kind, p.parts = PartNot, []*tracePart{t.part(x.Val)}
			return p
		}
	case *hclsyntax.ConditionalExpr:
		p.is.Kind = PartIf
		for _, o := range []hclsyntax.Expression{x.Condition, x.TrueResult, x.FalseResult} {
			p.parts = append(p.parts, t.part(o))
		}
		return p
	}
	p.is.Kind = PartLeaf
	c := &compiler{env: t.env, scope: make(map[string]binding), ctx: t.env.consts}
	p.leaf, p.oracle, p.fields = c.truth(x).b, newOracle(x, t.env), t.fields(x)
	return p
}

// isMacro tells a use of a macro from parentheses that the author wrote: what
// stands in it was written elsewhere.
func isMacro(x *hclsyntax.ParenthesesExpr) bool {
	in, out := x.Expression.Range(), x.SrcRange
	return in.Filename != out.Filename || in.Start.Byte < out.Start.Byte || in.End.Byte > out.End.Byte
}

// chained is operands, but leaves uses of macros whole.
func chained(x *hclsyntax.BinaryOpExpr) []hclsyntax.Expression {
	var all []hclsyntax.Expression
	stack := []hclsyntax.Expression{x}
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		inner := top
		for {
			p, ok := inner.(*hclsyntax.ParenthesesExpr)
			if !ok || isMacro(p) {
				break
			}
			inner = p.Expression
		}
		if b, ok := inner.(*hclsyntax.BinaryOpExpr); ok && b.Op == x.Op {
			stack = append(stack, b.RHS, b.LHS)
			continue
		}
		all = append(all, top)
	}
	return all
}

// maxTraceText bounds the source text of a part.
const maxTraceText = 200

func (t *tracing) text(r hcl.Range) string {
	data := t.files[r.Filename]
	if r.Start.Byte > r.End.Byte || r.End.Byte > len(data) {
		return ""
	}
	return clip(printable(strings.Join(strings.Fields(string(data[r.Start.Byte:r.End.Byte])), " ")), maxTraceText)
}

// constant reports whether x reads nothing but constants.
func (t *tracing) constant(x hclsyntax.Expression) bool {
	c := &compiler{env: t.env, scope: make(map[string]binding), ctx: t.env.consts}
	_, ok := c.fold(x)
	return ok
}

// fields returns the fields that x reads, in the order of their first use.
func (t *tracing) fields(x hclsyntax.Expression) []tracedField {
	var all []tracedField
	seen := make(map[string]bool)
	add := func(name string, r ref) {
		if !seen[name] {
			seen[name] = true
			all = append(all, tracedField{name, r})
		}
	}
	for _, v := range x.Variables() {
		if root := v.RootName(); root == "list" || root == "local" {
			continue
		}
		if r, p := t.env.resolve(v); p == nil {
			add(t.text(v.SourceRange()), r)
		}
	}
	if newOracle(x, t.env).ofEvent { // argv, has_arg
		add(event.ProcessArgs.String(), ref{info: event.ProcessArgs.Info()})
	}
	return all
}

type tracedField struct {
	name string // as it is written
	ref  ref
}

// Parts is the condition without results: what there is to come out.
func (t *Tracer) Parts() *Trace { return t.root.bare() }

func (p *tracePart) bare() *Trace {
	out := p.is
	for _, q := range p.parts {
		out.Parts = append(out.Parts, q.bare())
	}
	return &out
}

// Eval evaluates every part for e, also those that the whole condition does not
// need. An error says that the parts do not add up to what the condition itself
// says: a mistake of this program.
func (t *Tracer) Eval(e *event.Event) (*Trace, error) {
	out := t.root.eval(e)
	whole := ResultFalse
	switch ok, err := t.cond.Eval(e); {
	case err != nil:
		whole = ResultError
	case ok:
		whole = ResultTrue
	}
	if whole != out.Result {
		return out, fmt.Errorf("trace condition at %s:%d: its parts make it %s, and it says %s", out.File, out.Line, out.Result, whole)
	}
	return out, nil
}

func (p *tracePart) eval(e *event.Event) *Trace {
	out := p.is
	for _, q := range p.parts {
		out.Parts = append(out.Parts, q.eval(e))
	}
	switch p.is.Kind {
	case PartLeaf:
		p.evalLeaf(e, &out)
	case PartAll:
		out.Result = together(out.Parts, ResultFalse, ResultTrue)
	case PartAny:
		out.Result = together(out.Parts, ResultTrue, ResultFalse)
	case PartMacro:
		out.Result = out.Parts[0].Result
	case PartNot:
		out.Result = map[string]string{ResultTrue: ResultFalse, ResultFalse: ResultTrue, ResultError: ResultError}[out.Parts[0].Result]
	case PartIf:
		out.Result = map[string]string{ResultTrue: out.Parts[1].Result, ResultFalse: out.Parts[2].Result, ResultError: ResultError}[out.Parts[0].Result]
	}
	return &out
}

// together is the result of a chain: one operand that decides is enough.
func together(parts []*Trace, deciding, neutral string) string {
	out := neutral
	for _, p := range parts {
		switch p.Result {
		case deciding:
			return deciding
		case ResultError:
			out = ResultError
		}
	}
	return out
}

func (p *tracePart) evalLeaf(e *event.Event, out *Trace) {
	switch p.leaf(e) {
	case True:
		out.Result = ResultTrue
	case False:
		out.Result = ResultFalse
	default:
		switch ok, err := p.oracle.truth(e); {
		case err != nil:
			out.Result, out.Error = ResultError, Safe(err.Error())
		case ok:
			out.Result = ResultTrue
		default:
			out.Result = ResultFalse
		}
	}
	for _, f := range p.fields {
		out.Fields = append(out.Fields, f.trace(e))
	}
}

// trace reads the value of a field.
func (f tracedField) trace(e *event.Event) FieldTrace {
	out := FieldTrace{Name: f.name}
	field, kind := f.ref.info.Field, f.ref.info.Kind
	switch {
	case f.ref.bound > 0:
		b := e.BoundAt(f.ref.bound - 1)
		out.Missing = !b.Present
		switch kind {
		case event.KindNumber:
			out.Value = strconv.FormatUint(b.Num, 10)
		case event.KindBool:
			out.Value = strconv.FormatBool(b.Num != 0)
		default:
			out.Value = quoted(b.Str)
		}
	case kind == event.KindMap:
		s, ok := e.Metadata(f.ref.key)
		out.Value, out.Missing = quoted(s), !ok
	case kind == event.KindNumber:
		n, ok := e.Num(field)
		out.Value, out.Missing = strconv.FormatUint(n, 10), !ok
	case kind == event.KindBool:
		out.Value, out.Missing = strconv.FormatBool(e.Bool(field)), !e.Has(field)
	case kind == event.KindStrings:
		out.Value, out.Missing = quotedList(e.Strings(field)), !e.Has(field)
	case kind == event.KindProcesses:
		var all []string
		for _, a := range e.Ancestors() {
			all = append(all, a.Name+" "+a.Executable)
		}
		out.Value, out.Missing = quotedList(all), !e.Has(field)
	default:
		s, ok := e.Str(field)
		out.Value, out.Missing = quoted(s), !ok
	}
	if out.Missing {
		switch kind {
		case event.KindBool, event.KindStrings, event.KindProcesses: // these read as something all the same
		default:
			out.Value = "null"
		}
	}
	return out
}

// maxShown bounds the members of a list that are shown.
const maxShown = 16

func quoted(s string) string {
	return `"` + strings.ReplaceAll(Safe(clip(s, maxPart)), `"`, `\"`) + `"`
}

func quotedList(list []string) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == maxShown {
			fmt.Fprintf(&b, "... %d more", len(list)-i)
			break
		}
		b.WriteString(quoted(s))
	}
	b.WriteByte(']')
	return b.String()
}
