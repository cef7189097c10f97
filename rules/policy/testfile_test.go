package policy

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// Every kind of mistake in test files, all in one run.
func TestTestDiagnosticsGolden(t *testing.T) {
	const dir = "testdata/brokentest"
	b, diags := Load(dir)
	if b == nil {
		t.Fatal(diags)
	}
	tests, diags := LoadTests(dir, b)
	if tests != nil {
		t.Fatal("broken tests were loaded")
	}
	var text bytes.Buffer
	if err := WriteDiagnostics(&text, diags, Sources(dir, diags), 0, false); err != nil {
		t.Fatal(err)
	}
	golden(t, dir+".txt", text.Bytes())
}

// What a test says is what it holds.
func TestLoadTests(t *testing.T) {
	files := fstest.MapFS{
		"a.policy.hcl": {Data: []byte(`bundle {
  name = "a"
  version = "1"
  language = 1
}
locals { here = "/etc/passwd" }
policy "p" {
  on = ["file.modify"]
  condition = file.path == local.here
  action "alert" { message = "m" }
}
`)},
		"b.policytest.hcl": {Data: []byte(`vm "v" {
  name = "n"
  tags = ["prod"]
  metadata = { zone = "z" }
  state = "paused"
}
test "t" {
  policy = "p"
  vm = "v"
  start = "2026-11-23T08:00:00+01:00"
  event "file.modify" {
    at = "+1m"
    repeat = 3
    every = "2s"
    file = {
      path = local.here
      size = each.index
    }
  }
  recorded "r.jsonl" {}
  expect { matched = true }
}
`)},
		"r.jsonl": {Data: []byte("x")},
	}
	b, diags := LoadFS(files)
	if b == nil {
		t.Fatal(diags)
	}
	tests, diags := LoadTestsFS(files, b)
	if tests == nil || len(diags) > 0 {
		t.Fatal(diags)
	}
	x := tests.Tests[0]
	if x.VM.Name != "n" || x.VM.State != "paused" || x.VM.Metadata["zone"] != "z" || !x.Start.Equal(time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)) || x.Line != 7 {
		t.Errorf("test %+v, vm %+v", x, x.VM)
	}
	e := x.Events[0]
	if e.At != time.Minute || e.Every != 2*time.Second || len(e.Entries) != 3 || e.Entries[0].Payload == e.Entries[1].Payload || x.Events[1].At != -1 || string(x.Events[1].Recorded) != "x" {
		t.Errorf("events %+v", x.Events)
	}
}

// Bounds hold before anything is built.
func TestTestLimits(t *testing.T) {
	for body, want := range map[string]string{
		"event \"file.modify\" {\n repeat = 10001\n}\nexpect { matched = true }":                "10000",
		strings.Repeat("event \"file.modify\" {}\n", maxEvents+1) + "expect { matched = true }": "at most 1000 event blocks",
	} {
		files := fstest.MapFS{
			"a.policy.hcl":     {Data: []byte("bundle {\n name = \"a\"\n version = \"1\"\n language = 1\n}\npolicy \"p\" {\n on = [\"file.modify\"]\n action \"alert\" { message = \"m\" }\n}\n")},
			"a.policytest.hcl": {Data: []byte("test \"t\" {\npolicy = \"p\"\n" + body + "\n}\n")},
		}
		b, diags := LoadFS(files)
		if b == nil {
			t.Fatal(diags)
		}
		tests, diags := LoadTestsFS(files, b)
		if tests != nil || !strings.Contains(diags.Error(), want) {
			t.Errorf("%.40s: %v, want %q", body, diags, want)
		}
	}
}
