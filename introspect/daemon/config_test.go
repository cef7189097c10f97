package daemon

import (
	"strings"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	c, _, diags := parseConfig([]byte("host_id = \"kvm1\"\n"), "provostd.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if c.StateDir != "/var/lib/provost" || c.Mode != "enforce" || c.API.Listen != "127.0.0.1:9477" || c.Libvirt.URI != "qemu:///system" {
		t.Errorf("defaults are %+v", c)
	}
}

func TestConfigValues(t *testing.T) {
	c, _, diags := parseConfig([]byte(`
host_id = "kvm1"
guest {
  silent_after = "30s"
}
checkpoints {
  quote = "5s"
}
domain "11111111-2222-4333-8444-555555555555" {
  mode = "audit"
}
`), "provostd.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if c.Guest.silentAfter != 30*time.Second || c.Checkpoints.quote != 5*time.Second || len(c.Domains) != 1 {
		t.Errorf("values are %+v", c)
	}
}

// TestConfigProblems holds that every mistake is named with its place, all in
// one run.
func TestConfigProblems(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"misspelt", `host_id = "h"` + "\nstate_dri = \"/x\"\n", `An argument named "state_dri" is not expected here`},
		{"relative path", `host_id = "h"` + "\nstate_dir = \"x\"\n", "Path is not absolute"},
		{"anchor in the store", `host_id = "h"` + "\nstate_dir = \"/a\"\nanchor = \"/a/b\"\n", "would be rolled back together"},
		{"mode", `host_id = "h"` + "\nmode = \"enfroce\"\n", `"enfroce" is none of off, audit, enforce`},
		{"host", `host_id = "a b"`, "Host id cannot be used"},
		{"duration", `host_id = "h"` + "\nguest {\n  silent_after = \"soon\"\n}\n", `"soon" is no duration`},
		{"address", `host_id = "h"` + "\napi {\n  listen = \"9477\"\n}\n", "Listen address cannot be used"},
		{"uuid", `host_id = "h"` + "\ndomain \"web\" {\n  mode = \"off\"\n}\n", "virsh domuuid"},
		{"uuid twice", `host_id = "h"` + "\ndomain \"ABCDEF00-0000-4000-8000-000000000001\" {\n  mode = \"off\"\n}\ndomain \"abcdef00-0000-4000-8000-000000000001\" {\n  mode = \"audit\"\n}\n", "limited twice"},
		{"too silent", `host_id = "h"` + "\nguest {\n  silent_after = \"2s\"\n}\n", "from 6s"},
		{"syntax", `host_id = `, "Missing expression"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg, _, diags := parseConfig([]byte(c.text), "provostd.hcl")
			if cfg != nil || !diags.HasErrors() || !strings.Contains(diags.Error(), c.want) {
				t.Errorf("got %v, want %q", diags, c.want)
			}
			for _, d := range diags {
				if d.Subject == nil {
					t.Errorf("%q has no place", d.Summary)
				}
			}
		})
	}
	_, _, diags := parseConfig([]byte("host_id = \"a b\"\nmode = \"x\"\nstate_dir = \"y\"\n"), "provostd.hcl")
	if len(diags) < 3 {
		t.Errorf("%d problems are told of three", len(diags))
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("host_id = \"h\"\nguest {\n  silent_after = \"3s\"\n}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, diags := parseConfig(b, "x.hcl")
		if (c == nil) != diags.HasErrors() {
			t.Errorf("configuration %v with %v", c, diags)
		}
	})
}
