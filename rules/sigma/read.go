package sigma

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Bounds of what Read takes.
const (
	MaxFileSize = 1 << 20
	maxSources  = 20_000
	maxTotal    = 256 << 20
)

// Read returns the rules of a file, or all that are named *.yml or *.yaml below
// a directory, in order of their names. Symbolic links and what is no regular
// file are left out.
func Read(name string) ([]Source, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	if !st.IsDir() {
		data, err := readFile(os.DirFS(dirOf(name)), st.Name())
		if err != nil {
			return nil, err
		}
		return []Source{{Name: st.Name(), Data: data}}, nil
	}
	fsys := os.DirFS(name)
	var all []Source
	total := 0
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		ext := path.Ext(p)
		if err != nil || !d.Type().IsRegular() || ext != ".yml" && ext != ".yaml" {
			return err
		}
		data, err := readFile(fsys, p)
		if err != nil {
			return err
		}
		if total += len(data); total > maxTotal || len(all) == maxSources {
			return fmt.Errorf("read rules: %s has more than %d files or %d bytes of rules: convert its directories one by one: %w", name, maxSources, maxTotal, record.ErrReject)
		}
		all = append(all, Source{Name: p, Data: data})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read rules: %s has no files named *.yml or *.yaml: %w", name, record.ErrReject)
	}
	return all, nil
}

// dirOf is the directory of a file, in the system's own way of writing.
func dirOf(name string) string {
	if i := strings.LastIndexAny(name, "/"+string(os.PathSeparator)); i > 0 {
		return name[:i]
	} else if i == 0 {
		return name[:1]
	}
	return "."
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("read rules: %s has more than %d bytes: %w", name, MaxFileSize, record.ErrReject)
	}
	return data, nil
}

// Write makes a directory with the files of the bundle. It must not be there
// yet: what was converted before may have been edited since. A crash leaves a
// directory behind whose name ends in ".partial", which the next call removes.
func (r *Result) Write(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("write bundle: %s is there already: name a new directory: %w", dir, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write bundle: %w", err)
	}
	tmp := strings.TrimRight(dir, "/") + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer root.Close()
	for _, f := range r.Files {
		if err := root.WriteFile(f.Name, f.Data, 0o644); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}
