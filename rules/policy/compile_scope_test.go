package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// TestCompileScope compiles a condition outside of a bundle, and says of one that
// cannot be what is wrong and where.
func TestCompileScope(t *testing.T) {
	on := []record.Class{record.ClassFileModify}
	c, err := CompileScope(`under(file.path, "/etc/nginx") && !startswith(process.name, "v")`, on)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/etc/nginx/x": true, "/etc/nginx2": false} {
		e := &event.Event{}
		leaf := record.Leaf{Header: record.Header{Class: record.ClassFileModify}}
		if err := e.Load(&leaf, &record.Event{File: &record.File{Path: []byte(path)}}, &event.VM{}); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Eval(e); err != nil || got != want {
			t.Errorf("%s: %v %v", path, got, err)
		}
	}
	for text, want := range map[string]string{
		`file.pth == "x"`:                   `file.path`,
		`macro.m`:                           `no macro "m"`,
		`contains(list.l, file.path)`:       `no list "l"`,
		`network.direction == "egress"`:     `never present`,
		`file.path == 1`:                    `^`,
		`file.path`:                         `^`,
		`under(file.path, `:                 `^`,
		``:                                  `condition`,
		strings.Repeat("(", 200):            `too deeply`,
		strings.Repeat(" ", MaxScope) + "x": `limit`,
	} {
		c, err := CompileScope(text, on)
		if c != nil || !errors.Is(err, record.ErrReject) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}
