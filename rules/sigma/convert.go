package sigma

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"sort"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// Options say how rules are converted. The zero value is Sigma's meaning.
type Options struct {
	// Cased compares names and paths of files and programs exactly.
	Cased bool
	// Bundle and Version name the bundle; "sigma" and "1" where empty.
	Bundle, Version string
	// Origin is where the rules are from; the Sigma project where empty.
	Origin string
}

// Source is one file of rules.
type Source struct {
	Name string // with forward slashes
	Data []byte
}

// File is one file of the bundle.
type File struct {
	Name string
	Data []byte
}

// Outcome says what became of one rule.
type Outcome struct {
	Source string `json:"source"`
	Title  string `json:"title,omitempty"`
	ID     string `json:"id,omitempty"`
	// Policies made of it; none where there is a Reason.
	Policies []string `json:"policies,omitempty"`
	// Reason why it was not converted.
	Reason string `json:"reason,omitempty"`
	// Notes say in what the policies differ from the rule.
	Notes []string `json:"notes,omitempty"`
}

// Result is a bundle that loads, and what became of each rule.
type Result struct {
	Files []File
	Rules []Outcome
}

// Converted returns how many rules became policies.
func (r *Result) Converted() int {
	n := 0
	for _, o := range r.Rules {
		if o.Reason == "" {
			n++
		}
	}
	return n
}

// bundleFile holds the bundle block; it sorts before the policies.
const bundleFile = "00-bundle" + policy.Suffix

// Convert makes a bundle of all rules that can be converted. Without any the
// Result has no files.
func Convert(sources []Source, opts Options) (*Result, error) {
	if opts.Bundle == "" {
		opts.Bundle = "sigma"
	}
	if opts.Version == "" {
		opts.Version = "1"
	}
	if opts.Origin == "" {
		opts.Origin = "https://github.com/SigmaHQ/sigma"
	}
	c := &converter{opts: opts, names: make(map[string]bool)}
	var err error
	c.bundle, err = format(bundleFile, fmt.Sprintf("bundle {\nname = %s\nversion = %s\nlanguage = %d\n}\n", quote(opts.Bundle), quote(opts.Version), policy.LanguageVersion))
	if err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	res := &Result{}
	files := map[string]bool{bundleFile: true}
	for _, s := range sources {
		text := c.source(s, res)
		if len(text) == 0 {
			continue
		}
		name := unique(files, stem(s.Name), policy.Suffix)
		res.Files = append(res.Files, File{Name: name, Data: text})
	}
	if len(res.Files) == 0 {
		return res, nil
	}
	if len(res.Files) >= policy.MaxFiles {
		return nil, fmt.Errorf("write bundle: %d files of rules, and a bundle has at most %d: convert the directories one by one: %w", len(res.Files), policy.MaxFiles, record.ErrReject)
	}
	res.Files = append([]File{{Name: bundleFile, Data: c.bundle}}, res.Files...)
	if err := load(res.Files); err != nil {
		return nil, fmt.Errorf("load the bundle that was made: %w", err)
	}
	return res, nil
}

type converter struct {
	opts   Options
	bundle []byte
	names  map[string]bool // of policies
}

// source converts the rules of one file and returns the text of their
// policies.
func (c *converter) source(s Source, res *Result) []byte {
	var text bytes.Buffer
	docs := parseDocuments(s.Data)
	if len(docs) == 0 {
		res.Rules = append(res.Rules, Outcome{Source: s.Name, Reason: "the file is empty"})
	}
	for _, d := range docs {
		out := Outcome{Source: s.Name}
		err := d.err
		if d.rule != nil {
			out.Title, out.ID = d.rule.Title, d.rule.ID
		}
		if err == nil {
			var part []byte
			part, err = c.rule(s, d.rule, &out)
			if err == nil {
				if text.Len() > 0 {
					text.WriteByte('\n')
				}
				text.Write(part)
			}
		}
		if err != nil {
			out.Reason, out.Policies, out.Notes = err.Error(), nil, nil
		}
		res.Rules = append(res.Rules, out)
	}
	return text.Bytes()
}

// rule converts one rule.
func (c *converter) rule(s Source, r *rule, out *Outcome) ([]byte, error) {
	d, err := readDetection(&r.Detection)
	if err != nil {
		return nil, err
	}
	views, err := r.views(d)
	if err != nil {
		return nil, err
	}
	drafts, notes, err := c.drafts(d, views)
	if err != nil {
		return nil, err
	}
	out.Notes = notes
	var b strings.Builder
	taken := maps.Clone(c.names)
	for i, p := range drafts {
		name := stem(s.Name)
		if p.suffix != "" {
			name += "_" + p.suffix
		}
		p.name = unique(taken, name, "")
		out.Policies = append(out.Policies, p.name)
		if i > 0 {
			b.WriteByte('\n')
		}
		c.write(&b, s, r, p, notes)
	}
	file := "rule" + policy.Suffix
	text, err := format(file, b.String())
	if err != nil {
		return nil, fmt.Errorf("the policy would not parse: %w", err)
	}
	if err := load([]File{{Name: bundleFile, Data: c.bundle}, {Name: file, Data: text}}); err != nil {
		return nil, fmt.Errorf("the policy would not load: %w", err)
	}
	c.names = taken
	return text, nil
}

// draft is a policy before it has a text.
type draft struct {
	name      string
	suffix    string
	on        []string
	condition string // empty: every event
}

// drafts works out the condition for each view.
func (c *converter) drafts(d *detection, views []view) ([]*draft, []string, error) {
	var conditions []*condition
	for _, text := range d.conditions {
		cond, err := parseCondition(text, d.names)
		if err != nil {
			return nil, nil, err
		}
		conditions = append(conditions, cond)
	}
	missed := make(map[string]bool)
	seen := make(map[string]*draft)
	var all []*draft
	var notes []string
	for i := range views {
		v := &views[i]
		w := &worker{view: v, views: views, cased: c.opts.Cased, missed: missed}
		n := truth(false)
		for _, cond := range conditions {
			n = or(n, w.condition(cond, d))
		}
		if v.guard != nil {
			n = and(v.guard, n)
		}
		switch n.kind {
		case nodeBad:
			return nil, nil, errors.New(n.text)
		case nodeFalse:
			continue
		}
		var b strings.Builder
		n.write(&b)
		p := seen[b.String()]
		if p == nil {
			p = &draft{suffix: v.suffix, condition: b.String()}
			seen[p.condition] = p
			all = append(all, p)
		}
		p.on = append(p.on, v.on...)
		notes = addNote(notes, v.note)
	}
	for _, m := range sortedKeys(missed) {
		notes = addNote(notes, "no event stands for "+m)
	}
	if len(all) == 0 {
		if len(notes) == 0 {
			return nil, nil, errors.New("no kind of record has all the fields that it wants")
		}
		return nil, nil, errors.New(strings.Join(notes, "; "))
	}
	return all, notes, nil
}

func addNote(notes []string, s string) []string {
	if s == "" {
		return notes
	}
	for _, n := range notes {
		if n == s {
			return notes
		}
	}
	return append(notes, s)
}

func sortedKeys(m map[string]bool) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}

// condition works out a condition for the worker's view.
func (w *worker) condition(c *condition, d *detection) *node {
	switch {
	case c.not != nil:
		return not(w.condition(c.not, d))
	case c.and != nil:
		all := make([]*node, len(c.and))
		for i, s := range c.and {
			all[i] = w.condition(s, d)
		}
		return and(all...)
	case c.or != nil:
		all := make([]*node, len(c.or))
		for i, s := range c.or {
			all[i] = w.condition(s, d)
		}
		return or(all...)
	}
	return w.selection(d.selections[c.name])
}

func (w *worker) selection(s *selection) *node {
	var all []*node
	if s.all {
		for _, it := range s.item {
			all = append(all, w.item(it))
		}
		return and(all...)
	}
	for _, m := range s.any {
		all = append(all, w.selection(m))
	}
	return or(all...)
}

// format brings the text of a file into canonical form.
func format(name, text string) ([]byte, error) {
	out, diags := policy.Format(name, []byte(text))
	return out, policy.FirstError(diags)
}

// load gives files to the loader of policies.
func load(files []File) error {
	m := make(map[string][]byte, len(files))
	for _, f := range files {
		m[f.Name] = f.Data
	}
	_, diags := policy.LoadFS(policy.Overlay(nil, m))
	return policy.FirstError(diags)
}

// stem is the name of a policy for a file: what policies may be called.
func stem(name string) string {
	base := strings.ToLower(strings.TrimSuffix(path.Base(name), path.Ext(name)))
	var b strings.Builder
	for _, r := range base {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	s := b.String()
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		s = "sigma_" + s
	}
	return s[:min(len(s), maxStem)]
}

// maxStem leaves room for what is put behind a name.
const maxStem = 100

// unique returns stem and suffix, numbered if that is taken, and takes it.
func unique(taken map[string]bool, stem, suffix string) string {
	name := stem + suffix
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s_%d%s", stem, i, suffix)
	}
	taken[name] = true
	return name
}
