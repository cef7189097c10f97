package lsp

import (
	"context"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

func (s *server) completion(_ context.Context, p positionParams) ([]completionItem, error) {
	dir, name, text, err := s.open(p.TextDocument.URI)
	if err != nil || !isPolicy(name) && !isTest(name) || len(text) > policy.MaxFileSize {
		return []completionItem{}, err
	}
	s.mu.Lock()
	snippets := s.snippets
	s.mu.Unlock()
	b := s.bundleOf(dir)
	defer b.close()
	at := offset(text, p.Position)
	return complete(b, name, text, at, snippets), nil
}

func complete(b *bundle, name string, text []byte, at int, snippets bool) []completionItem {
	c := &completer{text: text, at: at, place: placeAt(text, at), bundle: b, snippets: snippets, items: []completionItem{}, replaced: make(map[int]span)}
	if isTest(name) {
		c.test()
	} else {
		c.complete()
	}
	return c.items
}

// completer collects what can stand at one place.
type completer struct {
	text     []byte
	at       int
	place    *place
	bundle   *bundle
	snippets bool
	items    []completionItem

	replaced map[int]span // what is replaced, by its first byte
}

// add offers a text in the place of what stands from a byte to the cursor.
func (c *completer) add(from int, label, insert string, kind int, detail, doc string) {
	r, ok := c.replaced[from]
	if !ok {
		r = spanOf(c.text, from, c.at)
		c.replaced[from] = r
	}
	it := completionItem{Label: label, Kind: kind, Detail: detail, TextEdit: &textEdit{r, insert}}
	if doc != "" {
		it.Documentation = markdown(doc)
	}
	c.items = append(c.items, it)
}

func (c *completer) complete() {
	f, attr := c.place.block()
	inExpr := attr != "" || !c.place.frames[len(c.place.frames)-1].block
	switch {
	case c.place.quoted && attr == "":
		if n := len(c.place.pending); n == 1 && c.place.pending[0] == "action" {
			for _, k := range policy.ActionKinds {
				c.add(c.place.strStart, k, k, kindValue, "action", blockDocs["action "+k])
			}
		}
	case c.place.quoted:
		c.texts(f, attr)
	case inExpr:
		c.expression(f, attr)
	case len(c.place.pending) <= 1:
		c.names(f)
	}
}

// texts offers values of a quoted argument.
func (c *completer) texts(f *frame, attr string) {
	if attr == "on" {
		for _, k := range event.Subjects() {
			c.add(c.place.strStart, k.String(), k.String(), kindValue, "event type", "")
		}
		return
	}
	vs, _ := lookup(values, f.typ, attr)
	for _, v := range vs {
		c.add(c.place.strStart, v, v, kindValue, attr, "")
	}
}

// names offers the arguments and blocks that may stand here and do not yet.
func (c *completer) names(f *frame) {
	label := ""
	if len(f.labels) > 0 {
		label = f.labels[0]
	}
	if shape, ok := policy.ShapeOf(f.typ, label); ok {
		c.shape(f, shape)
	}
}

// shape offers what a block may hold.
func (c *completer) shape(f *frame, shape policy.Shape) {
	from := c.place.wordFrom
	there := innerOf(c.text, f.start)
	for _, a := range shape.Arguments {
		if _, ok := there.names[a]; !ok {
			doc, _ := lookup(argumentDocs, f.typ, a)
			c.add(from, a, a+" = ", kindProperty, "argument", doc)
		}
	}
	for _, b := range shape.Blocks {
		insert := b
		if c.snippets {
			insert = snippet(b)
		}
		c.add(from, b, insert, kindModule, "block", blockDocs[b])
		if c.snippets {
			c.items[len(c.items)-1].InsertTextFormat = 2
		}
	}
}

// snippet is a block with places to fill in.
func snippet(block string) string {
	kind := ""
	if block == "action" {
		kind = "alert"
	}
	shape, _ := policy.ShapeOf(block, kind)
	switch {
	case kind != "":
		return "action \"${1:alert}\" {\n  $0\n}"
	case shape.Labels > 0 || block == "prevent":
		return block + " \"${1:name}\" {\n  $0\n}"
	}
	return block + " {\n  $0\n}"
}

// expression offers what a value can be made of.
func (c *completer) expression(f *frame, attr string) {
	word, from := c.place.word, c.place.wordFrom
	root, rest, dotted := strings.Cut(word, ".")
	if dotted && (root == "list" || root == "macro" || root == "local") {
		for _, d := range definitionsOf(c.bundle.texts()) {
			if d.kind == root {
				c.add(from, d.String(), d.String(), kindVariable, d.detail(), d.doc)
			}
		}
		return
	}
	constant := slices.Contains([]string{"on", "values", "names", "uuids", "tags", "references", "attack", "channels", "allow", "deny"}, attr) || f.typ == "locals"
	if dotted && root == "step" {
		c.steps(rest, from)
		return
	}
	if !constant {
		c.fields("", c.classes(f), f.typ == "target", from)
	}
	if dotted {
		return
	}
	if attr == "message" && c.place.enclosing("policy") != nil {
		for _, n := range []string{"threshold.count", "threshold.window"} {
			c.add(from, n, n, kindField, "of the threshold", "")
		}
	}
	for _, d := range definitionsOf(c.bundle.texts()) {
		if d.kind != "policy" && (!constant || d.kind != "macro") {
			c.add(from, d.String(), d.String(), kindVariable, d.detail(), d.doc)
		}
	}
	if constant {
		return
	}
	for _, fn := range policy.Functions() {
		c.add(from, fn.Name, fn.Name+"(", kindFunction, fn.Returns, "`"+fn.Usage+"`\n\n"+fn.Doc)
	}
	for _, k := range []string{"true", "false", "null"} {
		c.add(from, k, k, kindKeyword, "", "")
	}
}

// classes returns the event types that the expression in f is about, the empty
// set where nothing is known.
func (c *completer) classes(f *frame) event.ClassSet {
	if f.typ != "step" && f.typ != "reset" {
		if f = c.place.enclosing("policy"); f == nil {
			return event.ClassSet{}
		}
	}
	in := innerOf(c.text, f.start)
	set := in.classes()
	for _, b := range in.blocks { // the last step's event is the one a sequence's actions read
		if b.typ == "sequence" {
			for _, step := range innerOf(c.text, b.start).blocks {
				set = set.Union(innerOf(c.text, step.start).classes())
			}
		}
	}
	return set
}

// fields offers the fields that events of a set carry.
func (c *completer) fields(prefix string, set event.ClassSet, vmOnly bool, from int) {
	for _, name := range event.Names() {
		info, _ := event.Lookup(name)
		if !set.Empty() && !info.Classes.Intersects(set) || vmOnly && info.Field.Root() != "vm" {
			continue
		}
		insert := prefix + name
		if info.Kind == event.KindMap {
			insert += "."
		}
		c.add(from, prefix+name, insert, kindField, info.Kind.String(), fieldDoc(info))
	}
}

// steps offers the steps of the sequence around the place, or the fields of
// one.
func (c *completer) steps(rest string, from int) {
	f := c.place.enclosing("policy")
	if f == nil {
		return
	}
	for _, b := range innerOf(c.text, f.start).blocks {
		if b.typ != "sequence" {
			continue
		}
		for _, step := range innerOf(c.text, b.start).blocks {
			if step.typ != "step" || len(step.labels) == 0 {
				continue
			}
			name := step.labels[0]
			if !strings.HasPrefix(rest, name+".") {
				c.add(from, "step."+name, "step."+name+".", kindVariable, "step", "")
				continue
			}
			c.fields("step."+name+".", innerOf(c.text, step.start).classes(), false, from)
			c.add(from, "step."+name+".count", "step."+name+".count", kindField, "number", "How often the step has happened.")
		}
	}
}
