package policy

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFormat holds spacing, what stays, and that formatted text stays as it is.
func TestFormat(t *testing.T) {
	cases := []struct{ name, src, want string }{
		{"spacing", "policy \"x\" {\n on=[ \"file.delete\" ]  \n    title = \"a  \"\n}", "policy \"x\" {\n  on    = [\"file.delete\"]\n  title = \"a  \"\n}\n"},
		{"comments", "# one  \nlocals {\n a = 1 # two\t\n}\n\n\n", "# one\nlocals {\n  a = 1 # two\n}\n"},
		{"heredoc", "locals {\n  a = <<-EOT\n    x  \n  EOT\n}\n", "locals {\n  a = <<-EOT\n    x  \n  EOT\n}\n"},
		{"line ends", "locals {\r\n  a = 1\r\n}\r\n", "locals {\n  a = 1\n}\n"},
		{"empty", "", "\n"},
	}
	for _, c := range cases {
		got, diags := Format("a.policy.hcl", []byte(c.src))
		if diags.HasErrors() || string(got) != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.name, diags, got, c.want)
			continue
		}
		if again, _ := Format("a.policy.hcl", got); string(again) != string(got) {
			t.Errorf("%s: a second pass gives %q", c.name, again)
		}
	}
	if got, diags := Format("a.policy.hcl", []byte("policy \"x\" {\n  on = [\n")); got != nil || !diags.HasErrors() {
		t.Errorf("broken text is formatted to %q", got)
	}
}

// TestExamplesAreFormatted holds the examples to the form that fmt gives them.
func TestExamplesAreFormatted(t *testing.T) {
	names, err := filepath.Glob("../../examples/policies/*/*.hcl")
	if err != nil || len(names) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, diags := Format(name, src)
		if diags.HasErrors() || string(got) != string(src) {
			t.Errorf("%s is not formatted: provost policy fmt does it (%v)", name, diags)
		}
	}
}
