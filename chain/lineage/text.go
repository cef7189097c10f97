package lineage

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Label says in a few words what a node is, with the bytes of guests quoted.
func (n *Node) Label() string {
	switch n.Kind {
	case Process:
		exe := n.Executable
		s := "?"
		if len(exe) > 0 {
			s = record.Word(exe)
		}
		s += "(" + strconv.FormatUint(uint64(n.Pid), 10) + ")"
		if len(n.Args) > 0 {
			s += " [" + n.commandLine() + "]"
		}
		if n.UID != nil {
			s += " uid " + strconv.FormatUint(uint64(*n.UID), 10)
		}
		return s
	case Address:
		s := record.Word([]byte(n.Address))
		if len(n.Name) > 0 {
			s += " (" + record.Word(n.Name) + ")"
		}
		return s
	}
	s := record.Word(n.Path)
	if n.Sha256 != "" {
		s += " sha256 " + record.Word([]byte(n.Sha256))
	}
	return s
}

// commandLine is the arguments of a process, each quoted where it must be.
func (n *Node) commandLine() string {
	args := make([]string, len(n.Args))
	for i, a := range n.Args {
		if args[i] = record.Word(a); len(a) == 0 {
			args[i] = `""`
		}
	}
	return strings.Join(args, " ")
}

// clock is a moment as people read it.
func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }

// WriteText writes the graph as a tree for each direction. A node that stands
// further up already is only named, so circles end.
func (g *Graph) WriteText(out io.Writer) error {
	if err := g.Check(); err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	for _, d := range []struct {
		wanted bool
		title  string
		back   bool
	}{{g.Back, "what led to", true}, {g.Forward, "what came of", false}} {
		if !d.wanted {
			continue
		}
		start := g.node(g.Start)
		fmt.Fprintf(w, "%s %s%s\n", d.title, start.Label(), cutText(start))
		t := &tree{w: w, g: g, back: d.back, shown: map[string]bool{g.Start: true}, nodes: map[string]*Node{}, next: map[string][]*Edge{}}
		for _, n := range g.Nodes {
			t.nodes[n.ID] = n
		}
		for _, e := range g.Edges {
			switch {
			case d.back && e.Back:
				t.next[e.To] = append(t.next[e.To], e)
			case !d.back && e.Forward:
				t.next[e.From] = append(t.next[e.From], e)
			}
		}
		t.below(g.Start, "")
	}
	if g.Behind > 0 {
		fmt.Fprintf(w, "the index is %d commits behind: the newest entries may be missing\n", g.Behind)
	}
	return w.Flush()
}

type tree struct {
	w     *bufio.Writer
	g     *Graph
	back  bool
	shown map[string]bool
	nodes map[string]*Node
	next  map[string][]*Edge
}

// below writes what a node leads to. It goes as deep as the graph has nodes.
func (t *tree) below(id, indent string) {
	groups := t.groups(id)
	for i, edges := range groups {
		branch, deeper := "├─ ", "│  "
		if i == len(groups)-1 {
			branch, deeper = "└─ ", "   "
		}
		n := t.nodes[t.far(edges[0])]
		again := t.shown[n.ID]
		t.shown[n.ID] = true
		mark := cutText(n)
		if again && len(t.next[n.ID]) > 0 {
			mark = ", see above"
		}
		fmt.Fprintf(t.w, "%s%s%s%s: %s\n", indent, branch, n.Label(), mark, edgesText(edges))
		if !again {
			t.below(n.ID, indent+deeper)
		}
	}
}

// groups returns the edges of a node by the node at their other end, in the
// order of time from here.
func (t *tree) groups(id string) [][]*Edge {
	var groups [][]*Edge
	at := map[string]int{}
	for _, e := range t.next[id] {
		k, ok := at[t.far(e)]
		if !ok {
			k = len(groups)
			at[t.far(e)] = k
			groups = append(groups, nil)
		}
		groups[k] = append(groups[k], e)
	}
	when := func(edges []*Edge) int64 {
		m := edges[0].First.Time
		for _, e := range edges {
			if t.back {
				m = max(m, e.Last.Time)
			} else {
				m = min(m, e.First.Time)
			}
		}
		return m
	}
	slices.SortStableFunc(groups, func(a, b []*Edge) int {
		if t.back {
			a, b = b, a
		}
		return cmp.Compare(when(a), when(b))
	})
	return groups
}

func (t *tree) far(e *Edge) string {
	if t.back {
		return e.From
	}
	return e.To
}

func edgesText(edges []*Edge) string {
	var all []string
	for _, e := range edges {
		s := e.Class
		if e.Count > 1 {
			s += fmt.Sprintf(" %d times, entries %d to %d, %s to %s", e.Count, e.First.Index, e.Last.Index, clock(e.First.Time), clock(e.Last.Time))
		} else {
			s += fmt.Sprintf(", entry %d, %s", e.Last.Index, clock(e.Last.Time))
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

func cutText(n *Node) string {
	if len(n.Cut) == 0 {
		return ""
	}
	words := make([]string, len(n.Cut))
	for i, c := range n.Cut {
		words[i] = c
	}
	return " (cut here: " + strings.Join(words, ", ") + ")"
}
