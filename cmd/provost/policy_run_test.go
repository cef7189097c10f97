package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policytest"
)

const baseline = "../../examples/policies/baseline"

// entriesFile writes entries as "query --raw" does: a genesis, and two changes of
// files.
func entriesFile(t *testing.T) string {
	t.Helper()
	var out []byte
	for i, e := range []struct {
		class   record.Class
		origin  record.Origin
		payload record.Message
	}{
		{record.ClassGenesis, record.OriginHost, &record.Genesis{DomainUuid: "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11", DomainName: "web-1"}},
		{record.ClassFileModify, record.OriginGuest, &record.Event{Process: &record.Process{Executable: []byte("/usr/bin/dpkg")}, File: &record.File{Path: []byte("/etc/\x1b[2Jx")}}},
		{record.ClassFileModify, record.OriginGuest, &record.Event{Process: &record.Process{Executable: []byte("/usr/bin/vim")}, File: &record.File{Path: []byte("/etc/hosts")}}},
	} {
		payload, err := e.payload.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		leaf := record.Leaf{Origin: e.origin, Index: uint64(i), Mono: int64(i), Wall: int64(i), Header: record.Header{Class: e.class}}
		line, err := json.Marshal(map[string]any{"log": "h/vm/u/1/1", "leaf": leaf.AppendBinary(nil), "payload": payload})
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, line...), '\n')
	}
	name := filepath.Join(t.TempDir(), "entries.jsonl")
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// An entry of a file is explained, with the guest's words made safe.
func TestPolicyExplain(t *testing.T) {
	file := entriesFile(t)
	code, out, errs := call(t, "policy", "explain", "--bundle", baseline, "--entries", file, "etc_changed", "1")
	for _, want := range []string{"on entry 1 of web-1", "no verdict: its condition is false", "  true   any of\n", `under(file.path, "/etc")`, `file.path = "/etc/\x1b[2Jx"`,
		"file.target_path = null (not supplied)", "macro.by_package_manager", `00-shared.policy.hcl:`, `process.executable = "/usr/bin/dpkg"`} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Fatalf("exit %d, want %q in\n%s%s", code, want, out, errs)
		}
	}
	code, out, errs = call(t, "policy", "explain", "--bundle", baseline, "--entries", file, "--json", "etc_changed", "h/vm/u/1/1:2")
	var x struct {
		Matched    bool
		Conditions []struct{ Trace struct{ Result string } }
		Actions    []struct{ Kind, Message string }
	}
	if err := json.Unmarshal([]byte(out), &x); code != exitOK || err != nil || !x.Matched || x.Conditions[0].Trace.Result != "true" || !strings.Contains(x.Actions[0].Message, "/etc/hosts") {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	for args, want := range map[string]string{
		"etc_changed 7":      "there is no entry 7",
		"etc_changed x":      "names no entry",
		"etc_changes 1":      "has no policy",
		"etc_changed h/v:1":  "there is no entry 1",
		"reverse_shell 1":    "does not judge file.modify entries",
		"definition_changed": "arguments",
	} {
		code, out, errs := call(t, append([]string{"policy", "explain", "--bundle", baseline, "--entries", file}, strings.Fields(args)...)...)
		if !strings.Contains(out+errs, want) || code == exitOK && args != "reverse_shell 1" {
			t.Errorf("%s: exit %d, want %q\n%s%s", args, code, want, out, errs)
		}
	}
}

// The example's tests pass; a test that fails, and a gap, are exit code 3.
func TestPolicyTest(t *testing.T) {
	code, out, errs := call(t, "policy", "test", "--coverage", "--json", baseline)
	var r policytest.Report
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil || r.Passed < 20 || r.Failed != 0 || r.Coverage.Percent() != 100 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.policy.hcl", "bundle {\n  name = \"a\"\n  version = \"1\"\n  language = 1\n}\npolicy \"p\" {\n  on = [\"file.modify\"]\n  condition = under(file.path, \"/etc\")\n  action \"alert\" {\n    message = \"m\"\n  }\n}\n")
	const test = "test \"NAME\" {\n  policy = \"p\"\n  event \"file.modify\" {\n    file = { path = \"PATH\" }\n  }\n  expect {\n    matched = true\n  }\n}\n"
	of := func(name, path string) string {
		return strings.NewReplacer("NAME", name, "PATH", path).Replace(test)
	}
	write("a.policytest.hcl", of("inside", "/etc/x")+of("outside", "/x"))
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"":                             {exitInvalid, "FAIL  p: outside\n      a.policytest.hcl:15: matched is false, want true: ended by condition\n        false  8:15   under(file.path, \"/etc\")  file.path = \"/x\"\n1 passed, 1 failed"},
		"--run inside -v":              {exitOK, "pass  p: inside\n1 passed, 0 failed"},
		"--run inside --coverage":      {exitInvalid, "never false: a.policy.hcl:8:15, p, condition: under(file.path, \"/etc\")\ncoverage: 1 of 2 (50 %)"},
		"--run inside --mutate":        {exitOK, "mutants: 0 of 0 found"},
		"--run (":                      {exitUsage, "--run"},
		"--run none":                   {exitUsage, `--run "none" finds none of the tests`},
		"--output json --run outside ": {exitInvalid, `"failed": 1`},
	} {
		code, out, errs := call(t, append(append([]string{"policy", "test"}, strings.Fields(args)...), dir)...)
		if code != want.code || !strings.Contains(out+errs, want.text) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", args, code, want.code, want.text, out, errs)
		}
	}
	write("a.policytest.hcl", strings.Replace(of("x", "/x"), "matched", "matches", 1))
	if code, _, errs := call(t, "policy", "test", dir); code != exitInvalid || !strings.Contains(errs, `Did you mean "matched"?`) {
		t.Errorf("exit %d\n%s", code, errs)
	}
}
