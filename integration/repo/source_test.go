package repo

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestGofmt holds every Go file to gofmt.
func TestGofmt(t *testing.T) {
	for _, name := range files(t, ".go") {
		src, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(src, want) {
			t.Errorf("%s is not formatted: run gofmt -w %s, so that changes show only what changed", name, name)
		}
	}
}

// TestPackageDocs wants one package comment for each package, in one file.
func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{}
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := path.Dir(name)
		docs[dir] = append(docs[dir], "")
		if f.Doc == nil {
			continue
		}
		docs[dir] = append(docs[dir], path.Base(name))
		text := f.Doc.Text()
		want := "Package " + f.Name.Name + " "
		if f.Name.Name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins %.40q, want %q: it states what the package promises", name, text, want)
		}
	}
	for dir, all := range docs {
		var with []string
		for _, f := range all {
			if f != "" {
				with = append(with, f)
			}
		}
		switch len(with) {
		case 1:
		case 0:
			t.Errorf("%s has no package comment: say in doc.go (in main.go of a command) what the package promises and who may import it", dir)
		default:
			t.Errorf("%s has package comments in %v: keep one, or readers find half of the promise", dir, with)
		}
	}
}

// banned are calls that some folder must not make.
var banned = []struct {
	folder, pkg, why string
	names            []string
}{
	{"rules", "time", "evaluation has no clock (I5): policy time is the host time of the entry, or a replay would decide differently",
		[]string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}},
	{"chain/record", "time", "the format is pure: times are written by who makes the entry", []string{"Now", "Since", "Until"}},
	{"chain/proof", "time", "verification depends on the bundle and the key only", []string{"Now", "Since", "Until"}},
	{"guestagent/wire", "time", "the protocol reads no clock", []string{"Now", "Since", "Until"}},
}

// TestBannedCalls looks for them in what is not a test.
func TestBannedCalls(t *testing.T) {
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, b := range banned {
			if !strings.HasPrefix(name, b.folder+"/") {
				continue
			}
			for _, n := range b.names {
				for _, pos := range uses(t, name, b.pkg, n) {
					t.Errorf("%s uses %s.%s: %s", pos, b.pkg, n, b.why)
				}
			}
		}
	}
}

// uses returns where a file uses an exported name of an imported package.
func uses(t *testing.T, name, pkg, ident string) []token.Position {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	local := ""
	for _, i := range f.Imports {
		if p, _ := strconv.Unquote(i.Path.Value); p == pkg {
			local = path.Base(pkg)
			if i.Name != nil {
				local = i.Name.Name
			}
		}
	}
	if local == "" {
		return nil
	}
	var found []token.Position
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == ident {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				found = append(found, fset.Position(s.Pos()))
			}
		}
		return true
	})
	return found
}

// TestUsesFindsThem proves that the search above can find something.
func TestUsesFindsThem(t *testing.T) {
	if len(uses(t, "introspect/daemon/daemon.go", "time", "Now")) == 0 {
		t.Error("introspect/daemon/daemon.go surely uses time.Now, and it was not found")
	}
}

// TestSleeps keeps waiting by the clock out of tests.
func TestSleeps(t *testing.T) {
	for _, name := range files(t, "_test.go") {
		for _, pos := range uses(t, name, "time", "Sleep") {
			t.Errorf("%s sleeps: wait for the condition with a deadline, or the test is slow on one machine and fails on another", pos)
		}
	}
}

// TestSkips wants a reason in every skipped test.
func TestSkips(t *testing.T) {
	for _, name := range files(t, "_test.go") {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := c.Fun.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Skip" && s.Sel.Name != "Skipf" && s.Sel.Name != "SkipNow" {
				return true
			}
			if x, ok := s.X.(*ast.Ident); !ok || !strings.Contains("t b f tb", x.Name) {
				return true
			}
			if !reasoned(c.Args) {
				t.Errorf("%s skips without a reason: say in a line what is missing and how to get it, or a lane that tests nothing looks green", fset.Position(c.Pos()))
			}
			return true
		})
	}
}

// reasoned reports whether the first argument is text long enough to say
// something, or is worked out at run time.
func reasoned(args []ast.Expr) bool {
	if len(args) == 0 {
		return false
	}
	lit, ok := args[0].(*ast.BasicLit)
	return !ok || len(lit.Value) > 12
}
