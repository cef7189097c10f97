package lineage

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostileGraph has every field that a guest chooses filled with s.
func hostileGraph(s string) *Graph {
	uid := uint32(7)
	return &Graph{Start: "a", Back: true, Forward: true,
		Nodes: []*Node{
			{ID: "a", Kind: File, Domain: "d", Path: Text(s)},
			{ID: "b", Kind: Process, Domain: "d", Pid: 5, Executable: Text(s), Args: []Text{Text(s), nil}, UID: &uid, Cut: []string{CutDepth}},
			{ID: "c", Kind: Address, Address: "192.0.2.7:443", Name: Text(s)},
		},
		Edges: []*Edge{
			{From: "b", To: "a", Class: "file.modify", Count: 3, Back: true},
			{From: "c", To: "b", Class: "network.connect", Count: 1, Back: true},
			{From: "a", To: "b", Class: "process.exec", Count: 1, Forward: true},
			{From: "b", To: "c", Class: "network.connect", Count: 1, Forward: true},
			{From: "b", To: "b", Class: "process.trace", Count: 1, Forward: true}, // a circle
		}}
}

var hostile = []string{"\x1b[2J\r\n", `" ]; evil [label="`, `\`, `\N \G`, "\u202etxt.exe", "a\nb -> c", "\xff\xfe", "base64:AAAA", "</svg><script>", "x(1): file.modify, entry 9"}

// plain reports whether a text can go to a terminal.
func plain(s string) bool {
	for _, r := range s {
		if r != '\n' && (r == utf8.RuneError || !unicode.IsPrint(r)) {
			return false
		}
	}
	return true
}

// FuzzWrite gives guests every freedom: lines stay lines, quotations end where
// they should, JSON is JSON and brings the same bytes back.
func FuzzWrite(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g := hostileGraph(s)
		var text, dot, prov bytes.Buffer
		for _, err := range []error{g.WriteText(&text), g.WriteDOT(&dot), g.WritePROV(&prov)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if !plain(text.String()) || strings.Count(text.String(), "\n") != 7 {
			t.Errorf("text leaves its lines: %q", text.String())
		}
		if !plain(dot.String()) || strings.Count(dot.String(), "\n") != 4+len(g.Nodes)+len(g.Edges)+1 {
			t.Errorf("DOT leaves its lines: %q", dot.String())
		}
		for line := range strings.Lines(dot.String()) {
			if rest := outside(line); strings.Contains(line, "[shape") && rest != "" && (strings.Count(rest, "[") != 1 || strings.Count(rest, "]") != 1) {
				t.Errorf("a label ends too early: %q", line)
			}
		}
		var doc map[string]map[string]map[string]any
		var prefix map[string]any
		if err := json.Unmarshal(prov.Bytes(), &prefix); err != nil || len(prefix) < 6 {
			t.Errorf("PROV-JSON: %v", err)
		}
		delete(prefix, "prefix")
		again, err := json.Marshal(prefix)
		if err != nil || json.Unmarshal(again, &doc) != nil || doc["wasGeneratedBy"] == nil || doc["used"] == nil || doc["agent"] == nil {
			t.Errorf("PROV-JSON: %s", prov.Bytes())
		}
		b, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		var back Graph
		if err := json.Unmarshal(b, &back); err != nil || string(back.Nodes[0].Path) != s {
			t.Errorf("%q comes back as %q: %v", s, back.Nodes[0].Path, err)
		}
	})
}

// outside returns what of a line stands outside of quotations.
func outside(line string) string {
	var b strings.Builder
	in := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case in && c == '\\':
			i++
		case c == '"':
			in = !in
		case !in:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TestCheck refuses graphs that cannot be written.
func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*Graph){
		"start":  func(g *Graph) { g.Start = "z" },
		"twice":  func(g *Graph) { g.Nodes[1].ID = "a" },
		"to":     func(g *Graph) { g.Edges[0].To = "z" },
		"from":   func(g *Graph) { g.Edges[0].From = "z" },
		"nobody": func(g *Graph) { g.Nodes = nil },
	} {
		g := hostileGraph("x")
		change(g)
		var out bytes.Buffer
		if g.WriteText(&out) == nil || g.WriteDOT(&out) == nil || g.WritePROV(&out) == nil || out.Len() > 0 {
			t.Errorf("%s: a broken graph is written", name)
		}
	}
}
