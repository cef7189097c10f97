package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/provostd/provost/introspect/daemon"
)

const example = "examples/provostd.hcl"

// setting is a line of the example that is commented out: "# name = value".
var setting = regexp.MustCompile(`(?m)^(\s*)#( +)([a-z_]+\s+=\s.*|[a-z_]+ (?:"[^"]*" )?\{|\})$`)

func load(t *testing.T, text string) *daemon.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "provostd.hcl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, diags := daemon.ReadConfig(name)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", example, diags)
	}
	return c
}

// TestExampleConfig loads the annotated example, as it is and with every
// setting that is commented out put in force: both must be valid, and the
// latter must be the defaults.
func TestExampleConfig(t *testing.T) {
	text := read(t, example)
	load(t, text)
	all := setting.ReplaceAllString(text, "$1$3")
	c := load(t, all)
	for _, name := range settings(reflect.TypeOf(*c), "") {
		block, attr, isBlock := strings.Cut(name, ".")
		if !isBlock {
			block, attr = "", name
		}
		if !mentions(all, block, attr) {
			t.Errorf("%s does not explain the setting %s: it is where operators look first", example, name)
		}
	}
	want := load(t, "host_id = \"kvm1.example.net\"\n")
	for _, f := range []struct{ name, got, want string }{
		{"state_dir", c.StateDir, want.StateDir},
		{"anchor", c.Anchor, want.Anchor},
		{"payload_keys", c.PayloadKeys, want.PayloadKeys},
		{"mode", c.Mode, want.Mode},
		{"log_level", c.LogLevel, want.LogLevel},
		{"libvirt.uri", c.Libvirt.URI, want.Libvirt.URI},
		{"libvirt.run_dir", c.Libvirt.RunDir, want.Libvirt.RunDir},
		{"libvirt.config_dir", c.Libvirt.ConfigDir, want.Libvirt.ConfigDir},
		{"libvirt.save_dir", c.Libvirt.SaveDir, want.Libvirt.SaveDir},
		{"api.socket", c.API.Socket, want.API.Socket},
		{"api.listen", c.API.Listen, want.API.Listen},
	} {
		if f.got != f.want {
			t.Errorf("%s shows %s = %q, its default is %q", example, f.name, f.got, f.want)
		}
	}
	// Durations are completed by the parts that use them; config.go documents them.
	documented := regexp.MustCompile(`hcl:"(\w+),optional"` + "`" + `\s*//.*?default (\d+[smh])\b`)
	n := 0
	for _, m := range documented.FindAllStringSubmatch(read(t, "introspect/daemon/config.go"), -1) {
		n++
		if !regexp.MustCompile(`(?m)^\s*` + m[1] + `\s+= "` + m[2] + `"`).MatchString(all) {
			t.Errorf("%s does not show %s with its default %q", example, m[1], m[2])
		}
	}
	if n < 4 {
		t.Errorf("only %d documented durations were found in config.go: the search is broken", n)
	}
}

// settings returns the names of all settings, in blocks as block.name.
func settings(typ reflect.Type, block string) []string {
	var all []string
	for f := range typ.Fields() {
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if name == "" {
			continue
		}
		switch kind {
		case "label":
		case "block":
			inner := f.Type
			if inner.Kind() != reflect.Struct {
				inner = inner.Elem()
			}
			outer := block // a block in a block is explained inside it
			if outer == "" {
				outer = name + "."
			}
			all = append(all, settings(inner, outer)...)
		default:
			all = append(all, block+name)
		}
	}
	return all
}

// mentions reports whether text sets attr, in the named block or outside any.
func mentions(text, block, attr string) bool {
	body := regexp.MustCompile(`(?ms)^[a-z_]+( "[^"]*")? \{$.*?^\}$`).ReplaceAllString(text, "")
	if block != "" {
		body = "" // of all its blocks: each may have another type
		for _, m := range regexp.MustCompile(`(?ms)^`+block+`( "[^"]*")? \{$(.*?)^\}$`).FindAllStringSubmatch(text, -1) {
			body += m[2]
		}
	}
	return regexp.MustCompile(`(?m)^\s*` + attr + `\s+=`).MatchString(body)
}

// TestUnit has systemd check the daemon's unit.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: make setup installs it (Debian package systemd)")
	}
	// The program need not be installed where this runs.
	unit := filepath.Join(t.TempDir(), "provostd.service")
	text := strings.ReplaceAll(read(t, "deploy/provostd.service"), "/usr/bin/provostd", "/bin/true")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dropin := unit + ".d/egress.conf"
	if err := os.MkdirAll(filepath.Dir(dropin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dropin, []byte(read(t, "deploy/provostd-egress.conf")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	// Units of the machine it runs on may have faults of their own.
	if err != nil || strings.Contains(string(out), "provostd.service:") || strings.Contains(string(out), "egress.conf") {
		t.Errorf("systemd does not take deploy/provostd.service: %v\n%s", err, out)
	}
	// What the units leave their programs: 0 is everything taken away, 10 nothing.
	for unit, most := range map[string]string{"provostd.service": "25", "provost-agent.service": "75"} {
		out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold="+most, filepath.Join(root, "deploy", unit)).CombinedOutput()
		if err != nil {
			t.Errorf("deploy/%s leaves its program more than %s tenths: %v\n%s", unit, most, err, out)
		}
	}
}
