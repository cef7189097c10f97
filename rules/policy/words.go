package policy

import (
	"slices"
	"strings"
)

// FunctionInfo describes one function of the language.
type FunctionInfo struct {
	Name    string
	Usage   string // with what its arguments are
	Returns string
	Doc     string
}

// Functions returns the functions of the language in order of name.
func Functions() []FunctionInfo {
	all := make([]FunctionInfo, len(functionNames))
	for i, name := range functionNames {
		f := functions[name]
		all[i] = FunctionInfo{Name: name, Usage: usage(f), Returns: f.ret.FriendlyName(), Doc: f.doc}
	}
	return all
}

// Shape says what a block may hold. The caller must not change it.
type Shape struct {
	Labels    int
	Arguments []string
	Blocks    []string
}

// ShapeOf returns the shape of a block by its type, "" for a file. For an action
// and a prevent block the label belongs to it.
func ShapeOf(block, label string) (Shape, bool) {
	s, ok := blockShapes[block]
	if block == "action" {
		s, ok = actionShapes[label]
	}
	if block == "locals" {
		return Shape{}, true // any names
	}
	return Shape{Labels: s.labels, Arguments: s.attrs, Blocks: s.blocks}, ok
}

var blockShapes = map[string]shape{
	"": fileShape, "bundle": bundleShape, "list": listShape, "macro": macroShape, "policy": policyShape,
	"target": targetShape, "exception": exceptionShape, "approval": approvalShape, "threshold": thresholdShape,
	"sequence": sequenceShape, "step": stepShape, "reset": resetShape, "first_seen": firstSeenShape,
	"cooldown": cooldownShape, "limit": limitShape, "prevent": preventShape, "escalate": escalateShape,
}

// TestShapeOf is ShapeOf for the blocks of tests. An event block has the groups
// of fields of its type besides.
func TestShapeOf(block string) (Shape, bool) {
	s, ok := testShapes[block]
	return Shape{Labels: s.labels, Arguments: s.attrs, Blocks: s.blocks}, ok
}

var testShapes = map[string]shape{
	"": testFileShape, "vm": testVMShape, "test": testShape, "approval": testApprovalShape,
	"event":    {what: "event", labels: 1, attrs: []string{"at", "repeat", "every"}, blocks: []string{"expect"}},
	"recorded": testRecordedShape, "expect": testExpectShape,
}

// AliasesOf returns what other tools call a field, in order.
func AliasesOf(field string) []string {
	var all []string
	for alias, f := range aliases {
		if f == field && !strings.HasPrefix(alias, field+".") {
			all = append(all, alias)
		}
	}
	slices.Sort(all)
	return all
}
