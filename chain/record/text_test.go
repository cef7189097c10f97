package record

import (
	"strings"
	"testing"
)

// TestPrintable holds that no byte of a guest reaches a terminal as a command.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/passwd":  "/etc/passwd",
		"Zürich 東京":    "Zürich 東京",
		"\x1b[2Jx":     `"\x1b[2Jx"`,
		"a\nb":         `"a\nb"`,
		"\xff":         `"\xff"`,
		"\u202etxt":    `"\u202etxt"`,
		"\u009b31m":    `"\u009b31m"`,
		"":             "",
		"\u200bhidden": `"\u200bhidden"`,
	} {
		if got := Printable([]byte(in)); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// TestTextIsOneLine holds the same of every record's text.
func TestTextIsOneLine(t *testing.T) {
	evil := []byte("x\x1b]0;y\x07\nz")
	p := &Process{Pid: 1, Executable: evil, Name: evil, Args: [][]byte{evil}}
	e := &Event{Network: &Network{Protocol: string(evil)}, Process: p, Parent: p, File: &File{Path: evil}, Target: &File{Path: evil}, Vm: &VM{Name: string(evil), Detail: string(evil)}, Reason: string(evil)}
	for _, s := range []string{Text(ClassProcessExec, e), Text(ClassFileRename, e), Text(ClassAgentRefused, &AgentState{Reason: string(evil)}),
		Text(ClassAgentHooks, &Hooks{Mode: string(evil), Kernel: string(evil)}), Text(ClassAgentDropped, &Lost{Author: string(evil), Detail: string(evil)})} {
		if strings.ContainsAny(s, "\x1b\x07\n") {
			t.Errorf("text holds control characters: %q", s)
		}
	}
}
