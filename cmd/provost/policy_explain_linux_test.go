package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const servedPolicy = `bundle {
  name     = "www"
  version  = "1"
  language = 1
}

policy "defaced" {
  mode = "enforce"

  on        = ["file.modify"]
  condition = under(file.path, "/srv/www") && user.id == 33

  cooldown {
    period = "1h"
    by     = [process.executable]
  }

  action "alert" {
    message = "${file.path}"
  }
}
`

// An entry of a daemon is explained with what came before it, and so is the same
// entry from a file that the daemon's answer was written to.
func TestPolicyExplainServed(t *testing.T) {
	const log = "kvm1.example/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/1"
	socket := served(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte(servedPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	code, raw, errs := call(t, "query", "--raw", "--oldest", "--domain", "web", "--socket", socket)
	if code != exitOK || strings.Count(raw, "\n") < 4 {
		t.Fatalf("exit %d\n%s%s", code, raw, errs)
	}
	file := filepath.Join(dir, "entries.jsonl")
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[string]string{
		"1": "it does not judge network.accept entries",
		"2": "verdict: it matches\n",
		"3": "no verdict: it matches, and its cooldown swallows the repeat",
	} {
		for _, from := range [][]string{{"--socket", socket}, {"--entries", file}} {
			args := append([]string{"policy", "explain", "--bundle", dir, "defaced", log + ":" + index}, from...)
			code, out, errs := call(t, args...)
			if code != exitOK || !strings.Contains(out, want) || strings.Contains(out, "\x1b") {
				t.Errorf("provost %v: exit %d, want %q\n%s%s", args, code, want, out, errs)
			}
			if index == "3" && !strings.Contains(out, `under(file.path, "/srv/www")  file.path = "/srv/www/\x1b[2J\u009b\u202e\"x"`) {
				t.Errorf("the value is not shown, or not safe:\n%s", out)
			}
		}
	}
	// Without a directory the daemon gives the bundle: here that in force, the log names none.
	code, out, errs := call(t, "policy", "explain", "--socket", socket, "defaced", log+":2")
	if code != exitOK || !strings.Contains(out, "verdict: it matches\n") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs := call(t, "policy", "explain", "--socket", socket, "nosuch", log+":2"); code != exitUsage || !strings.Contains(errs, `which judged the entry`) || !strings.Contains(errs, "it has: defaced") {
		t.Errorf("exit %d %s", code, errs)
	}
	if code, _, errs := call(t, "policy", "explain", "--entries", file, "defaced", "2"); code != exitUsage || !strings.Contains(errs, "--entries asks no daemon: name the bundle with --bundle") {
		t.Errorf("exit %d %s", code, errs)
	}
	for ref, want := range map[string]string{"nobody:1": "not found", "7": "say of which domain", log + ":999": "999"} {
		if code, out, errs := call(t, "policy", "explain", "--bundle", dir, "--socket", socket, "defaced", ref); code == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want %q\n%s%s", ref, code, want, out, errs)
		}
	}
}
