package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// list is a named list of constants.
type list struct {
	name   string
	typ    string
	values []string
	rng    hcl.Range
	used   bool
}

var listTypes = []string{"cidr", "path", "sha256", "string"}

// maxListErrors bounds how many lines of one list are reported.
const maxListErrors = 20

// listValue checks one value of a list and returns it in canonical form.
func listValue(typ, s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("the value is empty")
	}
	switch typ {
	case "path":
		if !strings.HasPrefix(s, "/") {
			return "", fmt.Errorf("%q is not an absolute path", s)
		}
		if c := canonical(s); c != s {
			return "", fmt.Errorf("%q is not in canonical form; write %q", s, c)
		}
	case "sha256":
		h, err := record.ParseHash(s)
		if err != nil {
			return "", fmt.Errorf("%q is not a SHA-256 digest of 64 hexadecimal digits", s)
		}
		return h.String(), nil
	case "cidr":
		if _, err := parsePrefix(s); err != nil {
			return "", fmt.Errorf("%q: %w", s, err)
		}
	}
	return event.Normalize(s), nil
}

// parseListFile reads the values of a list, one on each line. Empty lines and
// lines that start with "#" are left out; after a digest a file name may
// follow, as sha256sum writes it.
func (l *loader) parseListFile(li *list, name string, data []byte) {
	errors := 0
	byteAt, number := 0, 0
	for line := range strings.Lines(string(data)) {
		number++
		start := byteAt
		byteAt += len(line)
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' {
			continue
		}
		if li.typ == "sha256" {
			text = strings.Fields(text)[0]
		}
		v, err := listValue(li.typ, text)
		if err == nil {
			li.values = append(li.values, v)
			continue
		}
		if errors++; errors > maxListErrors {
			continue
		}
		rng := hcl.Range{Filename: name,
			Start: hcl.Pos{Line: number, Column: 1, Byte: start},
			End:   hcl.Pos{Line: number, Column: 1 + len(strings.TrimRight(line, "\r\n")), Byte: start + len(strings.TrimRight(line, "\r\n"))}}
		l.rep.err(CodeBadValue, rng, "Invalid list value", "List \""+li.name+"\": "+err.Error()+".")
	}
	if errors > maxListErrors {
		l.rep.file(hcl.DiagError, CodeBadValue, name, "Invalid list values",
			fmt.Sprintf("List %q has %d more wrong lines.", li.name, errors-maxListErrors))
	}
	slices.Sort(li.values)
	li.values = slices.Compact(li.values)
}
