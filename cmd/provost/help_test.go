package main

import (
	"strings"
	"testing"
)

// TestHelp: every command explains itself with an example and its exit codes, a group
// lists its commands, and a wrong name is told with what was meant.
func TestHelp(t *testing.T) {
	for _, c := range commands {
		for _, args := range [][]string{append(strings.Fields(c.name), "-h"), append([]string{"help"}, strings.Fields(c.name)...)} {
			code, out, errs := call(t, args...)
			if code != exitOK || errs != "" || !strings.HasPrefix(out, "usage: provost "+c.name) || !strings.Contains(out, "examples:\n  provost "+c.name) || !strings.Contains(out, "exit codes:\n  0  done\n") {
				t.Errorf("provost %v: exit %d\n%s%s", args, code, out, errs)
			}
		}
		for _, e := range hints[c.name].examples {
			if !strings.HasPrefix(e, c.name) {
				t.Errorf("an example of %q is %q", c.name, e)
			}
		}
	}
	if len(hints) != len(commands) {
		t.Errorf("%d hints of %d commands", len(hints), len(commands))
	}
	for args, want := range map[string]struct {
		code int
		out  string
	}{
		"":                     {exitOK, "  policy check DIR"},
		"--help":               {exitOK, "  policy check DIR"},
		"help":                 {exitOK, "  policy check DIR"},
		"policy":               {exitUsage, "provost policy: name one of its commands"},
		"policy --help":        {exitOK, "usage: provost policy COMMAND"},
		"policy -h":            {exitOK, "  policy replay DIR"},
		"help policy":          {exitOK, "usage: provost policy COMMAND"},
		"policy nosuch":        {exitUsage, `there is no command "policy nosuch"` + "\n"},
		"policy chekc":         {exitUsage, `there is no command "policy chekc"; did you mean "policy check"?`},
		"policy convert":       {exitUsage, "provost policy convert: name one of its commands"},
		"policy convert falco": {exitUsage, `there is no command "policy convert falco"`},
		"approvals --help":     {exitOK, "approvals revoke ID"},
		"verfy x":              {exitUsage, `there is no command "verfy"; did you mean "verify"?`},
		"help nosuch":          {exitUsage, `there is no command "nosuch"`},
		"\x1b[2J":              {exitUsage, `there is no command "\x1b[2J"`},
		"policy check":         {exitUsage, "0 arguments, want: provost policy check DIR"},
		"policy check a b":     {exitUsage, "2 arguments, want: provost policy check DIR"},
		"policy check nodir":   {exitUsage, "there is no nodir; name the directory of a policy bundle, which holds files named *.policy.hcl"},
		"policy apply nodir":   {exitUsage, "there is no nodir; name the directory of a policy bundle"},
		"policy fmt nodir":     {exitUsage, "there is no nodir; name files named *.policy.hcl, or the directory of a bundle"},
		"policy check main.go": {exitUsage, "main.go is a file; name the directory of the bundle: ."},
		"policy check .":       {exitInvalid, "The directory has no file named *.policy.hcl. Name the directory that holds the policies"},
		"policy test --run ^nosuch$ ../../examples/policies/baseline": {exitUsage, `--run "^nosuch$" finds none of the tests in ../../examples/policies/baseline`},
		"policy convert sigma .": {exitFailed, "has no files named *.yml or *.yaml\n"},
		"policy check --nope a":  {exitUsage, "flag provided but not defined: -nope"},
	} {
		code, out, errs := call(t, strings.Fields(args)...)
		if code != want.code || !strings.Contains(out+errs, want.out) {
			t.Errorf("provost %s: exit %d, want %d with %q\n%s%s", args, code, want.code, want.out, out, errs)
		}
		if strings.HasPrefix(args, "policy") && strings.Contains(out+errs, "domain enroll") {
			t.Errorf("provost %s lists commands that are none of policies", args)
		}
	}
}
