package sigma

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// condition is the parsed condition of a rule. Of its parts one is set.
type condition struct {
	name    string // of a selection
	not     *condition
	and, or []*condition
}

var conditionToken = regexp.MustCompile(`\s*([()|]|[^\s()|]+)`)

// parseCondition reads a condition such as "selection and not 1 of filter_*".
func parseCondition(text string, names []string) (*condition, error) {
	p := &conditionParser{names: names}
	for _, m := range conditionToken.FindAllStringSubmatch(text, maxValues) {
		p.tokens = append(p.tokens, m[1])
	}
	for _, t := range p.tokens {
		if t == "|" {
			return nil, errors.New("the condition counts with \"|\" as old Sigma versions did, which is not converted; write a policy with threshold")
		}
	}
	c, err := p.or(0)
	if err != nil {
		return nil, fmt.Errorf("condition %q: %w", text, err)
	}
	if p.at < len(p.tokens) {
		return nil, fmt.Errorf("condition %q: %q is not expected", text, p.tokens[p.at])
	}
	return c, nil
}

type conditionParser struct {
	tokens []string
	at     int
	names  []string
}

// word reports whether the next token is the given word and takes it.
func (p *conditionParser) word(w string) bool {
	if p.at < len(p.tokens) && strings.EqualFold(p.tokens[p.at], w) {
		p.at++
		return true
	}
	return false
}

func (p *conditionParser) or(depth int) (*condition, error) {
	var all []*condition
	for {
		c, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if !p.word("or") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return &condition{or: all}, nil
}

func (p *conditionParser) and(depth int) (*condition, error) {
	var all []*condition
	for {
		c, err := p.not(depth)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if !p.word("and") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return &condition{and: all}, nil
}

func (p *conditionParser) not(depth int) (*condition, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if p.word("not") {
		c, err := p.not(depth + 1)
		if err != nil {
			return nil, err
		}
		return &condition{not: c}, nil
	}
	if p.word("(") {
		c, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.word(")") {
			return nil, errors.New("a closing parenthesis is missing")
		}
		return c, nil
	}
	return p.operand()
}

// operand reads a selection's name or "1 of", "all of" a pattern of names.
func (p *conditionParser) operand() (*condition, error) {
	if p.at == len(p.tokens) {
		return nil, errors.New("it ends too early")
	}
	t := p.tokens[p.at]
	p.at++
	if p.at+1 < len(p.tokens) && strings.EqualFold(p.tokens[p.at], "of") {
		pattern := p.tokens[p.at+1]
		p.at += 2
		return p.quantified(strings.ToLower(t), pattern)
	}
	for _, n := range p.names {
		if n == t {
			return &condition{name: n}, nil
		}
	}
	return nil, fmt.Errorf("there is no selection %q", t)
}

func (p *conditionParser) quantified(how, pattern string) (*condition, error) {
	var all []*condition
	for _, n := range p.names {
		if pattern == "them" && !strings.HasPrefix(n, "_") || pattern != "them" && fits(pattern, n) {
			all = append(all, &condition{name: n})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no selection fits %q", pattern)
	}
	switch how {
	case "1", "any":
		return &condition{or: all}, nil
	case "all":
		return &condition{and: all}, nil
	}
	return nil, fmt.Errorf("\"%s of\" is not known, want \"1 of\", \"any of\" or \"all of\"", how)
}

// fits reports whether a name fits a pattern with "*".
func fits(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}
