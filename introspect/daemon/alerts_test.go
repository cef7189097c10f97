package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/rules/policy"
)

// TestAlertChannels holds which blocks are taken, and that what is not says why.
func TestAlertChannels(t *testing.T) {
	block := func(name string, lines ...string) string {
		return fmt.Sprintf("alert_channel %q {\n  %s\n}\n", name, strings.Join(lines, "\n  "))
	}
	for _, c := range []struct{ text, want string }{
		{block("a", `type = "webhook"`, `url = "https://x/"`, `timeout = "1s"`, `give_up = "1h"`, `concurrency = 4`), ""},
		{block("a", `type = "journal"`) + block("b", `type = "syslog"`, `address = "udp://x:514"`), ""},
		{block("a", `type = "webhok"`), "Setting alert_channel.type"},
		{block("a", `type = "webhook"`), "needs url"},
		{block("a", `type = "journal"`, `url = "https://x/"`), "Setting alert_channel.url"},
		{block("a", `type = "command"`, `command = ["/bin/true"]`, `hold = "1h"`), "has command, user"},
		{block("A b", `type = "journal"`), "small letters"},
		{block("log", `type = "journal"`), "every host has"},
		{block("a", `type = "journal"`) + block("a", `type = "journal"`), "described twice"},
		{block("a", `type = "journal"`, `timeout = "1ms"`), "alert_channel.timeout"},
		{block("a", `type = "journal"`, `concurrency = 65`), "from 1 to 64"},
		{block("a", `type = "webhook"`, `url = "https://x/"`, `secret_file = "secret"`), "not absolute"},
	} {
		_, _, diags := parseConfig([]byte("host_id = \"test.host\"\n"+c.text), "test.hcl")
		if c.want == "" && diags.HasErrors() || c.want != "" && !strings.Contains(diags.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, diags, c.want)
		}
	}
	cfg := testConfig(t, block("a", `type = "webhook"`, `url = "https://x/"`, `secret_file = "/no/such/file"`)+block("b", `type = "command"`, `command = ["/no/such/program"]`))
	if err := CheckAlerts(cfg); err == nil || !strings.Contains(err.Error(), `alert_channel "a"`) || !strings.Contains(err.Error(), `alert_channel "b"`) {
		t.Errorf("check: %v", err)
	}
}

// TestPoliciesNameChannels: a policy that names a channel which the host has not
// is refused, with what was perhaps meant (I10).
func TestPoliciesNameChannels(t *testing.T) {
	cfg := testConfig(t, "alert_channel \"pagers\" {\n  type = \"journal\"\n}\n")
	load := func(channel string) error {
		t.Helper()
		dir := t.TempDir()
		text := fmt.Sprintf("bundle {\n  name = \"b\"\n  version = \"1\"\n  language = 1\n}\npolicy \"p\" {\n  on = [\"process.exec\"]\n  condition = process.name == \"x\"\n  severity = \"low\"\n  action \"alert\" {\n    message = \"x\"\n    channels = [%q]\n  }\n}\n", channel)
		if err := os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, diags := policy.Load(dir)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return CheckPolicies(cfg, b)
	}
	for _, ok := range []string{"pagers", "log"} {
		if err := load(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	if err := load("pager"); err == nil || !strings.Contains(err.Error(), `no alert channel "pager"; did you mean "pagers"?`) {
		t.Errorf("a channel that is not there: %v", err)
	}
}
