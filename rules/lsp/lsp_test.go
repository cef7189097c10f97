package lsp

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/creachadair/jrpc2"

	"github.com/provostd/provost/rules/policy"
)

// editor drives a real server over pipes.
type editor struct {
	t       *testing.T
	dir     string
	client  *jrpc2.Client
	told    chan publishParams
	version int
}

func newEditor(t *testing.T, files map[string]string) *editor {
	t.Helper()
	e := &editor{t: t, dir: t.TempDir(), told: make(chan publishParams, 100)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fromEditor, toServer := io.Pipe()
	fromServer, toEditor := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(context.Background(), fromEditor, toEditor, "test") }()
	e.client = jrpc2.NewClient(newFrames(fromServer, toServer), &jrpc2.ClientOptions{OnNotify: func(r *jrpc2.Request) {
		var p publishParams
		if err := r.UnmarshalParams(&p); err != nil || r.Method() != "textDocument/publishDiagnostics" {
			t.Errorf("notified of %s: %v", r.Method(), err)
		}
		e.told <- p
	}})
	t.Cleanup(func() {
		e.call("shutdown", nil, nil)
		if err := e.client.Notify(context.Background(), "exit", nil); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("the server ends with %v", err)
		}
		e.client.Close()
	})
	var got struct {
		Capabilities map[string]any `json:"capabilities"`
	}
	e.call("initialize", map[string]any{"capabilities": map[string]any{"textDocument": map[string]any{"completion": map[string]any{"completionItem": map[string]any{"snippetSupport": true}}}}}, &got)
	for _, c := range []string{"completionProvider", "hoverProvider", "definitionProvider", "renameProvider", "documentFormattingProvider"} {
		if got.Capabilities[c] == nil {
			t.Errorf("no capability %s", c)
		}
	}
	if err := e.client.Notify(context.Background(), "initialized", map[string]any{}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *editor) call(method string, params, result any) {
	e.t.Helper()
	r, err := e.client.Call(context.Background(), method, params)
	if err != nil {
		e.t.Fatalf("%s: %v", method, err)
	}
	if result != nil {
		if err := r.UnmarshalResult(result); err != nil {
			e.t.Fatalf("%s: %v", method, err)
		}
	}
}

func (e *editor) uri(name string) string { return uriOf(filepath.Join(e.dir, name)) }

func (e *editor) open(name, text string) {
	e.t.Helper()
	e.version++
	p := map[string]any{"textDocument": map[string]any{"uri": e.uri(name), "version": e.version, "languageId": "hcl", "text": text}}
	if err := e.client.Notify(context.Background(), "textDocument/didOpen", p); err != nil {
		e.t.Fatal(err)
	}
}

func (e *editor) change(name, text string) {
	e.t.Helper()
	e.version++
	p := map[string]any{"textDocument": map[string]any{"uri": e.uri(name), "version": e.version}, "contentChanges": []map[string]any{{"text": text}}}
	if err := e.client.Notify(context.Background(), "textDocument/didChange", p); err != nil {
		e.t.Fatal(err)
	}
}

// diagnostics waits for what the server says of the newest version of a file.
func (e *editor) diagnostics(name string) []diagnostic {
	e.t.Helper()
	for p := range e.told {
		if p.URI == e.uri(name) && p.Version == e.version {
			return p.Diagnostics
		}
	}
	return nil
}

// at opens a text in which "|" marks the cursor and returns its place.
func (e *editor) at(name, text string) positionParams {
	e.t.Helper()
	before, after, ok := strings.Cut(text, "|")
	if !ok {
		e.t.Fatal("no cursor")
	}
	e.open(name, before+after)
	return positionParams{TextDocument: documentID{URI: e.uri(name)}, Position: positionOf([]byte(before), len(before))}
}

const (
	head   = "bundle {\n  name     = \"b\"\n  version  = \"1\"\n  language = 1\n}\n\n"
	shared = head + "list \"shells\" {\n  type   = \"path\"\n  values = [\"/bin/sh\"]\n}\n\nlocals {\n  webs = [\"web-*\"]\n}\n\nmacro \"is_shell\" {\n  condition = contains(list.shells, process.executable)\n}\n"
	whole  = "policy \"p\" {\n  on        = [\"process.exec\"]\n  condition = macro.is_shell\n\n  target {\n    names = local.webs\n  }\n  action \"alert\" {\n    message = \"x\"\n  }\n}\n"
)

// Diagnostics are the loader's, of the bundle with what is not saved in it.
func TestDiagnostics(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared, "p.policy.hcl": whole})
	e.open("p.policy.hcl", whole)
	if d := e.diagnostics("p.policy.hcl"); len(d) != 0 {
		t.Fatalf("a sound bundle has %v", d)
	}
	// \U0001f427 is two units of UTF-16 and four bytes.
	broken := strings.Replace(whole, "condition = macro.is_shell", "condition = process.name == \"\U0001f427\" && process.exe == \"x\"", 1)
	e.change("p.policy.hcl", broken)
	var unknown *diagnostic
	for _, d := range e.diagnostics("p.policy.hcl") {
		if d.Code == string(policy.CodeUnknownField) {
			unknown = &d
		}
	}
	if unknown == nil || unknown.Severity != 1 || unknown.Range.Start.Line != 2 || unknown.Range.Start.Character != 38 || !strings.Contains(unknown.Message, "process.executable") {
		t.Fatalf("diagnostics: %+v", unknown)
	}
	var actions []codeAction
	e.call("textDocument/codeAction", rangeParams{TextDocument: documentID{URI: e.uri("p.policy.hcl")}, Range: unknown.Range}, &actions)
	if len(actions) != 1 || actions[0].Edit.Changes[e.uri("p.policy.hcl")][0].NewText != "process.executable" {
		t.Errorf("actions: %+v", actions)
	}
	// A text of another file that is not saved counts, too.
	e.change("p.policy.hcl", whole)
	e.diagnostics("p.policy.hcl")
	e.open("00.policy.hcl", strings.Replace(shared, "\"is_shell\"", "\"is_a_shell\"", 1))
	var name string
	for p := range e.told {
		if p.URI == e.uri("p.policy.hcl") && len(p.Diagnostics) > 0 {
			name = p.Diagnostics[0].Code
			break
		}
	}
	if name != string(policy.CodeUnknownName) {
		t.Errorf("a macro that is renamed elsewhere: %q", name)
	}
	// Closing without saving brings the file back.
	if err := e.client.Notify(context.Background(), "textDocument/didClose", documentParams{documentID{URI: e.uri("00.policy.hcl")}}); err != nil {
		t.Fatal(err)
	}
	for p := range e.told {
		if p.URI == e.uri("p.policy.hcl") && len(p.Diagnostics) == 0 {
			break
		}
	}
}

// Tests beside the policies are loaded, too.
func TestDiagnosticsOfTests(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared, "p.policy.hcl": whole})
	const test = "test \"t\" {\n  policy = \"p\"\n  event \"process.exec\" {\n    process = { executable = \"/bin/sh\" }\n  }\n  expect {\n    matched = true\n  }\n}\n"
	e.open("p.policytest.hcl", test)
	if d := e.diagnostics("p.policytest.hcl"); len(d) != 0 {
		t.Errorf("a sound test has %v", d)
	}
	e.change("p.policytest.hcl", strings.Replace(test, "matched", "matchd", 1))
	if d := e.diagnostics("p.policytest.hcl"); len(d) != 1 || d[0].Range.Start != (position{6, 4}) || d[0].fix != "" || !strings.Contains(d[0].Message, "matched") {
		t.Errorf("diagnostics: %+v", d)
	}
}

// A document that is larger than the loader takes is refused and not held.
func TestLargeDocument(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared})
	e.open("p.policy.hcl", whole+strings.Repeat("# x\n", policy.MaxFileSize/4))
	d := e.diagnostics("p.policy.hcl")
	if len(d) != 1 || !strings.Contains(d[0].Message, "limit") {
		t.Errorf("diagnostics: %v", d)
	}
}

func TestCompletion(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared})
	for _, c := range []struct {
		what, text string
		want, not  []string
	}{
		{"event types", "policy \"p\" {\n  on = [\"file.|", []string{"file.modify", "process.exec"}, []string{"file.path"}},
		{"fields of the event types", "policy \"p\" {\n  on = [\"file.modify\"]\n  condition = file.|\n}\n", []string{"file.path", "process.executable"}, []string{"destination.ip", "under"}},
		{"names and functions", "policy \"p\" {\n  on = [\"file.modify\"]\n  condition = u|\n}\n", []string{"under", "user.name", "list.shells", "local.webs", "macro.is_shell", "true"}, []string{"severity"}},
		{"inside of a call", "policy \"p\" {\n  condition = (\n    contains(list.|", []string{"list.shells"}, []string{"macro.is_shell", "file.path"}},
		{"constants have no fields", "policy \"p\" {\n  target {\n    names = l|\n", []string{"local.webs", "list.shells"}, []string{"vm.name", "macro.is_shell", "under"}},
		{"fields of a VM", "policy \"p\" {\n  on = [\"file.modify\"]\n  target {\n    condition = vm.|\n", []string{"vm.name", "vm.metadata"}, []string{"file.path"}},
		{"arguments that are not there yet", "policy \"p\" {\n  on = [\"file.modify\"]\n  |\n}\n", []string{"severity", "condition", "cooldown", "sequence"}, []string{"on", "period", "file.path"}},
		{"arguments of a block", "policy \"p\" {\n  cooldown {\n    p|\n  }\n}\n", []string{"period", "by"}, []string{"severity"}},
		{"blocks of a file", head + "|", []string{"policy", "macro", "list"}, []string{"cooldown"}},
		{"values", "policy \"p\" {\n  severity = \"|\"\n}\n", []string{"critical"}, []string{"audit"}},
		{"kinds of actions", "policy \"p\" {\n  action \"|\"\n}\n", []string{"alert", "pause"}, nil},
		{"in a message", "policy \"p\" {\n  on = [\"network.connect\"]\n  action \"alert\" {\n    message = \"to ${destination.|", []string{"destination.ip"}, []string{"file.path"}},
		{"plain text", "policy \"p\" {\n  title = \"fil|\"\n}\n", nil, []string{"file.path"}},
		{"steps", "policy \"p\" {\n  sequence {\n    step \"a\" {\n      on = [\"file.create\"]\n    }\n    step \"b\" {\n      on = [\"process.exec\"]\n      condition = process.executable == step.|\n    }\n  }\n}\n", []string{"step.a", "step.b"}, []string{"file.path"}},
		{"fields of a step", "policy \"p\" {\n  sequence {\n    step \"a\" {\n      on = [\"file.create\"]\n    }\n    step \"b\" {\n      condition = step.a.file.|\n    }\n  }\n}\n", []string{"step.a.file.path", "step.a.count"}, []string{"step.a.destination.ip"}},
		{"after what does not parse", "policy \"q\" {\n  on = [\n}\npolicy \"p\" {\n  severity = \"|", []string{"high"}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			e.t = t
			var items []completionItem
			p := e.at("c.policy.hcl", c.text)
			e.call("textDocument/completion", p, &items)
			var labels []string
			for _, it := range items {
				labels = append(labels, it.Label)
				if it.TextEdit == nil || it.TextEdit.Range.End != p.Position {
					t.Errorf("%s replaces %+v", it.Label, it.TextEdit)
				}
			}
			for _, w := range c.want {
				if !slices.Contains(labels, w) {
					t.Errorf("%q is not offered: %v", w, labels)
				}
			}
			for _, n := range c.not {
				if slices.Contains(labels, n) {
					t.Errorf("%q is offered", n)
				}
			}
		})
	}
}

func TestCompletionInTests(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared, "p.policy.hcl": whole})
	const vm = "vm \"web\" {\n}\n"
	for _, c := range []struct {
		what, text string
		want, not  []string
	}{
		{"blocks of a file", "|", []string{"test", "vm"}, []string{"policy"}},
		{"arguments of a test", "test \"t\" {\n  policy = \"p\"\n  |\n}\n", []string{"vm", "event", "expect"}, []string{"policy", "severity"}},
		{"policies", "test \"t\" {\n  policy = \"|\"\n}\n", []string{"p"}, []string{"is_shell"}},
		{"domains", vm + "test \"t\" {\n  vm = \"|\"\n}\n", []string{"web"}, nil},
		{"event types", "test \"t\" {\n  event \"|\"\n}\n", []string{"file.modify"}, nil},
		{"groups of fields", "test \"t\" {\n  event \"file.modify\" {\n    |\n  }\n}\n", []string{"file", "process", "at"}, []string{"destination", "file.path"}},
		{"fields of a group", "test \"t\" {\n  event \"file.modify\" {\n    file = { path = \"/x\", | }\n  }\n}\n", []string{"size", "hash"}, []string{"executable", "file.size"}},
		{"fields of a group in a group", "test \"t\" {\n  event \"process.exec\" {\n    process = {\n      name = \"x\"\n      parent = { ex|", []string{"executable", "name"}, []string{"working"}},
		{"values are the author's", "test \"t\" {\n  event \"process.exec\" {\n    process = { name = |", nil, []string{"executable"}},
		{"values of a field", "test \"t\" {\n  event \"network.connect\" {\n    network = { direction = \"|", []string{"egress"}, nil},
		{"expectations", "test \"t\" {\n  expect {\n    m|\n  }\n}\n", []string{"matched", "message"}, nil},
		{"actions", "test \"t\" {\n  expect {\n    actions = [\"|\n", []string{"alert"}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			e.t = t
			var items []completionItem
			e.call("textDocument/completion", e.at("c.policytest.hcl", c.text), &items)
			var labels []string
			for _, it := range items {
				labels = append(labels, it.Label)
			}
			for _, w := range c.want {
				if !slices.Contains(labels, w) {
					t.Errorf("%q is not offered: %v", w, labels)
				}
			}
			for _, n := range c.not {
				if slices.Contains(labels, n) {
					t.Errorf("%q is offered", n)
				}
			}
		})
	}
}

// What completion offers is put in the place of the whole name.
func TestCompletionEdit(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared})
	var items []completionItem
	e.call("textDocument/completion", e.at("c.policy.hcl", "policy \"p\" {\n  condition = !file.pa|\n}\n"), &items)
	i := slices.IndexFunc(items, func(it completionItem) bool { return it.Label == "file.path" })
	if i < 0 || items[i].TextEdit.Range.Start != (position{1, 15}) || items[i].TextEdit.NewText != "file.path" || !strings.Contains(items[i].Documentation.Value, "fd.name") {
		t.Errorf("items: %+v", items)
	}
}

func TestHover(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared})
	for text, want := range map[string]string{
		"policy \"p\" {\n  condition = process.exec|utable == \"x\"\n}\n":         "Resolved path of the executable.",
		"policy \"p\" {\n  condition = vm.metadata.zo|ne == \"x\"\n}\n":           "**vm.metadata**",
		"policy \"p\" {\n  condition = under|(file.path, \"/etc\")\n}\n":          "gives a bool",
		"policy \"p\" {\n  condition = macro.is_s|hell\n}\n":                      "contains(list.shells, process.executable)",
		"policy \"p\" {\n  sev|erity = \"low\"\n}\n":                              "informational, low, medium",
		"policy \"p\" {\n  cool|down {\n  }\n}\n":                                 "One verdict for each key",
		"policy \"p\" {\n  on = [\"file.mod|ify\"]\n}\n":                          "**file.modify**, an event of the guest",
		"policy \"p\" {\n  action \"pau|se\" {}\n}\n":                             "virDomainSuspend",
		"policy \"p\" {\n  action \"alert\" {\n    message = \"${file.pa|th}\"\n": "Path of the file",
		"policy \"p\" {\n  title = \"proc|ess.executable\"\n}\n":                  "",
		"policy \"p\" {\n  condition = nosuch.fie|ld\n}\n":                        "",
	} {
		var h *hover
		e.call("textDocument/hover", e.at("h.policy.hcl", text), &h)
		got := ""
		if h != nil {
			got = h.Contents.Value
		}
		if want == "" && h != nil || !strings.Contains(got, want) {
			t.Errorf("%s\nhover %q, want %q", text, got, want)
		}
	}
}

func TestDefinitionAndRename(t *testing.T) {
	e := newEditor(t, map[string]string{"00.policy.hcl": shared, "p.policy.hcl": whole})
	for text, want := range map[string]string{
		"policy \"p\" {\n  condition = macro.is_sh|ell\n}\n":                   "is_shell",
		"policy \"p\" {\n  condition = contains(list.|shells, file.path)\n}\n": "shells",
		"policy \"p\" {\n  target {\n    names = lo|cal.webs\n  }\n}\n":        "webs",
	} {
		var at []location
		e.call("textDocument/definition", e.at("d.policy.hcl", text), &at)
		if len(at) != 1 || at[0].URI != e.uri("00.policy.hcl") {
			t.Fatalf("%s: %v", text, at)
		}
		if got := shared[offset([]byte(shared), at[0].Range.Start):offset([]byte(shared), at[0].Range.End)]; got != want {
			t.Errorf("%s leads to %q", text, got)
		}
	}
	var edit workspaceEdit
	p := e.at("d.policy.hcl", "policy \"d\" {\n  condition = macro.is_sh|ell || !macro.is_shell\n}\n")
	e.call("textDocument/rename", renameParams{p, "shell"}, &edit)
	if len(edit.Changes) != 3 || len(edit.Changes[e.uri("d.policy.hcl")]) != 2 || edit.Changes[e.uri("p.policy.hcl")][0].Range.Start != (position{2, 20}) {
		t.Errorf("rename: %+v", edit)
	}
	for _, name := range []string{"Not Valid", ""} {
		if _, err := e.client.Call(context.Background(), "textDocument/rename", renameParams{p, name}); err == nil {
			t.Errorf("renamed to %q", name)
		}
	}
	var all []location
	e.call("textDocument/references", p, &all)
	if len(all) != 4 {
		t.Errorf("references: %v", all)
	}
	var symbols []documentSymbol
	e.open("00.policy.hcl", shared)
	e.call("textDocument/documentSymbol", documentParams{documentID{URI: e.uri("00.policy.hcl")}}, &symbols)
	var names []string
	for _, s := range symbols {
		names = append(names, s.Detail+" "+s.Name)
	}
	if got := strings.Join(names, ", "); got != "list shells, local webs, macro is_shell" {
		t.Errorf("symbols: %s", got)
	}
}

func TestFormatting(t *testing.T) {
	e := newEditor(t, nil)
	for text, want := range map[string]int{"policy   \"p\" {\n on=[]\n}\n": 1, "policy \"p\" {\n  on = []\n}\n": 0, "policy \"p\" {": 0} {
		e.open("f.policy.hcl", text)
		var edits []textEdit
		e.call("textDocument/formatting", documentParams{documentID{URI: e.uri("f.policy.hcl")}}, &edits)
		if len(edits) != want || want == 1 && edits[0].NewText != "policy \"p\" {\n  on = []\n}\n" {
			t.Errorf("%q: %+v", text, edits)
		}
	}
}

// Requests about what is not open, or no file, are refused and do no harm.
func TestRefused(t *testing.T) {
	e := newEditor(t, nil)
	for _, uri := range []string{e.uri("x.policy.hcl"), "https://example.org/x.policy.hcl", "::"} {
		if _, err := e.client.Call(context.Background(), "textDocument/hover", positionParams{TextDocument: documentID{URI: uri}}); err == nil {
			t.Errorf("hover in %s", uri)
		}
	}
	if _, err := e.client.Call(context.Background(), "workspace/executeCommand", map[string]any{}); err == nil {
		t.Error("a method that is not there was called")
	}
}

// Messages of any length are refused before memory is taken for them.
func TestFrames(t *testing.T) {
	for text, ok := range map[string]bool{
		"Content-Length: 2\r\n\r\n{}":                            true,
		"content-length: 2\r\nContent-Type: x\r\n\r\n{}":         true,
		"Content-Length: 99999999999\r\n\r\n{}":                  false,
		"Content-Length: 8388609\r\n\r\n{}":                      false,
		"Content-Length: -1\r\n\r\n{}":                           false,
		"Content-Length: 3\r\n\r\n{}":                            false,
		"X: y\r\n\r\n{}":                                         false,
		strings.Repeat("X: "+strings.Repeat("y", 99)+"\r\n", 90): false,
		strings.Repeat("y", 2*maxHeader):                         false,
	} {
		got, err := readMessage(bufio.NewReaderSize(strings.NewReader(text), maxHeader))
		if ok != (err == nil) || ok && string(got) != "{}" {
			t.Errorf("%.40q: %q, %v", text, got, err)
		}
	}
}

// The server ends with its context, though its input does not.
func TestEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in, feed := io.Pipe()
	out, answers := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, in, answers, "test") }()
	cancel()
	if _, err := io.ReadAll(out); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	feed.Close()
}

// Every word of the language has a text, so that a new one does not go
// without.
func TestWords(t *testing.T) {
	see := func(block, label string) {
		shape, ok := policy.ShapeOf(block, label)
		if !ok {
			t.Errorf("there is no block %s %s", block, label)
		}
		for _, a := range shape.Arguments {
			if _, ok := lookup(argumentDocs, block, a); !ok {
				t.Errorf("nothing is said of the argument %q of %s %s", a, block, label)
			}
		}
		for _, b := range shape.Blocks {
			if blockDocs[b] == "" {
				t.Errorf("nothing is said of the block %q", b)
			}
		}
	}
	for _, b := range []string{"", "bundle", "list", "macro", "policy", "target", "exception", "approval", "threshold", "sequence", "step", "reset", "first_seen", "cooldown", "limit", "prevent", "escalate"} {
		see(b, "")
	}
	for _, b := range []string{"", "vm", "test", "approval", "event", "recorded", "expect"} {
		shape, ok := policy.TestShapeOf(b)
		if !ok {
			t.Errorf("there is no block %s in tests", b)
		}
		for _, a := range append(slices.Clone(shape.Arguments), shape.Blocks...) {
			if testDocs[a] == "" {
				t.Errorf("nothing is said of %q in %s of tests", a, b)
			}
		}
	}
	for _, k := range policy.ActionKinds {
		if see("action", k); blockDocs["action "+k] == "" {
			t.Errorf("nothing is said of the action %q", k)
		}
	}
}

// Whatever is typed, looking at it neither fails nor takes long.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{shared, whole, "policy \"p\" {\n  x = \"${\"${", "}}}}", "a = <<X\n${", "\"\n\"\n{"} {
		f.Add([]byte(s), len(s)/2)
	}
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		if len(text) > 1<<12 {
			return
		}
		at = max(0, min(at, len(text)))
		b := &bundle{fsys: policy.Overlay(nil, map[string][]byte{"a.policy.hcl": text})}
		if _, err := json.Marshal(complete(b, "a.policy.hcl", text, at, true)); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(complete(b, "a.policytest.hcl", text, at, false)); err != nil {
			t.Error(err)
		}
		quotedDoc(text, at)
		for _, d := range definitionsIn("a.policy.hcl", text) {
			if d.start > d.end || d.from > d.to || d.to > len(text) {
				t.Errorf("definition %+v in %d bytes", d, len(text))
			}
		}
		if r, ok := referenceAt(text, at); ok && (r.start > at || r.end < at) {
			t.Errorf("reference %+v at %d", r, at)
		}
		if p := positionOf(text, at); offset(text, p) > at {
			t.Errorf("byte %d is at %v, which is byte %d", at, p, offset(text, p))
		}
	})
}
