package lsp

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/provostd/provost/rules/policy"
)

// loads loads what is dirty until ctx ends.
func (s *server) loads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		dirs := s.dirty
		s.dirty = make(map[string]bool)
		s.mu.Unlock()
		for dir := range dirs {
			if ctx.Err() == nil {
				s.diagnose(ctx, dir)
			}
		}
	}
}

// maxShown bounds how many diagnostics of a bundle an editor is told.
const maxShown = 1000

// diagnose loads one bundle and tells the editor what is wrong in it. Files
// with nothing wrong any more are told so, too.
func (s *server) diagnose(ctx context.Context, dir string) {
	found := make(map[string][]diagnostic)
	versions := make(map[string]int)
	add := func(name string, d ...diagnostic) {
		uri, version := s.uri(dir, name)
		found[uri] = append(found[uri], d...)
		versions[uri] = version
	}
	b := s.bundleOf(dir)
	defer b.close()
	ours := false
	for name := range b.open {
		ours = ours || isPolicy(name) || isTest(name)
		add(name)
	}
	if ours { // a directory with nothing but other files is no bundle
		diags := load(b.fsys)
		texts := make(map[string][]byte)
		for _, d := range diags[:min(len(diags), maxShown)] {
			name, x := b.place(d, texts)
			add(name, x)
		}
	}
	s.mu.Lock()
	for uri := range s.shown[dir] {
		if _, ok := found[uri]; !ok {
			found[uri] = nil
		}
	}
	shown := make(map[string][]diagnostic)
	for uri, list := range found {
		if len(list) > 0 {
			shown[uri] = list
		}
	}
	s.shown[dir] = shown
	if len(shown) == 0 && len(b.open) == 0 {
		delete(s.shown, dir)
	}
	s.mu.Unlock()
	for uri, list := range found {
		if list == nil {
			list = []diagnostic{}
		}
		if s.rpc.Notify(ctx, "textDocument/publishDiagnostics", publishParams{URI: uri, Version: versions[uri], Diagnostics: list}) != nil {
			return // the editor is gone; Run sees it
		}
	}
}

// load loads a bundle and, where it is sound, the tests beside it.
func load(fsys fs.FS) hcl.Diagnostics {
	b, diags := policy.LoadFS(fsys)
	if b != nil {
		_, more := policy.LoadTestsFS(fsys, b)
		diags = append(diags, more...)
	}
	return diags
}

// place converts a diagnostic, and says which file it belongs to. One of the
// bundle as a whole stands at the beginning of an open file. texts holds those
// that were read.
func (b *bundle) place(d *hcl.Diagnostic, texts map[string][]byte) (string, diagnostic) {
	x := diagnostic{Severity: 1, Code: string(policy.DetailOf(d).Code), Source: "provost", Message: d.Summary + "\n" + d.Detail, fix: policy.DetailOf(d).Suggestion}
	if d.Severity == hcl.DiagWarning {
		x.Severity = 2
	}
	name := ""
	if d.Subject != nil {
		name = d.Subject.Filename
	}
	text, ok := texts[name]
	if !ok {
		text = b.read(name, policy.MaxListSize)
		texts[name] = text
	}
	if text != nil {
		x.Range = spanOf(text, d.Subject.Start.Byte, d.Subject.End.Byte)
		return name, x
	}
	if _, ok := b.open[name]; ok { // too large to be read
		return name, x
	}
	for n := range b.open {
		if (isPolicy(n) || isTest(n)) && !isPolicy(name) {
			x.Message = strings.TrimSpace(name+": ") + " " + x.Message
			return n, x
		}
	}
	return filepath.ToSlash(name), x
}

// codeActions offers what diagnostics suggest to write instead.
func (s *server) codeActions(_ context.Context, p rangeParams) ([]codeAction, error) {
	dir, _, text, err := s.open(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	from, to := offset(text, p.Range.Start), offset(text, p.Range.End)
	s.mu.Lock()
	list := s.shown[dir][p.TextDocument.URI]
	s.mu.Unlock()
	actions := []codeAction{}
	for _, d := range list {
		if d.fix == "" || offset(text, d.Range.End) < from || offset(text, d.Range.Start) > to {
			continue
		}
		actions = append(actions, codeAction{Title: "Replace with " + d.fix, Kind: "quickfix", Diagnostics: []diagnostic{d}, IsPreferred: true,
			Edit: workspaceEdit{map[string][]textEdit{p.TextDocument.URI: {{Range: d.Range, NewText: d.fix}}}}})
	}
	return actions, nil
}
