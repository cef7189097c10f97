package rules

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/provostd/provost/rules/policy"
)

// WriteText writes an explanation for people: what came of it, and every
// condition as a tree with results, places and values.
func (x *Explanation) WriteText(w io.Writer) error {
	var b strings.Builder
	outcome := "no verdict"
	if x.Matched {
		outcome = "verdict"
	}
	fmt.Fprintf(&b, "policy %s (%s) on entry %d of %s, %s from the %s at %s\n", x.Policy, x.Mode, x.Index, orUnknown(x.VM), x.Class, x.Origin, x.Time)
	fmt.Fprintf(&b, "%s: %s\n", outcome, x.Why)
	for _, c := range x.Conditions {
		fmt.Fprintf(&b, "\n%s, %s\n", c.title(), c.Trace.File)
		writeTrace(&b, c.Trace)
	}
	if len(x.Actions) > 0 {
		b.WriteString("\nactions\n")
	}
	for i, a := range x.Actions {
		fmt.Fprintf(&b, "%3d. %s", i+1, a.Kind)
		if a.Message != "" {
			b.WriteString(": " + a.Message)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orUnknown(s string) string {
	if s == "" {
		return "an unknown VM"
	}
	return s
}

func (c *ExplainedCondition) title() string {
	if c.Name == "" {
		return c.Part
	}
	return fmt.Sprintf("%s %q", c.Part, c.Name)
}

// TraceText returns a condition as WriteText shows it.
func TraceText(t *policy.Trace) string {
	var b strings.Builder
	writeTrace(&b, t)
	return b.String()
}

type traceLine struct{ head, text, values string }

// maxColumn is how far the values of leaves are aligned.
const maxColumn = 76

func writeTrace(b *strings.Builder, t *policy.Trace) {
	var lines []traceLine
	collect(&lines, t, t.File, 0)
	width := 0
	for _, l := range lines {
		if n := utf8.RuneCountInString(l.head + l.text); l.values != "" && n <= maxColumn {
			width = max(width, n)
		}
	}
	for _, l := range lines {
		b.WriteString(l.head + l.text)
		if l.values != "" {
			b.WriteString(strings.Repeat(" ", max(width-utf8.RuneCountInString(l.head+l.text), 0)+2) + l.values)
		}
		b.WriteByte('\n')
	}
}

var joins = map[string]string{policy.PartAll: "all of", policy.PartAny: "any of", policy.PartNot: "not", policy.PartIf: "if, then, else"}

func collect(lines *[]traceLine, t *policy.Trace, file string, depth int) {
	head := fmt.Sprintf("%s%-6s ", strings.Repeat("  ", depth), t.Result)
	if join, ok := joins[t.Kind]; ok {
		*lines = append(*lines, traceLine{head: head, text: join})
	} else {
		at := fmt.Sprintf("%d:%d", t.Line, t.Column)
		if t.File != file {
			at = t.File + ":" + at
		}
		l := traceLine{head: head + fmt.Sprintf("%-6s ", at), text: t.Text}
		if t.Kind == policy.PartLeaf {
			l.values = values(t)
		}
		*lines = append(*lines, l)
	}
	for _, p := range t.Parts {
		collect(lines, p, file, depth+1)
	}
}

func values(t *policy.Trace) string {
	var all []string
	for _, f := range t.Fields {
		s := f.Name + " = " + f.Value
		if f.Missing {
			s += " (not supplied)"
		}
		all = append(all, s)
	}
	if t.Error != "" {
		all = append(all, "error: "+t.Error)
	}
	return strings.Join(all, ", ")
}
