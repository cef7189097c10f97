package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFmt holds what is changed and what is not, and the exit codes that a build
// looks at.
func TestFmt(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.policy.hcl")
	const was, is = "locals {\n  # why\n a=1\n}\n", "locals {\n  # why\n  a = 1\n}\n"
	if err := os.WriteFile(name, []byte(was), 0o640); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("the file holds %q (%v), want %q", got, err, want)
		}
	}
	if code, out, _ := call(t, "policy", "fmt", "-check", "-diff", dir); code != exitInvalid || !strings.Contains(out, "@@ line 3 @@\n- a=1\n+  a = 1\n") {
		t.Errorf("exit %d, output %s", code, out)
	}
	expect(was)
	if code, out, errs := call(t, "policy", "fmt", dir); code != exitOK || out != name+"\n" {
		t.Errorf("exit %d, output %s%s", code, out, errs)
	}
	expect(is)
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v (%v), it was 0640", st.Mode(), err)
	}
	if code, out, _ := call(t, "policy", "fmt", "-check", name); code != exitOK || out != "" {
		t.Errorf("a formatted file: exit %d, output %s", code, out)
	}
	const broken = "locals {\n"
	if err := os.WriteFile(name, []byte(broken), 0o640); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := call(t, "policy", "fmt", dir); code != exitInvalid || !strings.Contains(errs, "a.policy.hcl line") {
		t.Errorf("a broken file: exit %d, %s", code, errs)
	}
	expect(broken)
}
