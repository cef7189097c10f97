package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/guestagent/probe"
)

// The guest agent is small and has nothing in it that serves or evaluates: a
// guest's administrator should be able to know what runs there as root.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, no := range []string{
			"net/http", "github.com/cockroachdb/pebble", "github.com/hashicorp/hcl", "libvirt.org/go",
			"github.com/prometheus", "github.com/zclconf/go-cty", "github.com/provostd/provost/introspect",
			"github.com/provostd/provost/rules", "runtime/cgo",
		} {
			if dep == no || strings.HasPrefix(dep, no+"/") {
				t.Errorf("links %s: the agent runs as root in every guest and must do no more than observe, sign and send", dep)
			}
		}
		if dep == "github.com/provostd/provost/chain" {
			t.Errorf("links %s: the ledger is the host's", dep)
		}
	}
}

func TestStatic(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "provost-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v1.2.3", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 8<<20 {
		t.Errorf("binary has %d bytes, limit 8 MiB", st.Size())
	}
	out, err := exec.Command(bin, "-version").Output()
	if err != nil || string(out) != "provost-agent v1.2.3\n" {
		t.Errorf("-version: %q %v", out, err)
	}
}

func config(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "agent.conf")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSettings(t *testing.T) {
	p := config(t, "# comment\n\nport = /dev/vport1p1\nmode=tracepoint\nlog-level = debug\n")
	s, err := parse([]string{"-config", p, "-mode", "lsm", "-queue-bytes", "1000000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s.port != "/dev/vport1p1" || s.mode != probe.ModeLSM || s.logLevel != slog.LevelDebug || s.queueBytes != 1000000 {
		t.Errorf("settings %+v", s)
	}
	s, err = parse(nil, io.Discard)
	if err != nil || s.port != "org.provost.0" || s.mode != probe.ModeAuto || s.queueBytes != 8<<20 {
		t.Errorf("defaults %+v, %v", s, err)
	}
}

func TestSettingsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"prot = x":             "no setting \"prot\"",
		"port":                 ":1: \"port\" is not of the form",
		"\nport = a\nport = b": ":3: port is set twice",
		"queue-bytes = many":   "set queue-bytes",
		"queue-bytes = 5":      "want 65536",
		"protect = maybe":      "want on or off",
		"spool-bytes = 5":      "want 0, or 1048576",
		"spool-bytes = 1048576\nqueue-bytes = 65536":       "with a spool want at least",
		"spool-bytes = 1048576\nspool-directory = var/lib": "want an absolute path",
		"mode = fanotify":         "want auto, lsm or tracepoint",
		"log-level = loud":        "want debug, info, warn or error",
		"port =":                  "port is empty",
		"config = /etc/elsewhere": "no setting \"config\"",
	} {
		if _, err := parse([]string{"-config", config(t, text)}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
	if _, err := parse([]string{"-config", "/no/such/file"}, io.Discard); err == nil {
		t.Error("a configuration that is named and missing is accepted")
	}
	if _, err := parse([]string{"serve"}, io.Discard); err == nil {
		t.Error("an argument is accepted")
	}
}

func TestRun(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-version"}, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "provost-agent ") {
		t.Errorf("-version: %d %q", code, &out)
	}
	if code := run(t.Context(), []string{"-mode", "x"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), "provost-agent: parse mode") {
		t.Errorf("bad mode: %d %q", code, &errs)
	}
	if code := run(t.Context(), []string{"-help"}, &out, &errs); code != 0 {
		t.Errorf("-help: %d", code)
	}
}

// The sample configuration and the unit that are shipped hold what the agent
// knows, and the sample says its defaults.
func TestDeployed(t *testing.T) {
	sample, err := os.ReadFile("../../deploy/agent.conf")
	if err != nil {
		t.Fatal(err)
	}
	var set []string
	for line := range strings.Lines(string(sample)) {
		if s, ok := strings.CutPrefix(line, "#"); ok && strings.Contains(s, " = ") && s[0] != ' ' {
			set = append(set, strings.TrimSpace(s))
		} else if strings.TrimSpace(line) != "" && !ok {
			t.Errorf("the sample sets something: %q", line)
		}
	}
	got, err := parse([]string{"-config", config(t, strings.Join(set, "\n"))}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(set) != 13 || got != want {
		t.Errorf("sample says %v: %+v, defaults are %+v", set, got, want)
	}
	unit, err := os.ReadFile("../../deploy/provost-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ExecStart=/usr/bin/provost-agent", "Restart=on-failure", "TimeoutStopSec=", "SendSIGKILL=no", "MemorySwapMax=0"} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("unit has no %s", want)
		}
	}
}
