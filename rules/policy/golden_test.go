package policy

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("%s:%d: got\n%s\nwant\n%s\n(-rewrite rewrites the file)", file, i+1, g[i], w[i])
			}
		}
		t.Fatalf("%s: %d lines, want %d", file, len(g), len(w))
	}
}

// Every kind of mistake, all in one run, as people and as programs see them.
func TestDiagnosticsGolden(t *testing.T) {
	b, diags := Load("testdata/broken")
	if b != nil {
		t.Fatal("a broken bundle was loaded")
	}
	var text bytes.Buffer
	if err := WriteDiagnostics(&text, diags, Sources("testdata/broken", diags), 0, false); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/broken.txt", text.Bytes())
	data, err := DiagnosticsJSON(diags)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/broken.json", data)

	seen := make(map[Code]bool)
	for _, d := range diags {
		seen[DetailOf(d).Code] = true
	}
	for _, c := range allCodes {
		if !seen[c] && c != CodeTooComplex && c != CodeBundle && c != CodeExpired { // see TestRefused, TestExpiring
			t.Errorf("no diagnostic of testdata/broken has the code %s", c)
		}
	}
}

// Without colour the wrong part is underlined, with colour it is painted too.
func TestDiagnosticsColor(t *testing.T) {
	_, diags := Load("testdata/broken")
	var text bytes.Buffer
	if err := WriteDiagnostics(&text, diags[:1], Sources("testdata/broken", diags), 40, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "\x1b[") {
		t.Error("no colour")
	}
}
