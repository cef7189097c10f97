package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Limits of a bundle.
const (
	MaxFiles    = 1_000
	MaxFileSize = 1 << 20
	MaxListSize = 16 << 20
	// MaxLists bounds the bytes of all list files together.
	MaxLists = 64 << 20

	maxDepth     = 100 // nesting of brackets, braces and templates
	maxUnaryRun  = 32  // "!!!!..."
	maxQuestions = 1_000
)

// Suffix is what the names of policy files end in.
const Suffix = ".policy.hcl"

// TestSuffix is what the names of policy tests end in; they are not part of a
// bundle's meaning.
const TestSuffix = ".policytest.hcl"

// Load reads the bundle in a directory. Nothing outside it is read: symbolic
// links that lead out, absolute names and ".." are refused. The Bundle is nil
// where the diagnostics have errors; it is returned beside warnings.
func Load(dir string) (*Bundle, hcl.Diagnostics) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		rep := newReport()
		rep.file(hcl.DiagError, CodeFile, dir, "Bundle not readable", fmt.Sprintf("The bundle directory cannot be opened: %s.", cause(err)))
		return nil, rep.diags
	}
	defer root.Close()
	return LoadFS(root.FS())
}

// LoadFS reads the bundle at the root of fsys, which must not lead outside
// the bundle.
func LoadFS(fsys fs.FS) (*Bundle, hcl.Diagnostics) {
	l := &loader{rep: newReport(), fsys: fsys, files: make(map[string][]byte)}
	l.readDir()
	var bodies []*hclsyntax.Body
	for _, name := range l.names {
		if body := l.parse(name, l.files[name]); body != nil {
			bodies = append(bodies, body)
		}
	}
	b := l.bundle(bodies)
	if l.rep.hasErrors() {
		return nil, l.sorted()
	}
	return b, l.sorted()
}

// Sources returns the texts that the diagnostics of a failed Load speak of. It
// reads them again and leaves out what it cannot read.
func Sources(dir string, diags hcl.Diagnostics) map[string][]byte {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	l := &loader{rep: newReport(), fsys: root.FS(), files: make(map[string][]byte)}
	for _, d := range diags {
		if d.Subject == nil || l.files[d.Subject.Filename] != nil || !fs.ValidPath(d.Subject.Filename) {
			continue
		}
		if data, ok := l.read(d.Subject.Filename, MaxListSize, nil); ok {
			l.files[d.Subject.Filename] = data
		}
	}
	return l.files
}

// loader holds one load.
type loader struct {
	rep   *report
	fsys  fs.FS
	names []string          // policy files, sorted
	files map[string][]byte // policy and list files
	lists int               // bytes of list files

	uses  map[string]bool // lists, locals and macros of the policy being decoded
	badOn bool            // that policy names a wrong event type
}

func cause(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func (l *loader) readDir() {
	entries, err := fs.ReadDir(l.fsys, ".")
	if err != nil {
		l.rep.file(hcl.DiagError, CodeFile, ".", "Bundle not readable", fmt.Sprintf("The bundle directory cannot be listed: %s.", cause(err)))
		return
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
			l.lookBelow(name)
		case strings.HasSuffix(name, Suffix):
			if len(l.names) == MaxFiles {
				l.rep.file(hcl.DiagError, CodeFile, name, "Too many files", fmt.Sprintf("A bundle has at most %d policy files.", MaxFiles))
				return
			}
			if data, ok := l.read(name, MaxFileSize, nil); ok {
				l.names = append(l.names, name)
				l.files[name] = data
			}
		case strings.HasSuffix(name, TestSuffix):
		case strings.HasSuffix(name, ".hcl.json"):
			l.rep.file(hcl.DiagError, CodeFile, name, "JSON syntax not supported", "Policies are written in HCL's native syntax. Rewrite the file as "+strings.TrimSuffix(name, ".hcl.json")+Suffix+".")
		case strings.HasSuffix(name, ".hcl"):
			l.rep.file(hcl.DiagWarning, CodeNotLoaded, name, "File is not loaded", "Only files named *"+Suffix+" are part of a bundle. Rename it, or move it elsewhere.")
		}
	}
	slices.Sort(l.names)
	if len(l.names) == 0 && !l.rep.hasErrors() {
		l.rep.file(hcl.DiagError, CodeBundle, ".", "No policies", "The directory has no file named *"+Suffix+". Name the directory that holds the policies themselves, or write the first file there; one of them holds the bundle block.")
	}
}

// lookBelow warns of policy files in a directory below the bundle: an author
// might believe that they are loaded.
func (l *loader) lookBelow(dir string) {
	entries, err := fs.ReadDir(l.fsys, dir)
	if err != nil {
		return // list files that are needed are reported when they are read
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".hcl") {
			l.rep.file(hcl.DiagWarning, CodeNotLoaded, path.Join(dir, e.Name()), "File is not loaded", "Only files in the bundle directory itself are part of a bundle, not those in directories below it.")
		}
	}
}

// read returns the contents of a regular file. Where the file was named in a
// policy, at is the place.
func (l *loader) read(name string, limit int64, at *hcl.Range) ([]byte, bool) {
	fail := func(detail string) ([]byte, bool) {
		if at != nil {
			l.rep.err(CodeFile, *at, "File not readable", detail)
		} else {
			l.rep.file(hcl.DiagError, CodeFile, name, "File not readable", detail)
		}
		return nil, false
	}
	// Before it is opened: opening a pipe would wait for its writer.
	info, err := fs.Stat(l.fsys, name)
	if err != nil {
		return fail(fmt.Sprintf("%s cannot be read: %s.", name, cause(err)))
	}
	if !info.Mode().IsRegular() {
		return fail(fmt.Sprintf("%s is not a regular file.", name))
	}
	if info.Size() > limit {
		return fail(fmt.Sprintf("%s has %d bytes; the limit is %d.", name, info.Size(), limit))
	}
	f, err := l.fsys.Open(name)
	if err != nil {
		return fail(fmt.Sprintf("%s cannot be opened: %s.", name, cause(err)))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return fail(fmt.Sprintf("%s cannot be read: %s.", name, cause(err)))
	}
	if int64(len(data)) > limit {
		return fail(fmt.Sprintf("%s is larger than %d bytes.", name, limit))
	}
	return data, true
}

// parse returns the body of one policy file, or nil after an error.
func (l *loader) parse(name string, data []byte) *hclsyntax.Body {
	if !l.isText(name, data) || !l.shallow(name, data) {
		return nil
	}
	f, diags := hclsyntax.ParseConfig(data, name, hcl.InitialPos)
	l.rep.adopt(CodeSyntax, diags)
	if f == nil || diags.HasErrors() {
		return nil
	}
	return f.Body.(*hclsyntax.Body)
}

// isText refuses what is no text: a complaint about each byte of it would help nobody.
func (l *loader) isText(name string, data []byte) bool {
	at := hcl.InitialPos
	for rest := data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 || r == 0 {
			end := at
			end.Byte, end.Column = end.Byte+1, end.Column+1
			l.rep.err(CodeSyntax, hcl.Range{Filename: name, Start: at, End: end}, "Not a text file", fmt.Sprintf(
				"Policies are written in UTF-8; byte %d of the file, %#02x, is no part of that. Save it as UTF-8, or move a file that is none of the bundle elsewhere.", at.Byte+1, rest[0]))
			return false
		}
		rest, at.Byte = rest[n:], at.Byte+n
		if at.Column++; r == '\n' {
			at.Line, at.Column = at.Line+1, 1
		}
	}
	return true
}

// shallow refuses text that would make HCL's recursive parser run out of
// stack, which no program can recover from.
func (l *loader) shallow(name string, data []byte) bool {
	tokens, _ := hclsyntax.LexConfig(data, name, hcl.InitialPos) // errors come again when it is parsed
	depth, unary, questions := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenBang, hclsyntax.TokenMinus:
			unary++
		default:
			unary = 0
		}
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth = max(0, depth-1)
		case hclsyntax.TokenQuestion:
			questions++
		}
		if depth > maxDepth || unary > maxUnaryRun || questions > maxQuestions {
			l.rep.err(CodeTooComplex, t.Range, "Nested too deeply", fmt.Sprintf(
				"A file may nest brackets, blocks and templates %d deep, repeat \"!\" or \"-\" %d times and use \"?\" %d times.", maxDepth, maxUnaryRun, maxQuestions))
			return false
		}
	}
	return true
}

// sorted returns the diagnostics in order of place, errors and warnings
// together, so that the same bundle always gives the same text.
func (l *loader) sorted() hcl.Diagnostics {
	slices.SortStableFunc(l.rep.diags, func(a, b *hcl.Diagnostic) int {
		if c := strings.Compare(a.Subject.Filename, b.Subject.Filename); c != 0 {
			return c
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return l.rep.diags
}
