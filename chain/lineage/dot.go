package lineage

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// quote writes s as a quoted string of the DOT language, in which a quotation
// mark ends it and a backslash begins an escape such as \N for the node's name.
// Labels hold printable characters only.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

var shapes = map[string]string{Process: "box", File: "note", Address: "ellipse"}

// WriteDOT writes the graph for Graphviz.
func (g *Graph) WriteDOT(out io.Writer) error {
	if err := g.Check(); err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	fmt.Fprint(w, "digraph lineage {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n")
	number := map[string]int{}
	for i, n := range g.Nodes {
		number[n.ID] = i
		style := ""
		if n.ID == g.Start {
			style = ", penwidth=3"
		}
		if len(n.Cut) > 0 {
			style += ", style=dashed"
		}
		fmt.Fprintf(w, "  n%d [shape=%s, label=%s%s];\n", i, shapes[n.Kind], quote(n.Label()+cutText(n)), style)
	}
	for _, e := range g.Edges {
		label := e.Class
		if e.Count > 1 {
			label = fmt.Sprintf("%s (%d)", label, e.Count)
		}
		fmt.Fprintf(w, "  n%d -> n%d [label=%s];\n", number[e.From], number[e.To], quote(fmt.Sprintf("%s #%d", label, e.Last.Index)))
	}
	fmt.Fprint(w, "}\n")
	return w.Flush()
}
