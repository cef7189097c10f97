package sigma

import "strings"

// node is a condition that is being worked out for one view: a fixed truth, a
// piece of the policy language, something that cannot be expressed, or a
// combination of these.
type node struct {
	kind nodeKind
	text string // nodeLeaf: the expression; nodeBad: the reason
	sub  []*node
}

type nodeKind uint8

const (
	nodeFalse nodeKind = iota
	nodeTrue
	nodeLeaf
	nodeBad
	nodeNot
	nodeAnd
	nodeOr
)

func leaf(text string) *node  { return &node{kind: nodeLeaf, text: text} }
func bad(reason string) *node { return &node{kind: nodeBad, text: reason} }

func truth(v bool) *node {
	if v {
		return &node{kind: nodeTrue}
	}
	return &node{kind: nodeFalse}
}

func not(n *node) *node {
	switch n.kind {
	case nodeFalse:
		return truth(true)
	case nodeTrue:
		return truth(false)
	case nodeNot:
		return n.sub[0]
	case nodeBad:
		return n
	}
	return &node{kind: nodeNot, sub: []*node{n}}
}

// and is the conjunction. What is false decides even beside what cannot be
// expressed: that part of the rule does not speak of this view.
func and(all ...*node) *node { return join(nodeAnd, nodeFalse, nodeTrue, all) }

// or is the disjunction.
func or(all ...*node) *node { return join(nodeOr, nodeTrue, nodeFalse, all) }

func join(kind, deciding, neutral nodeKind, all []*node) *node {
	var sub []*node
	var wrong *node
	for _, n := range all {
		switch n.kind {
		case deciding:
			return n
		case neutral:
		case nodeBad:
			if wrong == nil {
				wrong = n
			}
		case kind:
			sub = append(sub, n.sub...)
		default:
			sub = append(sub, n)
		}
	}
	switch {
	case wrong != nil:
		return wrong
	case len(sub) == 0:
		return &node{kind: neutral}
	case len(sub) == 1:
		return sub[0]
	}
	return &node{kind: kind, sub: sub}
}

// write renders n as an expression. Chains of && and || take a line for each
// operand and stand in parentheses, inside which HCL lets lines end.
func (n *node) write(b *strings.Builder) {
	switch n.kind {
	case nodeLeaf:
		b.WriteString(n.text)
	case nodeNot:
		b.WriteByte('!')
		if s := n.sub[0]; s.kind == nodeLeaf && !isCall(s.text) {
			b.WriteString("(" + s.text + ")")
		} else {
			s.write(b)
		}
	case nodeAnd, nodeOr:
		op := " &&\n"
		if n.kind == nodeOr {
			op = " ||\n"
		}
		b.WriteString("(\n")
		for i, s := range n.sub {
			if i > 0 {
				b.WriteString(op)
			}
			s.write(b)
		}
		b.WriteString("\n)")
	}
}

// isCall reports whether an expression, which is a call or a comparison, is a
// call: "!" applies to it as a whole.
func isCall(text string) bool { return strings.HasSuffix(text, ")") }
