package lsp

import (
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// test offers what can stand at a place of a file of tests.
func (c *completer) test() {
	f, attr := c.place.block()
	top := &c.place.frames[len(c.place.frames)-1]
	switch {
	case c.place.quoted && attr == "":
		if n := len(c.place.pending); n == 1 && c.place.pending[0] == "event" {
			for _, k := range event.Subjects() {
				c.add(c.place.strStart, k.String(), k.String(), kindValue, "event type", "")
			}
		}
	case c.place.quoted:
		c.testTexts(f, top, attr)
	case top.object && top.attr == "":
		if e := c.place.enclosing("event"); e != nil {
			c.groups(e, c.place.objects())
		}
	case attr == "" && top.block && len(c.place.pending) <= 1:
		shape, ok := policy.TestShapeOf(f.typ)
		if !ok {
			return
		}
		c.shape(f, shape)
		for i := range c.items {
			c.items[i].Documentation = markdown(testDocs[c.items[i].Label])
		}
		if f.typ == "event" {
			c.groups(f, "")
		}
	}
}

// objects returns the keys of the objects around the place: "process.parent.".
func (p *place) objects() string {
	path := ""
	for _, f := range p.frames {
		if f.block {
			path = ""
		} else if f.object {
			path += f.key + "."
		}
	}
	return path
}

// groups offers the names below a prefix of the fields that an event carries.
func (c *completer) groups(f *frame, prefix string) {
	var class record.Class
	if len(f.labels) > 0 {
		class, _ = record.ParseClass(f.labels[0]) // else all fields
	}
	seen := make(map[string]bool)
	for _, name := range event.Names() {
		info, _ := event.Lookup(name)
		rest, ok := strings.CutPrefix(name, prefix)
		if root := info.Field.Root(); !ok || class != 0 && !info.Classes.Has(class) || info.Host && (root == "event" || root == "vm") {
			continue // what the host says of every entry follows from the test
		}
		part, _, group := strings.Cut(rest, ".")
		if seen[part] {
			continue
		}
		seen[part] = true
		if group {
			c.add(c.place.wordFrom, part, part+" = ", kindModule, "group of fields", "")
		} else {
			c.add(c.place.wordFrom, part, part+" = ", kindField, info.Kind.String(), fieldDoc(info))
		}
	}
}

// testTexts offers values of a quoted argument or field.
func (c *completer) testTexts(f, top *frame, attr string) {
	offer := func(all []string, what string) {
		for _, s := range all {
			c.add(c.place.strStart, s, s, kindValue, what, "")
		}
	}
	switch {
	case top.object && c.place.enclosing("event") != nil:
		if info, ok := event.Lookup(c.place.objects() + top.attr); ok {
			offer(info.Enum, info.Name)
		}
	case f.typ == "test" && attr == "policy":
		for _, d := range definitionsOf(c.bundle.texts()) {
			if d.kind == "policy" {
				offer([]string{d.name}, d.detail())
			}
		}
	case f.typ == "test" && attr == "vm":
		for _, b := range innerOf(c.text, 0).blocks {
			if b.typ == "vm" && len(b.labels) > 0 {
				offer(b.labels[:1], "vm")
			}
		}
	case f.typ == "expect" && attr == "actions":
		offer(policy.ActionKinds, "action")
	}
}

// testDocs say what the blocks and arguments of tests mean.
var testDocs = map[string]string{
	"vm": "A domain; in a test, which one it is of.", "test": "Events, and what one policy makes of them.",
	"approval": "An approval that covers what its condition says.", "event": "One entry, or several alike, with the fields by their groups.",
	"recorded": "Entries as they were sealed, from a file beside the bundle.", "expect": "What is to come out. What is not said is not looked at.",
	"name": "Name of the domain.", "uuid": "Its UUID.", "state": "Its state; default running.", "tags": "Its tags.", "metadata": "Its metadata.",
	"policy": "The policy that the expectations are of.", "start": "When the test begins.",
	"group": "The group that signed.", "signers": "How many signed; default: as many as the policy wants.", "condition": "What it covers.", "at": "When, since the start of the test, such as \"+30s\".",
	"until": "For how long it is valid.", "max_uses": "How often it can be used.",
	"repeat": "How many times; `each.index` counts from 0.", "every": "How far apart they are.",
	"matched": "Whether the policy gives a verdict.", "verdicts": "How many.", "actions": "The kinds of all actions, in order.",
	"message": "The whole text of one of the alerts.", "contains": "Texts, each in one of the alerts.", "approved": "Id of the approval that covers a match.",
	"step": "The furthest step of the sequence that is reached.", "exception": "Name of the exception that covers a match.",
	"suppressed": "How many matches a cooldown swallows.", "error": "Part of the text of an error.",
}
