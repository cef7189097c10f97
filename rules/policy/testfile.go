package policy

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/chain/record"
)

// Limits of test files.
const (
	maxTests  = 10_000
	maxEvents = 1_000  // blocks of one test
	maxRepeat = 10_000 // of one event
)

// Tests are the tests beside a bundle, in order of files and places.
type Tests struct {
	Tests []*Test
	// Files by name, for diagnostics.
	Files map[string][]byte
}

// Test feeds events to the bundle and says what one policy makes of them.
type Test struct {
	Name      string
	Policy    *Policy
	VM        *TestVM
	Start     time.Time // of the test, in policy time
	Approvals []*TestApproval
	Events    []*TestEvent
	Expect    *TestExpect // of the whole test; nil: nothing is said
	Place
}

// Place is where something stands.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// TestVM is the domain of a test.
type TestVM struct {
	Label             string
	Name, UUID, State string
	Tags              []string
	Metadata          map[string]string
}

// TestApproval is an approval that is loaded before the first event at or
// after its time.
type TestApproval struct {
	ID, Group string
	Condition string // source text; empty: everything
	At        time.Duration
	Until     time.Duration
	MaxUses   uint64
	Signers   uint64 // 0: as many as the policy wants
	Place
}

// TestEvent is one or several entries.
type TestEvent struct {
	Type string
	// At is when the first of them comes, since the start of the test; negative:
	// right behind the event before. The next ones follow after Every each.
	At, Every time.Duration
	Entries   []TestEntry
	// Recorded are entries as they were sealed, one JSON value a line; they come
	// in their own order and distances.
	Recorded []byte
	Expect   *TestExpect // of these entries; nil: nothing is said
	Place
}

// TestEntry is an entry without its place in a log.
type TestEntry struct {
	Leaf    record.Leaf // class, origin and sequence
	Payload record.Message
}

// TestExpect is what a policy is to make of some events. What is nil is not
// looked at.
type TestExpect struct {
	Matched    *bool
	Verdicts   *uint64
	Actions    []string
	Message    *string
	Contains   []string
	Approved   *string
	Step       *string
	Exception  *string
	Suppressed *uint64
	Error      *string
	Place
}

// LoadTests reads the tests in the directory of a bundle. They are nil where
// the diagnostics have errors. Only one goroutine at a time may load tests of one
// bundle.
func LoadTests(dir string, b *Bundle) (*Tests, hcl.Diagnostics) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		rep := newReport()
		rep.file(hcl.DiagError, CodeFile, dir, "Bundle not readable", fmt.Sprintf("The bundle directory cannot be opened: %s.", cause(err)))
		return nil, rep.diags
	}
	defer root.Close()
	return LoadTestsFS(root.FS(), b)
}

// LoadTestsFS reads the tests at the root of fsys.
func LoadTestsFS(fsys fs.FS, b *Bundle) (*Tests, hcl.Diagnostics) {
	rep := newReport()
	v := *b.env
	v.rep = rep
	d := &testDecoder{
		loader: &loader{rep: rep, fsys: fsys, files: make(map[string][]byte)},
		env:    &v, bundle: b, vms: make(map[string]*TestVM), places: make(map[string]hcl.Range),
	}
	bodies := d.read()
	for _, body := range bodies {
		d.vmBlocks(body)
	}
	out := &Tests{Files: d.files}
	for _, body := range bodies {
		for _, tb := range blocksOf(body, "test") {
			if t := d.test(tb); t != nil {
				out.Tests = append(out.Tests, t)
			}
		}
	}
	if rep.hasErrors() {
		return nil, d.sorted()
	}
	return out, d.sorted()
}

// testDecoder decodes test files with the means of policy files.
type testDecoder struct {
	*loader
	env    *env
	bundle *Bundle
	vms    map[string]*TestVM
	places map[string]hcl.Range // of tests and vms, by kind and name
}

var (
	testFileShape = shape{what: "a test file", blocks: []string{"vm", "test"}, hints: map[string]string{"policy": "test", "domain": "vm"}}
	testVMShape   = shape{what: "vm", labels: 1, attrs: []string{"name", "uuid", "state", "tags", "metadata"}}
	testShape     = shape{what: "test", labels: 1, attrs: []string{"policy", "vm", "start"}, blocks: []string{"approval", "event", "recorded", "expect"},
		hints: map[string]string{"events": "event", "assert": "expect", "expects": "expect", "run": "event", "file": "recorded"}}
	testApprovalShape = shape{what: "approval", labels: 1, attrs: []string{"group", "condition", "at", "until", "max_uses", "signers"}, hints: map[string]string{"expires": "until", "not_after": "until"}}
	testRecordedShape = shape{what: "recorded", labels: 1, attrs: []string{"at"}, blocks: []string{"expect"}}
	testExpectShape   = shape{what: "expect", attrs: []string{"matched", "verdicts", "actions", "message", "contains", "approved", "step", "exception", "suppressed", "error"},
		hints: map[string]string{"match": "matched", "matches": "matched", "action": "actions", "messages": "message", "count": "verdicts", "verdict": "verdicts"}}
)

func (d *testDecoder) read() []*hclsyntax.Body {
	entries, err := fs.ReadDir(d.fsys, ".")
	if err != nil {
		d.rep.file(hcl.DiagError, CodeFile, ".", "Bundle not readable", fmt.Sprintf("The bundle directory cannot be listed: %s.", cause(err)))
		return nil
	}
	var bodies []*hclsyntax.Body
	for _, e := range entries { // in order of names
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, TestSuffix) {
			continue
		}
		if len(d.names) == MaxFiles {
			d.rep.file(hcl.DiagError, CodeFile, name, "Too many files", fmt.Sprintf("A bundle has at most %d test files.", MaxFiles))
			break
		}
		data, ok := d.loader.read(name, MaxFileSize, nil)
		if !ok {
			continue
		}
		d.names = append(d.names, name)
		d.files[name] = data
		if body := d.parse(name, data); body != nil {
			d.bodyShape(body, testFileShape)
			bodies = append(bodies, body)
		}
	}
	return bodies
}

// unique reports a name that stands twice.
func (d *testDecoder) unique(b *hclsyntax.Block) bool {
	name := b.Labels[0]
	if name == "" || len(name) > 200 || name != Safe(name) {
		d.rep.err(CodeBadValue, b.LabelRanges[0], "Invalid name", fmt.Sprintf("The name of a %s has 1 to 200 printable characters.", b.Type))
		return false
	}
	key := b.Type + "\x00" + name
	if first, ok := d.places[key]; ok {
		d.rep.err(CodeDuplicate, b.LabelRanges[0], "Duplicate "+b.Type, fmt.Sprintf("A %s named %q was defined at %s:%d.", b.Type, name, first.Filename, first.Start.Line))
		return false
	}
	d.places[key] = b.LabelRanges[0]
	return true
}

// The domain of a test that names none.
const (
	testUUID  = "00000000-0000-4000-8000-000000000001"
	testName  = "test-vm"
	testState = "running"
)

func (d *testDecoder) vmBlocks(body *hclsyntax.Body) {
	for _, b := range blocksOf(body, "vm") {
		if !d.shapeOf(b, testVMShape) || !d.unique(b) {
			continue
		}
		vm := &TestVM{Label: b.Labels[0], Name: b.Labels[0], UUID: testUUID, State: testState}
		if s, _ := d.str(d.env, b.Body, "name"); s != "" {
			vm.Name = s
		}
		if s, rng := d.str(d.env, b.Body, "uuid"); s != "" {
			if !uuidText.MatchString(s) {
				d.rep.err(CodeBadValue, rng, "Invalid UUID", fmt.Sprintf("%q is not a UUID in lower case, such as 6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11.", s))
			}
			vm.UUID = s
		}
		states, _ := lookupEnum("vm.state")
		if s := d.oneOf(d.env, b.Body, "state", states); s != "" {
			vm.State = s
		}
		vm.Tags, _ = d.strs(d.env, b.Body, "tags")
		t := &Target{}
		d.targetMetadata(d.env, b.Body, t)
		vm.Metadata = t.Metadata
		d.vms[vm.Label] = vm
	}
}

// defaultStart is a Monday at noon, so that tests of office hours need say
// nothing for the usual case.
var defaultStart = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

func (d *testDecoder) test(b *hclsyntax.Block) *Test {
	if !d.shapeOf(b, testShape) || !d.unique(b) {
		return nil
	}
	t := &Test{Name: b.Labels[0], Start: defaultStart, VM: &TestVM{Name: testName, UUID: testUUID, State: testState}, Place: place(b.DefRange())}
	if len(d.places) > maxTests {
		d.rep.err(CodeTooComplex, b.DefRange(), "Too many tests", fmt.Sprintf("A bundle has at most %d tests and vms.", maxTests))
		return nil
	}
	t.Policy = d.testPolicy(b)
	if name, rng := d.str(d.env, b.Body, "vm"); name != "" {
		if t.VM = d.vms[name]; t.VM == nil {
			fix := suggest(name, keys(d.vms))
			d.rep.errFix(CodeUnknownName, rng, quoteFix(fix), "Unknown vm", fmt.Sprintf("There is no vm %q in the test files of this bundle.%s", name, didYouMean(fix)))
		}
	}
	if text, rng := d.str(d.env, b.Body, "start"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil || at.Year() < 2000 || at.Year() > 2200 {
			d.rep.err(CodeBadValue, rng, "Invalid time", fmt.Sprintf("%q is not a time such as \"2026-11-23T08:00:00Z\".", text))
		}
		t.Start = at.UTC()
	}
	for _, ab := range blocksOf(b.Body, "approval") {
		d.testApproval(ab, t)
	}
	d.testEvents(b, t)
	if eb := d.single(b.Body, "expect"); eb != nil {
		t.Expect = d.expect(eb, t)
	}
	if t.Expect == nil && !slices.ContainsFunc(t.Events, func(e *TestEvent) bool { return e.Expect != nil }) {
		d.rep.err(CodeMissing, b.DefRange(), "Missing expectation", "A test needs an expect block, of its own or in one of its events: without one it cannot fail.")
	}
	return t
}

func place(r hcl.Range) Place { return Place{File: r.Filename, Line: r.Start.Line} }

func (d *testDecoder) testPolicy(b *hclsyntax.Block) *Policy {
	if !d.need(b, "A test", "policy", `"NAME"`) {
		return nil
	}
	name, rng := d.str(d.env, b.Body, "policy")
	var names []string
	for _, p := range d.bundle.Policies {
		if p.Name == name {
			return p
		}
		names = append(names, p.Name)
	}
	if name != "" {
		fix := suggest(name, names)
		d.rep.errFix(CodeUnknownName, rng, quoteFix(fix), "Unknown policy", fmt.Sprintf("There is no policy %q in this bundle.%s", name, didYouMean(fix)))
	}
	return nil
}

func (d *testDecoder) testApproval(b *hclsyntax.Block, t *Test) {
	if !d.shapeOf(b, testApprovalShape) {
		return
	}
	a := &TestApproval{ID: b.Labels[0], Place: place(b.DefRange())}
	if d.need(b, "An approval", "group", `"security-team"`) {
		a.Group, _ = d.str(d.env, b.Body, "group")
	}
	if d.need(b, "An approval", "until", `"1h"`) {
		a.Until, _ = d.offset(b.Body, "until")
	}
	a.At, _ = d.offset(b.Body, "at")
	a.MaxUses = uint64(d.number(d.env, b.Body, "max_uses", 1, maxCount))
	a.Signers = uint64(d.number(d.env, b.Body, "signers", 1, 100))
	if t.Policy != nil && t.Policy.Approval == nil {
		d.rep.err(CodeNoEffect, b.DefRange(), "Approval without effect", fmt.Sprintf("Policy %q has no approval block, so nothing approves what it matches.", t.Policy.Name))
		return
	}
	if c := b.Body.Attributes["condition"]; c != nil && t.Policy != nil {
		a.Condition = d.text(c.Expr.Range())
		if strings.ContainsAny(a.Condition, "\r\n") {
			d.rep.err(CodeBadValue, c.Expr.Range(), "Condition of several lines", "People sign the condition of an approval, which stands on one line.")
		}
		d.compile(d.env, c.Expr, policyTypes(t.Policy), false)
	}
	t.Approvals = append(t.Approvals, a)
}

func (d *testDecoder) expect(b *hclsyntax.Block, t *Test) *TestExpect {
	x := &TestExpect{Place: place(b.DefRange())}
	if !d.shapeOf(b, testExpectShape) {
		return x
	}
	if len(b.Body.Attributes) == 0 {
		d.rep.err(CodeMissing, b.DefRange(), "Empty expectation", "An expect block needs at least one argument, such as matched = true: without one it cannot fail.")
	}
	if s := d.flag(d.env, b.Body, "matched"); s != "" {
		m := s == "true"
		x.Matched = &m
	}
	x.Verdicts, x.Suppressed = d.count(b.Body, "verdicts"), d.count(b.Body, "suppressed")
	x.Contains, _ = d.strs(d.env, b.Body, "contains")
	for name, at := range map[string]**string{"message": &x.Message, "approved": &x.Approved, "step": &x.Step, "exception": &x.Exception, "error": &x.Error} {
		if s, _ := d.str(d.env, b.Body, name); s != "" {
			*at = &s
		}
	}
	kinds, ranges := d.strs(d.env, b.Body, "actions")
	for i, k := range kinds {
		if !slices.Contains(ActionKinds, k) {
			fix := suggest(k, ActionKinds)
			d.rep.errFix(CodeBadValue, ranges[i], quoteFix(fix), "Unknown action", fmt.Sprintf("There is no action %q.%s Actions are: %s.", k, didYouMean(fix), strings.Join(ActionKinds, ", ")))
		}
	}
	x.Actions = kinds
	d.expectNames(b, x, t)
	return x
}

// expectNames looks up what an expectation names in the policy.
func (d *testDecoder) expectNames(b *hclsyntax.Block, x *TestExpect, t *Test) {
	if t.Policy == nil {
		return
	}
	check := func(attr string, value *string, have []string) {
		if value == nil || slices.Contains(have, *value) {
			return
		}
		fix := suggest(*value, have)
		detail := fmt.Sprintf("Policy %q has no %s %q.%s", t.Policy.Name, attr, *value, didYouMean(fix))
		if len(have) > 0 && fix == "" {
			detail += " It has: " + strings.Join(have, ", ") + "."
		}
		d.rep.errFix(CodeUnknownName, b.Body.Attributes[attr].Expr.Range(), quoteFix(fix), "Unknown "+attr, detail)
	}
	var steps, exceptions []string
	if s := t.Policy.Sequence; s != nil {
		for _, st := range s.Steps {
			steps = append(steps, st.Name)
		}
	}
	for _, e := range t.Policy.Exceptions {
		exceptions = append(exceptions, e.Name)
	}
	check("step", x.Step, steps)
	check("exception", x.Exception, exceptions)
}

// count returns a whole number from 0, or nil.
func (d *testDecoder) count(body *hclsyntax.Body, name string) *uint64 {
	a, val := d.attr(d.env, body, name)
	if a == nil {
		return nil
	}
	n, ok := wholeNumber(val)
	if !ok || n < 0 {
		d.wrongType(a, "whole number from 0", val)
		return nil
	}
	u := uint64(n)
	return &u
}

// offset returns a duration from 0 on, which may be written with a plus.
func (d *testDecoder) offset(body *hclsyntax.Body, name string) (time.Duration, bool) {
	text, rng := d.str(d.env, body, name)
	if text == "" {
		return 0, false
	}
	v, err := parsePeriod(strings.TrimPrefix(text, "+"))
	if err != nil || v < 0 {
		d.rep.err(CodeBadValue, rng, "Invalid duration", fmt.Sprintf("%q is not a time since the start of the test, such as \"+30s\", \"+5m\" or \"+2d\".", text))
		return 0, false
	}
	return v, true
}
