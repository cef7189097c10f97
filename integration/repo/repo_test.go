package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the path of the main module.
const module = "github.com/provostd/provost"

// tags are those of the Makefile.
const tags = "libvirt_dlopen"

// root is the top of the repository, seen from this package's directory.
const root = "../.."

// files returns every file of the repository whose name ends in suffix, as
// slash-separated paths from its top. Build output, caches and what tests read
// as data are left out.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a temporary file of somebody's editor or test
			}
			return err
		}
		switch {
		case !d.IsDir():
		case d.Name() == ".git", d.Name() == ".cache", d.Name() == "bin", d.Name() == "testdata":
			return fs.SkipDir
		}
		if d.Type().IsRegular() && strings.HasSuffix(p, suffix) {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			all = append(all, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no file ends in %s: this test looks in the wrong place", suffix)
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pkg is what "go list" says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Standard     bool
	CgoFiles     []string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// rel is the package's path from the module's top, "" for another module's.
func (p *pkg) rel() string { return own(p.ImportPath) }

// own cuts the module off an import path of its own, and returns "" for others.
func own(importPath string) string {
	if r, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return r
	}
	return ""
}

// list runs "go list" at the top of the repository.
func list(t *testing.T, args ...string) []*pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json", "-tags", tags}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var all []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{}
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

var ours struct {
	once sync.Once
	all  []*pkg
}

// packages returns every package of the main module.
func packages(t *testing.T) []*pkg {
	t.Helper()
	ours.once.Do(func() { ours.all = list(t, "./...") })
	if len(ours.all) < 10 {
		t.Fatalf("go list found %d packages", len(ours.all))
	}
	return ours.all
}
