package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/egress"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const webXML = `<domain type='qemu'><name>web</name><uuid>6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11</uuid><devices>
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='n' bridge='b0'/><target dev='vnet0'/></interface>
<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='b0'/><target dev='vnet1'/></interface>
<interface type='direct'><mac address='52:54:00:00:00:03'/><source dev='eth0' mode='bridge'/><target dev='macvtap0'/></interface>
<interface type='user'><mac address='52:54:00:00:00:04'/></interface>
</devices></domain>`

// Which taps are guarded, by which lists, and what is refused of a domain that has
// interfaces without a tap.
func TestGuardedBy(t *testing.T) {
	dir := t.TempDir()
	text := "bundle {\n  name = \"b\"\n  version = \"1\"\n  language = 1\n}\npolicy \"list\" {\n  mode = \"enforce\"\n  prevent \"egress\" {\n    allow = [\"198.51.100.0/24\", \"203.0.113.7:443/tcp\", \"api.example.net:443\"]\n    deny = [\"10.0.0.9\"]\n  }\n}\n"
	for _, mode := range []string{"enforce", "audit"} {
		if err := os.WriteFile(filepath.Join(dir, "p.policy.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, diags := policy.Load(dir)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		cfg, _, diags := parseConfig([]byte("host_id = \"h\"\nmode = \""+mode+"\"\n"), "c.hcl")
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if err := CheckPolicies(cfg, b); err == nil {
			t.Error("a host without a packet filter takes a policy that prevents")
		}
		cfg.Egress = &EgressConfig{}
		if err := CheckPolicies(cfg, b); err == nil || !strings.Contains(err.Error(), "egress.resolvers") {
			t.Errorf("a host without resolvers takes a policy with names: %v", err)
		}
		cfg.Egress.resolvers = []netip.Addr{netip.MustParseAddr("10.0.0.53")}
		e, err := rules.New(b, engineOptions(cfg))
		if err != nil {
			t.Fatal(err)
		}
		id, err := domain.ParseUUID("6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11")
		if err != nil {
			t.Fatal(err)
		}
		g, err := guardedBy(id, webXML, webXML, true, e)
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Devices) != 2 || g.Devices[0].Name != "vnet0" || g.Devices[1].MAC.String() != "52:54:00:00:00:02" || !g.Devices[0].CheckMAC || len(g.Untapped) != 2 {
			t.Errorf("devices %+v, untapped %v", g.Devices, g.Untapped)
		}
		p := g.Policies[0]
		if len(g.Policies) != 1 || p.Name != "list" || p.Enforce != (mode == "enforce") || !p.Listed || !p.External || len(p.Allow) != 2 || len(p.Deny) != 1 ||
			p.Allow[1].Port != 443 || p.Allow[1].Protocol != 6 || p.Allow[0].Prefix != netip.MustParsePrefix("198.51.100.0/24") {
			t.Errorf("policies %+v", g.Policies)
		}
		if len(p.Names) != 1 || p.Names[0] != (egress.NameEntry{Name: "api.example.net", Port: 443}) {
			t.Errorf("names %+v", p.Names)
		}
		if err := g.Honoured(); (err != nil) != (mode == "enforce") || err != nil && !strings.Contains(err.Error(), "of kind direct") {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}
