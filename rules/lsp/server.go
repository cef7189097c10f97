package lsp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/handler"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// server is one editor's session.
type server struct {
	version string
	rpc     *jrpc2.Server
	wake    chan struct{} // something is to be loaded; one waiting signal is enough

	mu       sync.Mutex
	snippets bool                               // the editor knows snippets
	docs     map[string]*document               // by path
	dirty    map[string]bool                    // directories to load
	shown    map[string]map[string][]diagnostic // directory, URI: what the editor was told
}

// Run serves one editor until it says exit, closes the connection or ctx ends.
// It closes w.
func Run(ctx context.Context, r io.Reader, w io.WriteCloser, version string) error {
	s := &server{version: version, wake: make(chan struct{}, 1), docs: make(map[string]*document),
		dirty: make(map[string]bool), shown: make(map[string]map[string][]diagnostic)}
	s.rpc = jrpc2.NewServer(s.methods(), &jrpc2.ServerOptions{AllowPush: true, DisableBuiltin: true, Concurrency: 1,
		NewContext: func() context.Context { return ctx }})
	ctx, cancel := context.WithCancel(ctx)
	var loads sync.WaitGroup
	loads.Go(func() { s.loads(ctx) })
	stop := context.AfterFunc(ctx, s.rpc.Stop)
	defer stop()
	s.rpc.Start(newFrames(r, w))
	err := s.rpc.Wait()
	cancel()
	loads.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("serve editor: %w", err)
	}
	return nil
}

func (s *server) methods() handler.Map {
	ignore := func(context.Context, *jrpc2.Request) (any, error) { return nil, nil }
	return handler.Map{
		"initialize":                       handler.New(s.initialize),
		"initialized":                      ignore,
		"shutdown":                         ignore,
		"exit":                             func(context.Context, *jrpc2.Request) (any, error) { s.rpc.Stop(); return nil, nil },
		"$/cancelRequest":                  ignore,
		"$/setTrace":                       ignore,
		"workspace/didChangeConfiguration": ignore,
		"workspace/didChangeWatchedFiles":  func(context.Context, *jrpc2.Request) (any, error) { s.reload(""); return nil, nil },
		"textDocument/didOpen":             handler.New(s.didOpen),
		"textDocument/didChange":           handler.New(s.didChange),
		"textDocument/didSave":             handler.New(s.didSave),
		"textDocument/didClose":            handler.New(s.didClose),
		"textDocument/completion":          handler.New(s.completion),
		"textDocument/hover":               handler.New(s.hover),
		"textDocument/definition":          handler.New(s.definition),
		"textDocument/references":          handler.New(s.references),
		"textDocument/rename":              handler.New(s.rename),
		"textDocument/formatting":          handler.New(s.formatting),
		"textDocument/codeAction":          handler.New(s.codeActions),
		"textDocument/documentSymbol":      handler.New(s.symbols),
	}
}

func (s *server) initialize(_ context.Context, p initializeParams) (any, error) {
	s.mu.Lock()
	s.snippets = p.Capabilities.TextDocument.Completion.CompletionItem.SnippetSupport
	s.mu.Unlock()
	return map[string]any{
		"serverInfo": map[string]string{"name": "provost policy lsp", "version": s.version},
		"capabilities": map[string]any{
			"positionEncoding":           "utf-16",
			"textDocumentSync":           map[string]any{"openClose": true, "change": 1, "save": true},
			"completionProvider":         map[string]any{"triggerCharacters": []string{".", "\""}},
			"hoverProvider":              true,
			"definitionProvider":         true,
			"referencesProvider":         true,
			"renameProvider":             true,
			"documentFormattingProvider": true,
			"documentSymbolProvider":     true,
			"codeActionProvider":         map[string]any{"codeActionKinds": []string{"quickfix"}},
		},
	}, nil
}

func (s *server) didOpen(_ context.Context, p openParams) error {
	return s.set(p.TextDocument.documentID, p.TextDocument.Text)
}

func (s *server) didChange(_ context.Context, p changeParams) error {
	if len(p.ContentChanges) == 0 {
		return nil
	}
	return s.set(p.TextDocument, p.ContentChanges[len(p.ContentChanges)-1].Text)
}

// set takes the text of a document.
func (s *server) set(id documentID, text string) error {
	path, err := pathOf(id.URI)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.docs[path] == nil && len(s.docs) == maxDocuments {
		s.mu.Unlock()
		return fmt.Errorf("open %s: %d documents are open already: %w", id.URI, maxDocuments, record.ErrReject)
	}
	// One byte more than the loader takes is enough for it to refuse the file.
	data := []byte(text[:min(len(text), policy.MaxFileSize+1)])
	s.docs[path] = &document{uri: id.URI, version: id.Version, text: data}
	s.mu.Unlock()
	s.reload(filepath.Dir(path))
	return nil
}

func (s *server) didSave(_ context.Context, p documentParams) error {
	path, err := pathOf(p.TextDocument.URI)
	if err == nil {
		s.reload(filepath.Dir(path))
	}
	return err
}

func (s *server) didClose(_ context.Context, p documentParams) error {
	path, err := pathOf(p.TextDocument.URI)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.docs, path)
	s.mu.Unlock()
	s.reload(filepath.Dir(path))
	return nil
}

// reload has a directory loaded, or with "" those of all open documents.
func (s *server) reload(dir string) {
	s.mu.Lock()
	if dir != "" {
		s.dirty[dir] = true
	} else {
		for path := range s.docs {
			s.dirty[filepath.Dir(path)] = true
		}
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is awake, and will see what is dirty
	}
}

// open returns an open policy file with its directory and name.
func (s *server) open(uri string) (dir, name string, text []byte, err error) {
	path, err := pathOf(uri)
	if err != nil {
		return "", "", nil, err
	}
	s.mu.Lock()
	d := s.docs[path]
	s.mu.Unlock()
	if d == nil {
		return "", "", nil, fmt.Errorf("look at %s: it is not open: %w", uri, record.ErrReject)
	}
	return filepath.Dir(path), filepath.Base(path), d.text, nil
}

// isPolicy reports whether a file holds policies.
func isPolicy(name string) bool { return strings.HasSuffix(name, policy.Suffix) }

// isTest reports whether a file holds tests of policies, which have diagnostics
// and are formatted.
func isTest(name string) bool { return strings.HasSuffix(name, policy.TestSuffix) }

func (s *server) formatting(_ context.Context, p documentParams) ([]textEdit, error) {
	_, name, text, err := s.open(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	out, diags := policy.Format(name, text)
	if diags.HasErrors() || string(out) == string(text) {
		return []textEdit{}, nil // what does not parse has its diagnostics
	}
	return []textEdit{{Range: spanOf(text, 0, len(text)), NewText: string(out)}}, nil
}
