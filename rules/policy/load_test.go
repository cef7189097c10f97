package policy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
)

const head = "bundle {\n name = \"t\"\n version = \"1\"\n language = 1\n}\n"

func loadText(text string) (*Bundle, hcl.Diagnostics) {
	return LoadFS(fstest.MapFS{"t.policy.hcl": {Data: []byte(text)}})
}

func codes(diags hcl.Diagnostics) string {
	var out []string
	for _, d := range diags {
		out = append(out, string(DetailOf(d).Code))
	}
	return strings.Join(out, " ")
}

// Mistakes that a bundle can make only once, or that need a bundle of their own.
func TestRefused(t *testing.T) {
	pol := func(cond string) string {
		return head + "policy \"p\" {\n on = [\"process.exec\"]\n condition = " + cond + "\n action \"pause\" {}\n}\n"
	}
	double := head + "macro \"m0\" {\n condition = has(process.name)\n}\n"
	for i := 1; i < 40; i++ {
		double += fmt.Sprintf("macro \"m%d\" {\n condition = macro.m%d || macro.m%d\n}\n", i, i-1, i-1)
	}
	double += "policy \"p\" {\n on = [\"process.exec\"]\n condition = macro.m39\n action \"pause\" {}\n}\n"
	for _, tc := range []struct {
		name, text, want string
	}{
		{"fine", pol(`process.name == "x"`), ""},
		{"no bundle block", "policy \"p\" {\n on = [\"process.exec\"]\n action \"pause\" {}\n}\n", "POL009"},
		{"two bundle blocks", head + head, "POL007"},
		{"language 2", strings.Replace(pol("has(process.name)"), "language = 1", "language = 2", 1), "POL009"},
		{"deep parentheses", pol(strings.Repeat("(", 5000) + "true" + strings.Repeat(")", 5000)), "POL022"},
		{"deep unary", pol(strings.Repeat("!", 100_000) + "true"), "POL022"},
		{"deep templates", pol(strings.Repeat(`"${`, 5000)), "POL022"},
		{"many conditionals", pol(strings.Repeat("true ? true : ", 5000) + "true"), "POL022"},
		{"macros that double", double, "POL022"},
		{"exception of one type", strings.Replace(strings.Replace(pol(`has(event.type)`), `"process.exec"`, `"process.exec", "file.modify"`, 1), "action", "exception \"x\" {\n condition = file.path == \"/x\"\n }\n action", 1), ""},
		{"exception of no type", strings.Replace(strings.Replace(pol(`has(event.type)`), `"process.exec"`, `"process.exec", "file.modify"`, 1), "action", "exception \"x\" {\n condition = file.target_path == \"/x\"\n }\n action", 1), "POL012"},
		{"bad constant hides nothing", pol(`process.nosuch == 1 && false`), "POL011"},
		{"cross-type in a macro", head + "macro \"m\" {\n condition = process.pid == \"1\"\n}\n" + strings.TrimPrefix(pol("macro.m"), head), "POL014"},
		{"same mistake in two policies", head + "macro \"m\" {\n condition = list.x\n}\npolicy \"a\" {\n on = [\"process.exec\"]\n condition = macro.m\n action \"pause\" {}\n}\npolicy \"b\" {\n on = [\"process.exec\"]\n condition = macro.m\n action \"pause\" {}\n}\n", "POL020"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, diags := loadText(tc.text)
			if codes(diags) != tc.want {
				t.Errorf("codes %q, want %q: %.2000v", codes(diags), tc.want, diags)
			}
			if (b == nil) != diags.HasErrors() {
				t.Errorf("bundle %v beside %v", b, diags)
			}
		})
	}
}

// Long chains are no nesting.
func TestLongChain(t *testing.T) {
	b, diags := loadText(head + "policy \"p\" {\n on = [\"process.exec\"]\n condition = process.pid == 0" + strings.Repeat(" || process.pid == 1", 4000) + "\n action \"pause\" {}\n}\n")
	if b == nil {
		t.Fatal(codes(diags))
	}
}

// Nothing outside the bundle directory is read, and nothing that blocks.
func TestLoadStaysInside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("stolen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := func(file string) string {
		return head + "list \"l\" {\n type = \"string\"\n file = \"" + file + "\"\n}\npolicy \"p\" {\n on = [\"process.exec\"]\n condition = contains(list.l, process.name)\n action \"pause\" {}\n}\n"
	}
	for _, tc := range []struct {
		name, file string
		make       func(dir string) error
		ok         bool
	}{
		{"absolute", secret, nil, false},
		{"dot dot", "../" + filepath.Base(outside) + "/secret", nil, false},
		{"symlink out", "link", func(dir string) error { return os.Symlink(secret, filepath.Join(dir, "link")) }, false},
		{"symlinked directory out", "d/secret", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "d")) }, false},
		{"fifo", "fifo", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600) }, false},
		{"directory", "sub", func(dir string) error { return os.Mkdir(filepath.Join(dir, "sub"), 0o700) }, false},
		{"missing", "nosuch", nil, false},
		{"policy file", "t.policy.hcl", nil, false},
		{"inside", "ok", func(dir string) error { return os.WriteFile(filepath.Join(dir, "ok"), []byte("x\n"), 0o600) }, true},
		{"symlink inside", "ok2", func(dir string) error {
			if err := os.WriteFile(filepath.Join(dir, "real"), []byte("x\n"), 0o600); err != nil {
				return err
			}
			return os.Symlink("real", filepath.Join(dir, "ok2"))
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "t.policy.hcl"), []byte(list(tc.file)), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.make != nil {
				if err := tc.make(dir); err != nil {
					t.Fatal(err)
				}
			}
			b, diags := Load(dir)
			if (b != nil) != tc.ok {
				t.Errorf("loaded: %v, want %v: %v", b != nil, tc.ok, diags)
			}
			if !tc.ok && codes(diags) != "POL002" {
				t.Errorf("codes %q: %v", codes(diags), diags)
			}
		})
	}
	if b, diags := Load(filepath.Join(outside, "nosuch")); b != nil || codes(diags) != "POL002" {
		t.Errorf("missing directory: %v", diags)
	}
	if b, diags := Load(outside); b != nil || codes(diags) != "POL009" {
		t.Errorf("no policies: %v", diags)
	}
}

func TestDigests(t *testing.T) {
	text := head + "list \"l\" {\n type = \"string\"\n file = \"l.txt\"\n}\nmacro \"m\" {\n condition = contains(list.l, process.name)\n}\n" +
		"policy \"a\" {\n on = [\"process.exec\"]\n condition = macro.m\n action \"pause\" {}\n}\npolicy \"b\" {\n on = [\"process.exec\"]\n cooldown {\n period = \"5m\"\n }\n action \"pause\" {}\n}\n"
	load := func(text, list string) *Bundle {
		t.Helper()
		b, diags := LoadFS(fstest.MapFS{"t.policy.hcl": {Data: []byte(text)}, "l.txt": {Data: []byte(list)}, "unrelated": {Data: []byte("x")}, "x.policytest.hcl": {Data: []byte(list)}})
		if b == nil {
			t.Fatal(diags)
		}
		return b
	}
	b0 := load(text, "x\n")
	if b := load(text, "x\n"); b.Digest != b0.Digest || b.Policies[0].Digest != b0.Policies[0].Digest {
		t.Error("the same files give other digests")
	}
	if b0.Digest != DigestFiles(map[string][]byte{"t.policy.hcl": []byte(text), "l.txt": []byte("x\n")}) {
		t.Error("the digest is not that of policy and list files")
	}
	// A vector: changing the format must be noticed.
	if got := DigestFiles(map[string][]byte{"a": []byte("1"), "b": nil}).String(); got != "4f96ccf596dad10cfb801d2f2ac5db8c16258d7af2d8fcc2b76a626a02ce63ba" {
		t.Errorf("digest %s", got)
	}
	list := load(text, "y\n")
	if list.Digest == b0.Digest || list.Policies[0].Digest == b0.Policies[0].Digest || list.Policies[1].Digest != b0.Policies[1].Digest {
		t.Error("a changed list must change the bundle and the policies that use it")
	}
	macro := load(strings.Replace(text, "contains(list.l, process.name)", "contains_i(list.l, process.name)", 1), "x\n")
	if macro.Policies[0].Digest == b0.Policies[0].Digest || macro.Policies[1].Digest != b0.Policies[1].Digest {
		t.Error("a changed macro must change the policies that use it")
	}
	period := load(strings.Replace(text, "5m", "6m", 1), "x\n")
	if period.Policies[1].StateDigest == b0.Policies[1].StateDigest || period.Policies[0].StateDigest != b0.Policies[0].StateDigest {
		t.Error("the state digest must follow the cooldown")
	}
}

// Arbitrary bytes never panic, and what loads can be written and judged.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/broken/*.hcl", "../../examples/policies/*/*.hcl"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			f.Add(append([]byte(head), data...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, diags := LoadFS(fstest.MapFS{"t.policy.hcl": {Data: data}})
		if (b == nil) != diags.HasErrors() {
			t.Fatalf("bundle %v beside %v", b, diags)
		}
		var out bytes.Buffer
		if err := WriteDiagnostics(&out, diags, map[string][]byte{"t.policy.hcl": data}, 60, false); err != nil {
			t.Fatal(err)
		}
		for _, d := range diags {
			if d.Subject == nil || d.Summary == "" || d.Detail == "" {
				t.Fatalf("incomplete diagnostic %#v", d)
			}
		}
		if _, err := DiagnosticsJSON(diags); err != nil {
			t.Fatal(err)
		}
		if b == nil {
			return
		}
		c := &byteChooser{data}
		for _, p := range b.Policies {
			for range 3 {
				e := genEvent(c)
				if p.Condition != nil {
					agree(t, p.Name, p.Condition, e)
				}
				for _, a := range p.Actions {
					if m := a.Message.Render(e); len(m) > MaxMessage {
						t.Fatalf("message of %d bytes", len(m))
					}
				}
			}
		}
	})
}

// A file that is no text is one fault, not one for each of its bytes.
func TestNotText(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		line int
		want string
	}{
		"binary":  {"bundle {\n  name = \"\xff\xfe\xff\"\n}\x00", 2, "byte 20 of the file, 0xff"},
		"zero":    {"# a\n\x00", 2, "byte 5 of the file, 0x0"},
		"cut off": {"# \xe2\x82", 1, "byte 3 of the file, 0xe2"},
	} {
		b, diags := LoadFS(Overlay(nil, map[string][]byte{"x.policy.hcl": []byte(c.text)}))
		var found []string
		for _, d := range diags {
			if d.Summary == "Not a text file" && d.Subject.Start.Line == c.line {
				found = append(found, d.Detail)
			}
		}
		if b != nil || len(found) != 1 || !strings.Contains(found[0], c.want) || len(diags) > 2 {
			t.Errorf("%s: %v", name, diags)
		}
	}
}
