package sigma

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of one rule.
const (
	maxValues = 20_000
	maxDepth  = 32
)

// value is one value of a detection item.
type value struct {
	kind valueKind
	text string
}

type valueKind uint8

const (
	valueText valueKind = iota
	valueNumber
	valueBool
	valueNull
)

// item is one field with its values, or with an empty field a list of
// keywords.
type item struct {
	field     string
	modifiers []string
	values    []value
}

// selection is a tree of items: a mapping is the conjunction of its items, a
// list the disjunction of its members.
type selection struct {
	all  bool // conjunction of items; else disjunction of members
	item []item
	any  []*selection
}

// detection is the detection part of a rule.
type detection struct {
	names      []string // of selections, in order of writing
	selections map[string]*selection
	conditions texts
}

// detectionReader bounds what one rule may hold.
type detectionReader struct{ values int }

func readDetection(n *yaml.Node) (*detection, error) {
	d := &detection{selections: make(map[string]*selection)}
	r := &detectionReader{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, body := n.Content[i].Value, n.Content[i+1]
		switch name {
		case "condition":
			if err := d.conditions.UnmarshalYAML(body); err != nil {
				return nil, fmt.Errorf("condition: %w", err)
			}
		case "timeframe":
			return nil, errors.New("a timeframe is not converted; write a policy with threshold or sequence")
		default:
			if d.selections[name] != nil {
				return nil, fmt.Errorf("the selection %q is there twice", name)
			}
			s, err := r.selection(body, 0)
			if err != nil {
				return nil, fmt.Errorf("selection %q: %w", name, err)
			}
			d.names = append(d.names, name)
			d.selections[name] = s
		}
	}
	if len(d.conditions) == 0 {
		return nil, errors.New("it has no condition")
	}
	return d, nil
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && i < maxDepth; i++ {
		n = n.Alias
	}
	return n
}

func (r *detectionReader) selection(n *yaml.Node, depth int) (*selection, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("line %d: nested deeper than %d", n.Line, maxDepth)
	}
	switch n = follow(n); n.Kind {
	case yaml.MappingNode:
		return r.mapping(n)
	case yaml.SequenceNode:
		return r.list(n, depth)
	case yaml.ScalarNode:
		vs, err := r.list(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{n}, Line: n.Line}, depth)
		return vs, err
	}
	return nil, fmt.Errorf("line %d: want fields or a list", n.Line)
}

func (r *detectionReader) mapping(n *yaml.Node) (*selection, error) {
	s := &selection{all: true}
	for i := 0; i+1 < len(n.Content); i += 2 {
		parts := strings.Split(n.Content[i].Value, "|")
		vs, err := r.itemValues(n.Content[i+1])
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", parts[0], err)
		}
		s.item = append(s.item, item{field: parts[0], modifiers: parts[1:], values: vs})
	}
	if len(s.item) == 0 {
		return nil, fmt.Errorf("line %d: it is empty", n.Line)
	}
	return s, nil
}

// list reads a disjunction. The plain texts in it are keywords.
func (r *detectionReader) list(n *yaml.Node, depth int) (*selection, error) {
	s := &selection{}
	var words []value
	for _, e := range n.Content {
		if e = follow(e); e.Kind == yaml.ScalarNode {
			v, err := r.scalar(e)
			if err != nil {
				return nil, err
			}
			words = append(words, v)
			continue
		}
		sub, err := r.selection(e, depth+1)
		if err != nil {
			return nil, err
		}
		s.any = append(s.any, sub)
	}
	if len(words) > 0 {
		s.any = append(s.any, &selection{all: true, item: []item{{values: words}}})
	}
	if len(s.any) == 0 {
		return nil, fmt.Errorf("line %d: it is empty", n.Line)
	}
	return s, nil
}

func (r *detectionReader) itemValues(n *yaml.Node) ([]value, error) {
	n = follow(n)
	switch n.Kind {
	case yaml.ScalarNode:
		v, err := r.scalar(n)
		return []value{v}, err
	case yaml.SequenceNode:
		var all []value
		for _, e := range n.Content {
			e = follow(e)
			if e.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: want a single value", e.Line)
			}
			v, err := r.scalar(e)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("line %d: the list is empty", n.Line)
		}
		return all, nil
	}
	return nil, fmt.Errorf("line %d: want a value or a list of values", n.Line)
}

func (r *detectionReader) scalar(n *yaml.Node) (value, error) {
	if r.values++; r.values > maxValues {
		return value{}, fmt.Errorf("line %d: the rule has more than %d values", n.Line, maxValues)
	}
	switch n.Tag {
	case "!!null":
		return value{kind: valueNull}, nil
	case "!!int", "!!float":
		return value{kind: valueNumber, text: n.Value}, nil
	case "!!bool":
		return value{kind: valueBool, text: strings.ToLower(n.Value)}, nil
	}
	return value{kind: valueText, text: n.Value}, nil
}
