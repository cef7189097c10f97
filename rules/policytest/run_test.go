package policytest

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

const header = `bundle {
  name     = "a"
  version  = "1"
  language = 1
}
macro "shell" {
  condition = contains(["/bin/sh", "/bin/bash"], process.executable)
}
`

// suite runs test text against policy text.
func suite(t *testing.T, policies, tests string, o Options, more ...fstest.MapFS) *Report {
	t.Helper()
	files := fstest.MapFS{"a.policy.hcl": {Data: []byte(header + policies)}, "a.policytest.hcl": {Data: []byte(tests)}}
	for _, m := range more {
		for name, f := range m {
			files[name] = f
		}
	}
	b, diags := policy.LoadFS(files)
	if b == nil {
		t.Fatal(diags)
	}
	loaded, diags := policy.LoadTestsFS(files, b)
	if loaded == nil {
		t.Fatal(diags)
	}
	r, err := Run(context.Background(), b, loaded, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const shellPolicy = `
policy "shell" {
  mode = "enforce"
  target { metadata = { zone = "a" } }
  on = ["process.exec"]
  condition = macro.shell && user.id != 0
  cooldown {
    period = "1m"
    by = [process.executable]
  }
  action "pause" {}
  action "alert" { message = "${vm.name}: ${process.executable}" }
}
`

func failures(r *Report) string {
	var all []string
	for _, t := range r.Tests {
		for _, f := range t.Failures {
			all = append(all, fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text))
		}
	}
	return strings.Join(all, "\n")
}

const vms = `
vm "in" { metadata = { zone = "a" } }
vm "out" { metadata = { zone = "b" } }
`

const shell = `process = { executable = "/bin/sh" }`

// execs is an event block of a program that is started.
func execs(lines ...string) string {
	return "  event \"process.exec\" {\n    " + strings.Join(lines, "\n    ") + "\n  }\n"
}

func expect(lines ...string) string {
	return "  expect {\n    " + strings.Join(lines, "\n    ") + "\n  }\n"
}

func TestRun(t *testing.T) {
	const ls = `process = { executable = "/bin/ls" }`
	for name, c := range map[string]struct{ test, want string }{
		"matches":    {execs(shell) + expect("matched = true"), ""},
		"everything": {execs(shell) + expect("matched = true", "verdicts = 1", "suppressed = 0", `actions = ["pause", "alert"]`, `message = "in: /bin/sh"`, `contains = ["/bin"]`), ""},
		"not":        {execs(ls) + expect("matched = false", "verdicts = 0"), ""},
		"why not": {execs(ls) + expect("matched = true"),
			"matched is false, want true: ended by condition\nfalse  all of\n  false  14:15  macro.shell\n    false  7:15   contains([\"/bin/sh\", \"/bin/bash\"], process.executable)  process.executable = \"/bin/ls\"\n"},
		"why":           {execs(shell) + expect("matched = false"), "matched is true, want false\ntrue   all of\n"},
		"wrong actions": {execs(shell) + expect(`actions = ["alert"]`), "actions is [pause alert], want [alert]"},
		"wrong message": {execs(shell) + expect(`message = "x"`, `contains = ["y"]`), `no message is "x"; there are: ["in: /bin/sh"]`},
		"cooldown": {execs(shell) + execs(`at = "+30s"`, shell, expect("matched = false", "suppressed = 1")) +
			execs(`at = "+61s"`, shell, expect("matched = true")) + expect("verdicts = 2", "suppressed = 1"), ""},
		"repeat": {execs("repeat = 5", `every = "20s"`, `process = {`, `executable = "/bin/sh"`, `pid = 100 + each.index`, `}`) +
			expect("verdicts = 2", "suppressed = 3"), ""},
		"another type":     {"event \"file.modify\" {\n file = { path = \"/x\" }\n}\n" + expect("matched = true"), "looked at none of the events"},
		"one of two fails": {execs(shell, expect("verdicts = 2")) + expect("matched = true"), "verdicts is 1, want 2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := suite(t, shellPolicy, vms+"test \"x\" {\npolicy = \"shell\"\nvm = \"in\"\n"+c.test+"}\n", Options{})
			got := failures(r)
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) || r.OK() != (c.want == "") {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// What is left uncovered is named, by place and by what was never seen.
func TestCoverage(t *testing.T) {
	tests := vms + `
test "a shell" {
  policy = "shell"
  vm = "in"
  event "process.exec" {
    process = { executable = "/bin/sh" }
  }
  expect { matched = true }
}
`
	show := func(c *Coverage) string {
		var b strings.Builder
		for _, p := range c.Missing {
			fmt.Fprintf(&b, "%s/%s:%d:%d %v\n", p.Policy, p.Part, p.Line, p.Column, p.Never)
		}
		return b.String()
	}
	r := suite(t, shellPolicy, tests, Options{Coverage: true})
	want := "shell/target selects:0:0 [false]\nshell/condition:14:15 [false]\n/macro:7:15 [false]\nshell/condition:14:30 [false]\n"
	if got := show(r.Coverage); got != want || r.OK() || r.Coverage.Points != 5 || r.Coverage.Covered != 1 {
		t.Errorf("missing:\n%swant:\n%s%d of %d", got, want, r.Coverage.Covered, r.Coverage.Points)
	}
	tests += `
test "another program" {
  policy = "shell"
  vm = "in"
  event "process.exec" {
    process = { executable = "/bin/ls" }
    user = { id = 0 }
  }
  expect { matched = false }
}
test "another vm" {
  policy = "shell"
  vm = "out"
  event "process.exec" {
    process = { executable = "/bin/sh" }
  }
  expect { matched = false }
}
`
	if r := suite(t, shellPolicy, tests, Options{Coverage: true}); !r.OK() || r.Coverage.Percent() != 100 {
		t.Errorf("missing:\n%s%s", show(r.Coverage), failures(r))
	}
	// A test that is not run covers nothing.
	if r := suite(t, shellPolicy, tests, Options{Coverage: true, Run: regexp.MustCompile("another vm")}); r.Passed != 1 || r.Coverage.Covered != 0 {
		t.Errorf("%d tests, %d points are covered", r.Passed, r.Coverage.Covered)
	}
}

// An operator that no test needs is named; what does not load, and what a test
// finds, is not.
func TestMutate(t *testing.T) {
	const policies = `
policy "p" {
  on = ["process.exec"]
  condition = macro.shell && (user.id == 0 || !process.setuid)
  action "alert" { message = "m" }
}
`
	test := func(name string, matched bool, lines ...string) string {
		return fmt.Sprintf("test %q {\npolicy = \"p\"\n", name) + execs(lines...) + expect(fmt.Sprintf("matched = %v", matched)) + "}\n"
	}
	tests := test("root", true, shell, "user = { id = 0 }") + test("ls", false, `process = { executable = "/bin/ls" }`)
	mutate := func() *Mutation {
		files := fstest.MapFS{"a.policy.hcl": {Data: []byte(header + policies)}, "a.policytest.hcl": {Data: []byte(tests)}}
		b, _ := policy.LoadFS(files)
		loaded, diags := policy.LoadTestsFS(files, b)
		if loaded == nil {
			t.Fatal(diags)
		}
		m, err := Mutate(context.Background(), b, loaded, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := mutate()
	var got []string
	for _, s := range m.Survivors {
		got = append(got, fmt.Sprintf("%d:%d %s", s.Line, s.Column, s.Was))
	}
	if want := "12:39 ==,12:44 ||,12:47 !"; m.Mutants != 4 || strings.Join(got, ",") != want {
		t.Errorf("%d mutants, survivors %v, want %s", m.Mutants, got, want)
	}
	tests += test("a user's shell", true, shell, "user = { id = 1 }") +
		test("a user's shell that lends root", false, `process = { executable = "/bin/sh", setuid = true }`, "user = { id = 1 }") +
		test("root's that does", true, `process = { executable = "/bin/sh", setuid = true }`, "user = { id = 0 }")
	if m := mutate(); len(m.Survivors) != 0 {
		t.Errorf("survivors %v", m.Survivors)
	}
}

// Another policy's tests cover nothing of this one.
func TestCoverageIsOfThePolicy(t *testing.T) {
	twin := strings.Replace(shellPolicy, `policy "shell"`, `policy "twin"`, 1)
	r := suite(t, shellPolicy+twin, vms+`
test "a shell" {
  policy = "shell"
  vm = "in"
  event "process.exec" {
    process = { executable = "/bin/sh" }
  }
  expect { matched = true }
}
`, Options{Coverage: true})
	for _, p := range r.Coverage.Missing {
		if p.Policy == "twin" && len(p.Never) == 0 {
			t.Error("a point without a gap is listed")
		}
	}
	if r.Coverage.Covered != 1 { // that "shell" gives a verdict
		t.Errorf("%d points are covered, want 1", r.Coverage.Covered)
	}
}

// Entries as they were sealed are judged with their own distances in time.
func TestRecorded(t *testing.T) {
	var lines []byte
	for i := range 3 {
		payload, err := (&record.Event{Process: &record.Process{Executable: []byte("/bin/sh")}}).MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		leaf := record.Leaf{Origin: record.OriginGuest, Index: uint64(70 + i), Mono: int64(i) * 40e9, Wall: 1, Header: record.Header{Class: record.ClassProcessExec, Sequence: uint64(i)}}
		line, err := json.Marshal(map[string]any{"log": "h/vm/u/1/0", "leaf": leaf.AppendBinary(nil), "payload": payload})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	const test = `
test "recorded" {
  policy = "shell"
  vm = "in"
  recorded "r/a.jsonl" {
    at = "+5s"
  }
  expect {
    verdicts = 2
    suppressed = 1
  }
}
`
	lines = append(lines, `{"end":{"behind":0}}`+"\n"...)
	if r := suite(t, shellPolicy, vms+test, Options{}, fstest.MapFS{"r/a.jsonl": {Data: lines}}); !r.OK() {
		t.Error(failures(r))
	}
	for text, want := range map[string]string{"": "there are none", "{}\n": "line 1: the entry has no", "x\n": "line 1: want an entry", `{"leaf":"AA=="}`: "line 1: parse leaf"} {
		r := suite(t, shellPolicy, vms+test, Options{}, fstest.MapFS{"r/a.jsonl": {Data: []byte(text)}})
		if got := failures(r); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

const approvedPolicy = `
policy "etc" {
  mode = "enforce"
  on = ["file.modify"]
  condition = under(file.path, "/etc")
  approval {
    group = "team"
    require = 2
    grace = "10m"
  }
  action "alert" { message = "m" }
}
policy "watcher" {
  mode = "enforce"
  on = ["policy.verdict"]
  condition = policy.name == "etc"
  action "alert" { message = "${policy.name} fired" }
}
`

func modify(lines ...string) string {
	return "event \"file.modify\" {\nfile = { path = \"/etc/x\" }\n" + strings.Join(lines, "\n") + "\n}\n"
}

func approve(lines ...string) string {
	return "approval \"CHG-1\" {\n" + strings.Join(lines, "\n") + "\n}\n"
}

// Approvals cover what they are for, as long as they last; what policies make of
// entries is in the log that they judge.
func TestApprovals(t *testing.T) {
	const group, until = `group = "team"`, `until = "1h"`
	for name, c := range map[string]struct{ test, want string }{
		"covered":     {approve(group, until) + modify() + expect("matched = false", `approved = "CHG-1"`), ""},
		"used up":     {approve(group, until, "max_uses = 1") + modify("repeat = 3") + expect("verdicts = 2", `approved = "CHG-1"`), ""},
		"few signers": {approve(group, until, "signers = 1") + modify() + expect("matched = true"), ""},
		"other group": {approve(`group = "others"`, until) + modify() + expect("matched = true"), ""},
		"other scope": {approve(group, until, `condition = file.path == "/etc/y"`) + modify() + expect("matched = true"), ""},
		"ended":       {approve(group, until) + modify(`at = "+61m"`) + expect("matched = true"), ""},
		"late":        {approve(group, until, `at = "+5m"`) + modify() + modify(`at = "+6m"`) + expect("verdicts = 1", `approved = "CHG-1"`), ""},
		"too late":    {approve(group, until, `at = "+11m"`) + modify() + modify(`at = "+12m"`, expect("matched = false")) + expect("verdicts = 1"), ""},
		"not covered": {modify() + expect(`approved = "CHG-1"`), "approved is [], want CHG-1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := suite(t, approvedPolicy, "test \"x\" {\npolicy = \"etc\"\n"+c.test+"}\n", Options{})
			if got := failures(r); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
	if r := suite(t, approvedPolicy, "test \"x\" {\npolicy = \"watcher\"\n"+modify()+expect(`message = "etc fired"`)+"}\n", Options{}); !r.OK() {
		t.Error(failures(r))
	}
}

func TestRunEnds(t *testing.T) {
	files := fstest.MapFS{"a.policy.hcl": {Data: []byte(header + shellPolicy)}}
	b, _ := policy.LoadFS(files)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, b, &policy.Tests{Tests: []*policy.Test{{Policy: b.Policies[0], VM: &policy.TestVM{}}}}, Options{}); err == nil {
		t.Error("a run that was cancelled went on")
	}
}
