package repo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	mention = regexp.MustCompile("`([\\w./-]+\\.(?:go|h|c|proto)):([\\w.]+)`")
)

// TestLinks follows every relative link of every page, with its anchor.
func TestLinks(t *testing.T) {
	n := 0
	for _, page := range files(t, ".md") {
		text := fence.ReplaceAllString(read(t, page), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			n++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there: a reader who follows it is lost", page, m[1])
				continue
			}
			if anchor != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading (it has %v)", page, m[1], target, anchors(read(t, target)))
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d relative links were found: the search is broken", n)
	}
}

var notAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchors returns the names that a page's headings have in links.
func anchors(text string) []string {
	var all []string
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		if h := strings.TrimLeft(line, "#"); h != line && strings.HasPrefix(h, " ") {
			h = strings.ToLower(notAnchor.ReplaceAllString(strings.TrimSpace(h), ""))
			all = append(all, strings.ReplaceAll(h, " ", "-"))
		}
	}
	return all
}

// TestMentions looks up every function that a page names as `file:Function`,
// and wants each to be a link to that file.
func TestMentions(t *testing.T) {
	for _, page := range files(t, ".md") {
		text := fence.ReplaceAllString(read(t, page), "")
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			if !declared(t, m[1], m[2]) {
				t.Errorf("%s names `%s:%s`, and there is no such function: correct the page, it is how newcomers find the code", page, m[1], m[2])
			}
			if want := "[" + m[0] + "]("; !strings.Contains(text, want) {
				t.Errorf("%s names %s without a link to the file", page, m[0])
			}
		}
	}
}

// declared reports whether a file of the repository declares a function, a
// method (Type.Method), a type, a constant or, in C, a name in a definition.
func declared(t *testing.T, name, ident string) bool {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, name)); err != nil {
		return false
	}
	if !strings.HasSuffix(name, ".go") {
		return regexp.MustCompile(`(?m)^[^/\n]*\b` + regexp.QuoteMeta(ident) + `\b`).MatchString(read(t, name))
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	typ, method, isMethod := strings.Cut(ident, ".")
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && !isMethod && d.Name.Name == ident {
				return true
			}
			if d.Recv != nil && isMethod && d.Name.Name == method && receiver(d.Recv.List[0].Type) == typ {
				return true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.Name == ident {
						return true
					}
				case *ast.ValueSpec:
					if slices.ContainsFunc(s.Names, func(i *ast.Ident) bool { return i.Name == ident }) {
						return true
					}
				}
			}
		}
	}
	return false
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// TestArchitecture wants each of the ten steps and each invariant on the page
// that leads newcomers into the code.
func TestArchitecture(t *testing.T) {
	text := read(t, "docs/architecture.md")
	steps := regexp.MustCompile(`(?m)^### (\d+)\. `).FindAllStringSubmatchIndex(text, -1)
	if len(steps) != 10 {
		t.Fatalf("docs/architecture.md has %d headings \"### N. ...\", the life of an event has ten steps", len(steps))
	}
	for i, s := range steps {
		end := len(text)
		if i+1 < len(steps) {
			end = steps[i+1][0]
		}
		section, _, _ := strings.Cut(text[s[0]:end], "\n## ")
		if !mention.MatchString(section) {
			t.Errorf("step %s names no function: a newcomer must find each step in the code from this page alone", text[s[2]:s[3]])
		}
	}
	for n := 1; n <= 10; n++ {
		if !regexp.MustCompile(`(?m)^\| I` + string(rune('0'+n/10)) + `?` + string(rune('0'+n%10)) + ` \|`).MatchString(strings.ReplaceAll(text, "**", "")) {
			t.Errorf("the table of invariants has no row for I%d", n)
		}
	}
	for _, p := range packages(t) {
		if p.rel() == "" || folder(p.rel()) == "integration" {
			continue
		}
		if !strings.Contains(text, "`"+p.rel()+"`") {
			t.Errorf("docs/architecture.md does not name package %s: its table tells what each package promises", p.rel())
		}
	}
}

// TestMetricsAreDocumented compares the operator's table with the daemon.
func TestMetricsAreDocumented(t *testing.T) {
	source := read(t, "introspect/daemon/metrics.go")
	page := read(t, "docs/operator.md")
	var names []string
	for _, m := range regexp.MustCompile(`m\.(?:count|gauge)\("([a-z_]+)"`).FindAllStringSubmatch(source, -1) {
		names = append(names, "provost_"+m[1])
	}
	for _, m := range regexp.MustCompile(`Name: "(provost_[a-z_]+)"`).FindAllStringSubmatch(source, -1) {
		names = append(names, m[1])
	}
	if len(names) < 20 {
		t.Fatalf("only %d metrics were found in introspect/daemon/metrics.go: the search is broken", len(names))
	}
	for _, n := range names {
		if !strings.Contains(page, "`"+n+"`") {
			t.Errorf("docs/operator.md does not explain the metric %s: nobody can alarm on what nobody explains", n)
		}
	}
	for _, m := range regexp.MustCompile("`(provost_[a-z_]+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/operator.md explains the metric %s, which the daemon has not", m[1])
		}
	}
}

// TestClassesAreDocumented compares the operator's list of sealed classes.
func TestClassesAreDocumented(t *testing.T) {
	page := read(t, "docs/operator.md")
	names := regexp.MustCompile(`(?m)^\tClass\w+:\s+"([a-z_.]+)"`).FindAllStringSubmatch(read(t, "chain/record/class.go"), -1)
	if len(names) < 40 {
		t.Fatalf("only %d classes were found in chain/record/class.go: the search is broken", len(names))
	}
	for _, m := range names {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("docs/operator.md does not say what an entry of class %s means", m[1])
		}
	}
}

// TestDecisions holds each decision to a number of its own, which its title has too.
func TestDecisions(t *testing.T) {
	next := 1
	for _, page := range files(t, ".md") {
		if path.Dir(page) != "docs/decisions" {
			continue
		}
		if want := fmt.Sprintf("%04d-", next); !strings.HasPrefix(path.Base(page), want) {
			t.Errorf("%s: want a name that begins with %s", page, want)
		}
		if want := fmt.Sprintf("# %d. ", next); !strings.HasPrefix(read(t, page), want) {
			t.Errorf("%s: its title does not begin with %q", page, want)
		}
		next++
	}
	if next == 1 {
		t.Error("no decisions were found: the search is broken")
	}
}
