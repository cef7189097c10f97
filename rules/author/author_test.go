package author

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/rules/policy"
)

const before = `bundle {
  name     = "b"
  version  = "1"
  language = 1
}
list "shells" {
  type   = "path"
  values = ["/bin/sh", "/bin/bash"]
}
macro "is_shell" {
  condition = contains(list.shells, process.executable)
}
macro "root" {
  condition = user.id == 0
}
# False positives: administrators.
policy "shell" {
  title    = "A | shell"
  attack   = ["T1059.004", "T9999"]
  on       = ["process.exec"]
  condition = macro.is_shell && macro.root
  cooldown {
    period = "5m"
    by     = [process.entity_id]
  }
  action "alert" {
    message = "${process.executable}"
  }
}
policy "gone" {
  on        = ["file.delete"]
  condition = under(file.path, "/etc")
  action "alert" {
    message = "x"
  }
}
policy "quiet" {
  on        = ["file.delete"]
  condition = under(file.path, "/var") && !macro.root
  action "alert" {
    message = "x"
  }
}
`

func load(t *testing.T, text string) *policy.Bundle {
	t.Helper()
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(text)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return b
}

func edit(t *testing.T, pairs ...string) *policy.Bundle {
	t.Helper()
	text := before
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the text has no %q", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return load(t, text)
}

// TestSpacingIsNoDifference holds that comments, spacing, line breaks and the order
// of blocks change nothing but the digests.
func TestSpacingIsNoDifference(t *testing.T) {
	d := Compare(load(t, before), edit(t,
		"condition = under(file.path, \"/var\") && !macro.root", "condition = (\n    under(file.path, \"/var\") && # here\n    !macro.root\n  )",
		"[\"/bin/sh\", \"/bin/bash\"]", "[\n    \"/bin/bash\",\n    \"/bin/sh\",\n  ]",
		"  title    = \"A | shell\"\n", "  mode = \"audit\"\n  title=\"A | shell\"\n"))
	if len(d.Policies) != 1 || d.Policies[0].Name != "quiet" || len(d.Policies[0].Changes) != 1 {
		t.Fatalf("parentheses are told as they stand, and nothing else: %+v", d.Policies)
	}
	d = Compare(load(t, before), edit(t, "  title    = \"A | shell\"\n", "  mode = \"audit\" # the default\n  title=\"A | shell\"\n"))
	if !d.Empty() || len(d.Retouched) != 1 || d.Retouched[0] != "shell" {
		t.Errorf("a comment is a difference: %+v", d)
	}
}

// TestDifferences holds every kind of difference against its text.
func TestDifferences(t *testing.T) {
	d := Compare(load(t, before), edit(t,
		"version  = \"1\"", "version  = \"2\"",
		"\"/bin/bash\"", "\"/bin/dash\"",
		"user.id == 0", "user.effective.id == 0",
		"title    = \"A | shell\"", "title    = \"A | shell\"\n  mode = \"enforce\"",
		"period = \"5m\"", "period = \"10m\"",
		"  action \"alert\" {\n    message = \"${process.executable}\"", "  action \"pause\" {}\n  action \"alert\" {\n    message = \"${process.name}\"",
		"policy \"gone\"", "policy \"fresh\""))
	var text strings.Builder
	if err := d.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nbundle\n    version\n      - \"1\"\n      + \"2\"\n",
		"\n+ policy fresh (medium, audit; alert)\n", "\n- policy gone (medium, audit; alert)\n",
		"\n~ policy shell (medium, audit -> enforce; pause, alert)\n    mode\n      - audit\n      + enforce\n",
		"    cooldown.period\n      - \"5m\"\n      + \"10m\"\n",
		"    action \"alert\".message\n      - \"${process.executable}\"\n      + \"${process.name}\"\n",
		"    action \"pause\"\n      + {}\n",
		"    means something else through list.shells, macro.root\n    what it remembers begins anew",
		"\n~ policy quiet (medium, audit; alert)\n    means something else through macro.root\n",
		"\n~ list shells (path)\n    + /bin/dash\n    - /bin/bash\n",
		"\nmacros\n    macro.root\n      - user.id == 0\n      + user.effective.id == 0\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the difference does not say %q:\n%s", want, text.String())
		}
	}
}

// TestCatalogue holds the matrix, the comment and that titles cannot break the table.
func TestCatalogue(t *testing.T) {
	var b strings.Builder
	if err := Catalogue(&b, load(t, before)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| [shell](#shell) | A \\| shell | medium | audit | process.exec | alert |\n",
		"| Execution | [T1059.004 Unix Shell](https://attack.mitre.org/techniques/T1059/004/) | [shell](#shell) |\n",
		"| not in this table | [T9999](https://attack.mitre.org/techniques/T9999/) | [shell](#shell) |\n",
		"\n## shell\n\nA \\| shell\n\nFalse positives: administrators.\n\nUses `list.shells`, `macro.is_shell`, `macro.root`.\n",
		"\n```hcl\npolicy \"shell\" {\n  title     = \"A | shell\"\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the catalogue lacks %q:\n%s", want, b.String())
		}
	}
}

// TestTechniques holds the table to what the matrix can show.
func TestTechniques(t *testing.T) {
	known := map[string]bool{}
	for _, k := range tactics {
		known[k.key] = true
	}
	for id, k := range techniques {
		if k.name == "" || len(k.tactics) == 0 {
			t.Errorf("%s has no name or no tactic", id)
		}
		for _, tactic := range k.tactics {
			if !known[tactic] {
				t.Errorf("%s serves the tactic %q, which is not in the matrix", id, tactic)
			}
		}
	}
}
