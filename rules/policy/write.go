package policy

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The escape sequences of coloured output.
const (
	colorError   = "\x1b[1;31m"
	colorWarning = "\x1b[1;33m"
	colorMark    = "\x1b[31m"
	colorBold    = "\x1b[1m"
	colorOff     = "\x1b[0m"
)

// maxSourceLine is how much of a source line is shown, in characters.
const maxSourceLine = 200

// WriteDiagnostics writes diagnostics for people: what, where, with the wrong
// part underlined, and how to mend it. files are the sources by name (of the
// Bundle, or Sources). Detail is wrapped at width columns; 0 means 78.
func WriteDiagnostics(w io.Writer, diags hcl.Diagnostics, files map[string][]byte, width int, color bool) error {
	if width <= 0 {
		width = 78
	}
	t := &textWriter{files: files, parsed: make(map[string]*hcl.File), width: width, color: color}
	for i, d := range diags {
		if i > 0 {
			t.b.WriteByte('\n')
		}
		t.diagnostic(d)
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type textWriter struct {
	b      strings.Builder
	files  map[string][]byte
	parsed map[string]*hcl.File
	width  int
	color  bool
}

func (t *textWriter) paint(color, s string) string {
	if !t.color {
		return s
	}
	return color + s + colorOff
}

func (t *textWriter) diagnostic(d *hcl.Diagnostic) {
	head := t.paint(colorError, "Error")
	if d.Severity == hcl.DiagWarning {
		head = t.paint(colorWarning, "Warning")
	}
	fmt.Fprintf(&t.b, "%s: %s [%s]\n\n", head, t.paint(colorBold, d.Summary), DetailOf(d).Code)
	if d.Subject != nil {
		t.source(*d.Subject)
	}
	if d.Detail != "" {
		t.b.WriteString(wrap(d.Detail, t.width))
		t.b.WriteByte('\n')
	}
}

// source shows the line of the subject with the subject underlined. Of one
// that spans lines, the part on its first line is.
func (t *textWriter) source(rng hcl.Range) {
	data, ok := t.files[rng.Filename]
	if !ok || rng.Start.Byte > len(data) || rng.Empty() && rng.Start.Byte == 0 {
		fmt.Fprintf(&t.b, "  on %s\n\n", rng.Filename)
		return
	}
	where := ""
	if c := t.context(rng.Filename, data, rng.Start.Byte); c != "" {
		where = ", in " + c
	}
	fmt.Fprintf(&t.b, "  on %s line %d%s:\n", rng.Filename, rng.Start.Line, where)

	start := strings.LastIndexByte(string(data[:rng.Start.Byte]), '\n') + 1
	line := string(data[start:])
	if i := strings.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	line = strings.TrimRight(line, "\r")
	end := max(min(rng.End.Byte-start, len(line)), 0)
	from := min(rng.Start.Byte-start, len(line))
	end = max(end, from)
	before, marked, after := printable(line[:from]), printable(line[from:end]), printable(line[end:])
	if n := utf8.RuneCountInString(before); n > maxSourceLine {
		before = "..." + string([]rune(before)[n-maxSourceLine/2:])
	}
	if utf8.RuneCountInString(marked) > maxSourceLine {
		marked, after = string([]rune(marked)[:maxSourceLine])+"...", ""
	}
	if utf8.RuneCountInString(after) > maxSourceLine {
		after = string([]rune(after)[:maxSourceLine]) + "..."
	}
	gutter := fmt.Sprintf("%4d: ", rng.Start.Line)
	fmt.Fprintf(&t.b, "%s%s%s%s\n", gutter, before, t.paint(colorMark, marked), after)
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	marks := strings.Repeat("^", max(utf8.RuneCountInString(marked), 1))
	fmt.Fprintf(&t.b, "%s%s%s\n\n", strings.Repeat(" ", len(gutter)), pad, t.paint(colorMark, marks))
}

// printable makes source text safe for a terminal.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\t':
			b.WriteByte('\t')
		case r < ' ' || r == 0x7f || r == utf8.RuneError && n == 1 || r >= 0x80 && r < 0xa0:
			b.WriteByte('?')
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// context names the block around a place.
func (t *textWriter) context(name string, data []byte, offset int) string {
	f, ok := t.parsed[name]
	if !ok {
		probe := &loader{rep: newReport()}
		if probe.shallow(name, data) {
			f, _ = hclsyntax.ParseConfig(data, name, hcl.InitialPos)
		}
		t.parsed[name] = f
	}
	if f == nil {
		return ""
	}
	if nav, ok := f.Nav.(interface{ ContextString(offset int) string }); ok {
		return printable(nav.ContextString(offset))
	}
	return ""
}

func wrap(s string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(printable(word))
		column += n
	}
	b.WriteByte('\n')
	return strings.TrimSuffix(b.String(), "\n")
}

// JSONDiagnostic is one diagnostic for programs. Lines and columns count from
// 1 (columns in characters), bytes from 0.
type JSONDiagnostic struct {
	Severity   string    `json:"severity"` // error, warning
	Code       Code      `json:"code"`
	Summary    string    `json:"summary"`
	Detail     string    `json:"detail"`
	File       string    `json:"file,omitempty"`
	Start      *JSONSpot `json:"start,omitempty"`
	End        *JSONSpot `json:"end,omitempty"`
	Suggestion string    `json:"suggestion,omitempty"`
}

// JSONSpot is a place in a file.
type JSONSpot struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// DiagnosticsJSON returns diagnostics as a JSON array, indented, which is
// empty and not null where there are none.
func DiagnosticsJSON(diags hcl.Diagnostics) ([]byte, error) {
	out := make([]JSONDiagnostic, 0, len(diags))
	for _, d := range diags {
		x := DetailOf(d)
		j := JSONDiagnostic{Severity: "error", Code: x.Code, Summary: d.Summary, Detail: d.Detail, Suggestion: x.Suggestion}
		if d.Severity == hcl.DiagWarning {
			j.Severity = "warning"
		}
		if r := d.Subject; r != nil {
			j.File = r.Filename
			j.Start = &JSONSpot{r.Start.Line, r.Start.Column, r.Start.Byte}
			j.End = &JSONSpot{r.End.Line, r.End.Column, r.End.Byte}
		}
		out = append(out, j)
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode diagnostics: %w", err)
	}
	return append(b, '\n'), nil
}
