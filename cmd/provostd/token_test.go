package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokenCommands makes, lists and revokes a token as people do.
func TestTokenCommands(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "provostd.hcl")
	if err := os.WriteFile(config, fmt.Appendf(nil, "host_id = \"h\"\napi {\n  tokens = %q\n}\n", filepath.Join(dir, "tokens")), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (code int, stdout, stderr string) {
		var out, problems bytes.Buffer
		code = run(t.Context(), append([]string{"--config", config, "token"}, args...), &out, &problems)
		return code, out.String(), problems.String()
	}
	const domain = "11111111-2222-4333-8444-555555555555"
	code, text, told := call("create", "--name", "acme", "--role", "tenant", "--domain", strings.ToUpper(domain), "--expires", "1h")
	if code != 0 || !strings.HasPrefix(text, "provost_") || strings.Count(text, "\n") != 1 || strings.Contains(told, strings.TrimSpace(text)) {
		t.Fatalf("%d %q %q", code, text, told)
	}
	code, list, told := call("list")
	if code != 0 || !strings.Contains(list, "acme  tenant") || !strings.Contains(list, domain) || strings.Contains(list, strings.TrimSpace(text)) {
		t.Errorf("%d %s %s", code, list, told)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no action":      {nil, 2, "no command"},
		"unknown action": {[]string{"steal"}, 2, "no command"},
		"no name":        {[]string{"create", "--role", "auditor"}, 1, "cannot be used"},
		"no role":        {[]string{"create", "--name", "x"}, 1, "none of operator, auditor, tenant"},
		"no domain":      {[]string{"create", "--name", "x", "--role", "tenant"}, 1, "sees no domain"},
		"too long":       {[]string{"create", "--name", "x", "--role", "auditor", "--expires", "1000000h"}, 1, "at most"},
		"argument":       {[]string{"create", "x"}, 2, "takes 0 arguments"},
		"revoke nothing": {[]string{"revoke"}, 2, "takes 1 arguments"},
		"revoke unknown": {[]string{"revoke", "nobody"}, 1, "no token has the id or name"},
	} {
		if code, out, told := call(c.args...); code != c.code || out != "" || !strings.Contains(told, c.want) {
			t.Errorf("%s: %d %q %q", name, code, out, told)
		}
	}
	if code, out, told := call("revoke", "acme"); code != 0 || !strings.Contains(out, "of acme is revoked") {
		t.Errorf("%d %s %s", code, out, told)
	}
	if _, list, _ := call("list"); strings.Contains(list, "acme") {
		t.Errorf("revoked, and listed: %s", list)
	}
}
