package sigma

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDocuments is how many rules one file may hold.
const maxDocuments = 1000

// texts are one or several strings, as authors write either.
type texts []string

// UnmarshalYAML takes a scalar or a list of them.
func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag != "!!null" && n.Value != "" {
			*t = texts{n.Value}
		}
		return nil
	case yaml.SequenceNode:
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: want a text", e.Line)
			}
			*t = append(*t, e.Value)
		}
		return nil
	}
	return fmt.Errorf("line %d: want a text or a list of texts", n.Line)
}

// rule is one Sigma document as its author wrote it.
type rule struct {
	Title          string `yaml:"title"`
	ID             string `yaml:"id"`
	Status         string `yaml:"status"`
	Description    string `yaml:"description"`
	References     texts  `yaml:"references"`
	Author         texts  `yaml:"author"`
	Tags           texts  `yaml:"tags"`
	Level          string `yaml:"level"`
	License        string `yaml:"license"`
	FalsePositives texts  `yaml:"falsepositives"`
	LogSource      struct {
		Category string `yaml:"category"`
		Product  string `yaml:"product"`
		Service  string `yaml:"service"`
	} `yaml:"logsource"`
	Detection   yaml.Node `yaml:"detection"`
	Correlation yaml.Node `yaml:"correlation"`
	Filter      yaml.Node `yaml:"filter"`
	Action      string    `yaml:"action"`
}

// parsed is one document of a file, or why it is none.
type parsed struct {
	rule *rule
	err  error
}

// parseDocuments splits a file into its documents. What cannot be read as YAML
// ends the file: a parser does not find the next document behind it.
func parseDocuments(data []byte) []parsed {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var all []parsed
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		switch {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			return append(all, parsed{err: fmt.Errorf("not YAML: %s", oneLine(err.Error()))})
		case len(all) == maxDocuments:
			return append(all, parsed{err: fmt.Errorf("the file has more than %d documents", maxDocuments)})
		}
		if n.Kind == 0 || len(n.Content) == 1 && n.Content[0].Tag == "!!null" {
			continue // nothing between two "---"
		}
		r := &rule{}
		if err := n.Decode(r); err != nil {
			all = append(all, parsed{err: fmt.Errorf("not a Sigma rule: %s", oneLine(err.Error()))})
			continue
		}
		all = append(all, parsed{rule: r, err: r.unsuited()})
	}
}

// unsuited says why a document is no rule for single events.
func (r *rule) unsuited() error {
	switch {
	case r.Correlation.Kind != 0:
		return errors.New("a correlation of other rules is not converted; write a policy with threshold or sequence")
	case r.Filter.Kind != 0:
		return errors.New("a filter for other rules is not converted; write an exception into the policy")
	case r.Action != "":
		return fmt.Errorf("the collection action %q of old Sigma versions is not converted; give each rule a document of its own", r.Action)
	case r.Detection.Kind != yaml.MappingNode:
		return errors.New("not a Sigma rule: it has no detection")
	case strings.TrimSpace(r.Title) == "":
		return errors.New("not a Sigma rule: it has no title")
	}
	return nil
}

// oneLine joins the lines of a text with single spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
