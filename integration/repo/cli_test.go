package repo

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommandLineIsDocumented compares docs/cli.md with what the programs say
// of themselves.
func TestCommandLineIsDocumented(t *testing.T) {
	page := read(t, "docs/cli.md")
	bin := build(t, "./cmd/provost", false)
	commands := regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+){0,2})(?: [\[A-Z]|  )`).FindAllStringSubmatch(help(t, bin), -1)
	if len(commands) < 5 {
		t.Fatalf("only %d commands were found in the help of provost: the search is broken", len(commands))
	}
	for _, c := range commands {
		section := sectionOf(page, "### provost "+c[1])
		if section == "" {
			t.Errorf("docs/cli.md has no section \"### provost %s\"", c[1])
			continue
		}
		args := append(strings.Fields(c[1]), "-h")
		flagsIn(t, "provost "+c[1], section, page, help(t, bin, args...))
	}
	for _, p := range []struct {
		name string
		cgo  bool
	}{{"provostd", true}, {"provost-agent", false}} {
		text := help(t, build(t, "./cmd/"+p.name, p.cgo), "-h")
		section := sectionOf(page, "## "+p.name)
		if section == "" {
			t.Errorf("docs/cli.md has no section \"## %s\"", p.name)
			continue
		}
		flagsIn(t, p.name, section, page, text)
		if _, list, ok := strings.Cut(text, "commands:\n"); ok {
			for _, c := range regexp.MustCompile(`(?m)^  ([a-z-]+)  `).FindAllStringSubmatch(list, -1) {
				if !strings.Contains(section, "`"+p.name+" "+c[1]+"`") {
					t.Errorf("docs/cli.md does not explain `%s %s`", p.name, c[1])
				}
			}
		}
	}
}

// flagsIn wants every flag of a help text in its section, or among those that
// the page explains once for all commands.
func flagsIn(t *testing.T, name, section, page, text string) {
	t.Helper()
	common := sectionOf(page, "## Common flags")
	for _, f := range regexp.MustCompile(`(?m)^  -([a-z][a-z0-9-]*)`).FindAllStringSubmatch(text, -1) {
		want := regexp.MustCompile("`--?" + f[1] + "[` =]")
		if !want.MatchString(section) && !want.MatchString(common) {
			t.Errorf("docs/cli.md does not explain flag -%s of %s", f[1], name)
		}
	}
}

// sectionOf returns what follows a heading, up to the next of its level.
func sectionOf(page, heading string) string {
	_, rest, ok := strings.Cut(page, "\n"+heading+"\n")
	if !ok {
		return ""
	}
	level, _, _ := strings.Cut(heading, " ")
	for _, end := range []string{"\n" + level + " ", "\n## "} {
		rest, _, _ = strings.Cut(rest, end)
	}
	return rest
}

func build(t *testing.T, path string, cgo bool) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), filepath.Base(path))
	cmd := exec.Command("go", "build", "-tags", tags, "-o", bin, path)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", path, err, out)
	}
	return bin
}

func help(t *testing.T, bin string, args ...string) string {
	t.Helper()
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(bin), strings.Join(args, " "), err, out)
	}
	return string(out)
}
