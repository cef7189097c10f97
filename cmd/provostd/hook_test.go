package main

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestHookNames: libvirt gives the name of the domain as the first argument, and
// whoever defines domains chooses it. It is never a flag: what asks for help, or for
// another configuration, would let a domain start without its guard.
func TestHookNames(t *testing.T) {
	for _, name := range []string{"web", "-h", "--help", "-config=/dev/null", "--", "-"} {
		var out, problems bytes.Buffer
		if code := run(t.Context(), []string{"--config", filepath.Join(t.TempDir(), "none.hcl"), "hook", name, "start", "begin", "-"}, &out, &problems); code != 2 || !bytes.Contains(problems.Bytes(), []byte("none.hcl")) {
			t.Errorf("a domain named %q without a configuration: exit code %d, %s", name, code, &problems)
		}
	}
}
