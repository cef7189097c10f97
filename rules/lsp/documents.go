package lsp

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// maxDocuments is how many documents may be open at a time.
const maxDocuments = policy.MaxFiles

// maxBundleText bounds what is read of a bundle to find definitions in.
const maxBundleText = 64 << 20

// document is an open text.
type document struct {
	uri     string // as the editor writes it
	version int
	text    []byte
}

// pathOf returns the file of a URI.
func pathOf(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.Path == "" {
		return "", fmt.Errorf("open %q: only file URIs are known: %w", uri, record.ErrReject)
	}
	p := u.Path
	if runtime.GOOS == "windows" {
		p = strings.TrimPrefix(p, "/")
	}
	return filepath.Clean(filepath.FromSlash(p)), nil
}

// uriOf returns the URI of a file.
func uriOf(path string) string {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return (&url.URL{Scheme: "file", Path: p}).String()
}

// offset returns the byte of a position; one beyond a line is its end.
func offset(text []byte, p position) int {
	at := 0
	for range p.Line {
		i := bytes.IndexByte(text[at:], '\n')
		if i < 0 {
			return len(text)
		}
		at += i + 1
	}
	for units := 0; units < p.Character && at < len(text) && text[at] != '\n'; {
		r, n := utf8.DecodeRune(text[at:])
		units += max(1, utf16.RuneLen(r))
		at += n
	}
	return at
}

// positionOf returns the position of a byte.
func positionOf(text []byte, at int) position {
	before := text[:max(0, min(at, len(text)))]
	line := bytes.LastIndexByte(before, '\n') + 1
	units := 0
	for rest := before[line:]; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		units += max(1, utf16.RuneLen(r))
		rest = rest[n:]
	}
	return position{Line: bytes.Count(before, []byte{'\n'}), Character: units}
}

func spanOf(text []byte, start, end int) span {
	return span{positionOf(text, start), positionOf(text, max(start, end))}
}

// bundle is the directory of a document with the unsaved texts in it.
type bundle struct {
	dir  string
	fsys fs.FS
	root *os.Root          // nil where the directory is not there yet
	open map[string][]byte // unsaved texts by name
}

func (b *bundle) close() {
	if b.root != nil {
		b.root.Close()
	}
}

// bundleOf returns the bundle in a directory. The caller closes it.
func (s *server) bundleOf(dir string) *bundle {
	b := &bundle{dir: dir, open: make(map[string][]byte)}
	s.mu.Lock()
	for path, d := range s.docs {
		if filepath.Dir(path) == dir {
			b.open[filepath.Base(path)] = d.text
		}
	}
	s.mu.Unlock()
	var base fs.FS
	if root, err := os.OpenRoot(dir); err == nil { // else only what is open is known
		b.root, base = root, root.FS()
	}
	b.fsys = policy.Overlay(base, b.open)
	return b
}

// read returns the text of a file of the bundle, nil where it cannot be read.
func (b *bundle) read(name string, limit int64) []byte {
	st, err := fs.Stat(b.fsys, name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil
	}
	data, err := fs.ReadFile(b.fsys, name)
	if err != nil {
		return nil
	}
	return data
}

// texts returns all policy files. Those that cannot be read have a diagnostic
// of the loader.
func (b *bundle) texts() map[string][]byte {
	all := make(map[string][]byte)
	entries, err := fs.ReadDir(b.fsys, ".")
	if err != nil {
		return all
	}
	total := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), policy.Suffix) || len(all) == policy.MaxFiles {
			continue
		}
		data := b.read(e.Name(), policy.MaxFileSize)
		if total += len(data); data == nil || total > maxBundleText {
			continue
		}
		all[e.Name()] = data
	}
	return all
}

// uri returns the URI of a file in a directory, as the editor writes it where
// it is open.
func (s *server) uri(dir, name string) (string, int) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.docs[path]; d != nil {
		return d.uri, d.version
	}
	return uriOf(path), 0
}
