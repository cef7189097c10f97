package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Rules become a bundle that "policy check" takes, and the report names what
// did not.
func TestPolicyConvertSigma(t *testing.T) {
	dir := t.TempDir()
	rules, out := filepath.Join(dir, "rules"), filepath.Join(dir, "out")
	if err := os.Mkdir(rules, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(rules, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("nc.yml", "title: Netcat\nauthor: Somebody\nlogsource: {category: process_creation, product: linux}\ndetection:\n  s: {Image|endswith: /nc}\n  condition: s\n")
	call := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), args, &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}

	code, text, report := call("policy", "convert", "sigma", filepath.Join(rules, "nc.yml"))
	if code != exitOK || !strings.Contains(text, `endswith_i(process.executable, "/nc")`) || !strings.Contains(report, "1 of 1 rules converted to 1 policies\n") {
		t.Errorf("one file: %d\n%s\n%s", code, text, report)
	}
	write("log.yml", "title: Log\nlogsource: {product: linux, service: sshd}\ndetection: {k: [a], condition: k}\n")
	if code, text, _ := call("policy", "convert", "sigma", rules, "-o", out, "--bundle", "mine"); code != exitOK ||
		!strings.Contains(text, "not converted  log.yml: it reads the log of the service") || !strings.Contains(text, "1 of 2 rules converted to 1 policies in "+out) {
		t.Errorf("directory: %d\n%s", code, text)
	}
	if code, text, _ := call("policy", "check", out); code != exitOK || !strings.Contains(text, "bundle mine 1, 1 policies") {
		t.Errorf("check: %d\n%s", code, text)
	}
	if code, _, report := call("policy", "convert", "sigma", rules, "-o", out); code != exitFailed || !strings.Contains(report, "is there already") {
		t.Errorf("written over: %d\n%s", code, report)
	}
	if code, text, _ := call("policy", "convert", "sigma", filepath.Join(rules, "log.yml"), "-o", out+"2", "--output", "json"); code != exitInvalid || !strings.Contains(text, `"reason": "it reads`) {
		t.Errorf("nothing converted: %d\n%s", code, text)
	}
	if _, err := os.Stat(out + "2"); err == nil {
		t.Error("a directory was made of nothing")
	}
}
