package matrix

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Facts are what an act noted.
type Facts map[string]json.RawMessage

// ParseFacts reads the last line that act printed.
func ParseFacts(out string) (Facts, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var f Facts
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil {
		return nil, fmt.Errorf("read facts: %w: %q", err, out)
	}
	return f, nil
}

// missing is a fact that a check wants and the act did not note.
type missing struct{ error }

func (f Facts) into(name string, v any) {
	raw, ok := f[name]
	if !ok {
		panic(missing{fmt.Errorf("the act noted no fact %q", name)})
	}
	if err := json.Unmarshal(raw, v); err != nil {
		panic(missing{fmt.Errorf("fact %q: %w", name, err)})
	}
}

// Text is a fact noted as a string.
func (f Facts) Text(name string) (s string) { f.into(name, &s); return s }

// Number is a fact noted as an integer.
func (f Facts) Number(name string) (n int64) { f.into(name, &n); return n }

// Inode is a file noted with Stat.
func (f Facts) Inode(name string) (i Inode) { f.into(name, &i); return i }

// Bytes is a fact noted as a byte slice, as a string with the same bytes.
func (f Facts) Bytes(name string) string {
	b, err := base64.StdEncoding.DecodeString(f.Text(name))
	if err != nil {
		panic(missing{fmt.Errorf("fact %q: %w", name, err)})
	}
	return string(b)
}
