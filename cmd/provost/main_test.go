package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// TestCalls holds exit codes and that every refusal says what to do.
func TestCalls(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "a.policy.hcl"), []byte("policy \"x\" {\n  onn = 1\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk.zip")
	if err := os.WriteFile(junk, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "none.sock")
	cases := []struct {
		args string
		code int
		want string // in stdout or stderr
	}{
		{"", exitOK, "commands:"},
		{"help", exitOK, "commands:"},
		{"frobnicate", exitUsage, `no command "frobnicate"`},
		{"status -h", exitOK, "-socket"},
		{"status --socket " + socket, exitFailed, "no provostd listens"},
		{"status extra", exitUsage, "1 arguments"},
		{"status --output xml", exitUsage, "want text or json"},
		{"status --nope", exitUsage, "Try: provost status -h"},
		{"status --token-file x", exitUsage, "are for --server"},
		{"status --server https://127.0.0.1:1", exitUsage, "wants to know who asks"},
		{"status --server https://127.0.0.1:1 --socket " + socket, exitUsage, "not both"},
		{"status --server https://127.0.0.1:1 --tls-cert x", exitUsage, "belong together"},
		{"status --server https://127.0.0.1:1 --tls-cert x --tls-key x", exitFailed, "read client certificate"},
		{"status --server https://127.0.0.1:1 --token-file " + junk + ".none", exitFailed, "read token"},
		{"status --server https://127.0.0.1:1 --ca " + junk + " --token-file " + junk, exitFailed, "holds none in PEM"},
		{"status --server http://127.0.0.1:1 --token-file " + junk, exitFailed, "want https://HOST:PORT"},
		{"tail -n -1", exitUsage, "-n is below zero"},
		{"export vm", exitUsage, "with -o"},
		{"query --since yesterday", exitUsage, "how long ago"},
		{"query --start 7", exitUsage, "give --pid as well"},
		{"query --pid 0", exitUsage, "above zero"},
		{"query --pid 7 --start 0", exitUsage, "above zero"},
		{"lineage 0 --domain web", exitUsage, "no process id"},
		{"lineage 7 --domain web --start 0", exitUsage, "above zero"},
		{"query --limit -1", exitUsage, "below zero"},
		{"query --pid 4294967296", exitUsage, "no process id"},
		{"lineage /etc/passwd", exitUsage, "name it with --domain"},
		{"lineage passwd --domain web", exitUsage, "no path from the root"},
		{"lineage 7 --domain web --format svg", exitUsage, "tree, dot or prov"},
		{"lineage /x --domain web --start 7", exitUsage, "of a process"},
		{"lineage 192.0.2.7 --socket " + socket, exitFailed, "no provostd listens"},
		{"query --json --socket " + socket, exitFailed, "no provostd listens"},
		{"export vm -o x --entries 9-2", exitUsage, "want a range"},
		{"verify " + junk, exitUsage, "--key"},
		{"verify --policy " + junk + ".none " + junk, exitFailed, "read witness policy"},
		{"verify --policy " + junk + " " + junk, exitFailed, "read witness policy"},
		{"verify --key x --since 1h " + junk, exitUsage, "the one before the other"},
		{"verify --key x --since 1h --until 2h " + junk, exitUsage, "the one before the other"},
		{"verify --key h/log/1+00000000+AQ== --since 2h --until 1h " + junk, exitUsage, "says itself what it covers"},
		{"verify --key nonsense " + junk, exitFailed, "read verifier key"},
		{"verify --key h/log/1+00000000+AQ== " + junk, exitFailed, "no zip archive"},
		{"policy check " + broken, exitInvalid, "onn"},
		{"policy check " + junk, exitUsage, "name the directory"},
		{"policy check ../../examples/policies/baseline", exitOK, "bundle baseline"},
		{"policy fmt --check ../../examples/policies/baseline", exitOK, ""},
		{"policy fmt " + junk, exitUsage, "is named neither"},
		{"policy diff ../../examples/policies/baseline ../../examples/policies/baseline --exit-code", exitOK, "They mean the same."},
		{"policy diff ../../examples/policies/baseline " + broken, exitInvalid, "cannot be loaded"},
		{"policy check --cost ../../examples/policies/baseline", exitOK, "asks first: under(file.path, \"/etc\")"},
		{"policy check --cost " + broken, exitInvalid, "onn"},
		{"policy docs ../../examples/policies/baseline", exitOK, "| Execution | [T1059.004 Unix Shell]"},
		{"version", exitOK, "provost "},
	}
	for _, c := range cases {
		code, out, errs := call(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("provost %s: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func TestJSONOutput(t *testing.T) {
	for _, args := range [][]string{{"version", "--output", "json"}, {"policy", "check", "../../examples/policies/baseline", "--output", "json"}} {
		code, out, errs := call(t, args...)
		if code != exitOK || !json.Valid([]byte(out)) {
			t.Errorf("provost %v: exit %d, output %q %s", args, code, out, errs)
		}
	}
}
