package daemon

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/guest"
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
  heartbeat = "5s"
  covers = ["process.exec", "file.rename"]
  probe = "lsm"
}
checkpoints {
  quote = "5s"
}
domain "11111111-2222-4333-8444-555555555555" {
  mode = "audit"
}
domain "11111111-2222-4333-8444-555555555556" {
  silent_after = "1m"
  boot_grace = "10m"
  covers = []
  probe = "any"
}
`), "provostd.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	plain := guest.Duty{SilentAfter: 30 * time.Second, Covers: []record.Class{record.ClassProcessExec, record.ClassFileRename}, LSM: true}
	if d := c.duty(c.Domains[0].id); !reflect.DeepEqual(d, plain) || c.Guest.heartbeat != 5*time.Second {
		t.Errorf("a domain without words of its own owes %+v", d)
	}
	if d := c.duty(c.Domains[1].id); d.SilentAfter != time.Minute || d.BootGrace != 10*time.Minute || len(d.Covers) != 0 || d.LSM || c.Domains[1].Mode != "enforce" {
		t.Errorf("a domain with words of its own owes %+v", d)
	}
	if c.Guest.silentAfter != 30*time.Second || c.Checkpoints.quote != 5*time.Second || len(c.Domains) != 2 {
		t.Errorf("values are %+v", c)
	}
}

// listener is a listener with a setting, and an identity unless it is empty.
func listener(setting, identity string) string {
	s := "\nlistener \"0.0.0.0:9478\" {\n  certificate = \"/a\"\n  key = \"/b\"\n  " + setting + "\n}\n"
	if identity != "" {
		s += "identity \"a\" {\n  " + identity + "\n}\n"
	}
	return s
}

// TestConfigProblems holds that every mistake is named with its place, all in
// one run.
func TestConfigProblems(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"misspelt", `host_id = "h"` + "\nstate_dri = \"/x\"\n", `An argument named "state_dri" is not expected here`},
		{"relative path", `host_id = "h"` + "\nstate_dir = \"x\"\n", "Path is not absolute"},
		{"anchor in the store", `host_id = "h"` + "\nstate_dir = \"/a\"\nanchor = \"/a/b\"\n", "would be rolled back together"},
		{"silence below the heartbeats", `host_id = "h"` + "\nguest {\n  heartbeat = \"10s\"\n  silent_after = \"20s\"\n}\n", "no duration from 30s"},
		{"covers what no agent sees", `host_id = "h"` + "\nguest {\n  covers = [\"vm.start\"]\n}\n", "Event type cannot be covered"},
		{"probe", `host_id = "h"` + "\nguest {\n  probe = \"kprobe\"\n}\n", "none of lsm, any"},
		{"mode", `host_id = "h"` + "\nmode = \"enfroce\"\n", `"enfroce" is none of off, audit, enforce`},
		{"host", `host_id = "a b"`, "Host id cannot be used"},
		{"duration", `host_id = "h"` + "\nguest {\n  silent_after = \"soon\"\n}\n", `"soon" is no duration`},
		{"address", `host_id = "h"` + "\napi {\n  listen = \"9477\"\n}\n", "Listen address cannot be used"},
		{"plain HTTP", `host_id = "h"` + "\napi {\n  listen = \"0.0.0.0:9477\"\n}\n", "plain HTTP, which anybody on the way can read"},
		{"plain HTTP for a name", `host_id = "h"` + "\napi {\n  listen = \"kvm1.example.net:9477\"\n}\n", "plain HTTP, which anybody on the way can read"},
		{"plain HTTP for all", `host_id = "h"` + "\napi {\n  listen = \":9477\"\n}\n", "plain HTTP, which anybody on the way can read"},
		{"limits", `host_id = "h"` + "\napi {\n  connections = -1\n}\n", "Limit is negative"},
		{"listener without certificate", `host_id = "h"` + "\nlistener \":1\" {\n  tokens = true\n}\n", `The argument "certificate" is required`},
		{"listener for nobody", `host_id = "h"` + listener("", ""), "lets nobody in"},
		{"listener without port", `host_id = "h"` + strings.Replace(listener("tokens = true", ""), ":9478", "", 1), "Listen address cannot be used"},
		{"listener twice", `host_id = "h"` + listener("tokens = true", "") + listener("tokens = true", ""), "described twice"},
		{"limit of all", "host_id = \"h\"\napi {\n  expensive_requests_all = 7\n}\n", "Limit of all is too small"},
		{"lists without CA", `host_id = "h"` + listener("tokens = true\n  client_crl = [\"/l\"]", ""), "Revocation lists cannot be used"},
		{"list somewhere", `host_id = "h"` + listener("client_ca = \"/c\"\n  client_crl = [\"l\"]", ""), "Path is not absolute"},
		{"identity without CA", `host_id = "h"` + listener("tokens = true", "role = \"auditor\"\n  certificates = [\"cn:a\"]"), "known to no listener"},
		{"identity without certificates", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"auditor\"\n  certificates = []"), "known to no listener"},
		{"identity of no role", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"root\"\n  certificates = [\"cn:a\"]"), "is none of operator, auditor, tenant"},
		{"tenant of nothing", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"tenant\"\n  certificates = [\"cn:a\"]"), "sees no domain"},
		{"tenant of a name", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"tenant\"\n  domains = [\"web\"]\n  certificates = [\"cn:a\"]"), "virsh domuuid"},
		{"auditor of one", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"auditor\"\n  domains = [\"11111111-2222-4333-8444-555555555555\"]\n  certificates = [\"cn:a\"]"), "sees every domain"},
		{"subject without kind", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"auditor\"\n  certificates = [\"a\"]"), "begins with none of"},
		{"subject of two", `host_id = "h"` + listener("client_ca = \"/c\"", "role = \"auditor\"\n  certificates = [\"cn:a\", \"cn:a\"]"), "Subject is that of two"},
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
	for _, local := range []string{"127.0.0.1:1", "127.9.9.9:0", "[::1]:9477", "localhost:9477", "off"} {
		if _, _, diags := parseConfig(fmt.Appendf(nil, "host_id = \"h\"\napi {\n  listen = %q\n}\n", local), "x.hcl"); diags.HasErrors() {
			t.Errorf("%s: %v", local, diags)
		}
	}
	_, _, diags := parseConfig([]byte("host_id = \"a b\"\nmode = \"x\"\nstate_dir = \"y\"\n"), "provostd.hcl")
	if len(diags) < 3 {
		t.Errorf("%d problems are told of three", len(diags))
	}
}

// TestIdentities holds whom the configuration lets in, as whom.
func TestIdentities(t *testing.T) {
	text := "host_id = \"h\"\n" + listener("client_ca = \"/c\"", "role = \"tenant\"\n  domains = [\"ABCDEF00-0000-4000-8000-000000000001\"]\n  certificates = [\"dns:a.example\", \"cn:a\"]") +
		"identity \"b\" {\n  role = \"operator\"\n  certificates = [\"email:b@example.net\"]\n}\n"
	c, _, diags := parseConfig([]byte(text), "x.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	all := c.identities()
	if len(all) != 2 || all[0].Name != "a" || !all[0].Sees("abcdef00-0000-4000-8000-000000000001") || all[0].Sees("") || len(all[0].Subjects) != 2 ||
		all[1].Name != "b" || !all[1].May(access.Operator) || all[1].Subjects[0] != "email:b@example.net" {
		t.Errorf("let in are %+v", all)
	}
	if f := c.Listeners[0].files(); f.ClientCA != "/c" || f.Optional || f.Certificate != "/a" || f.Key != "/b" {
		t.Errorf("the listener has %+v", f)
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
