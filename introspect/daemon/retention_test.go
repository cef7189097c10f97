package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
)

// TestRetentionConfig reads retentions, and refuses those that cannot be kept.
func TestRetentionConfig(t *testing.T) {
	const id = "0b0f6fc4-5cc5-4f6c-9ab1-6a3a1f7c2d10"
	parse := func(body string) (*Config, string) {
		t.Helper()
		c, _, diags := parseConfig(fmt.Appendf(nil, "host_id = \"a\"\n%s\n", body), "test.hcl")
		return c, diags.Error()
	}
	c, problem := parse("retention {\n payloads = \"30d\"\n leaves = \"180d\"\n tiles = \"5y\"\n domain \"" + id + "\" {\n payloads = \"12h\"\n }\n}")
	if c == nil {
		t.Fatal(problem)
	}
	if got, want := c.Retention.keep, (chain.Retention{Payloads: 30 * day, Leaves: 180 * day, Tiles: 5 * 365 * day}); got != want {
		t.Errorf("read %+v, want %+v", got, want)
	}
	if got, want := c.Retention.domains[id], (chain.Retention{Payloads: day / 2}); got != want {
		t.Errorf("read %+v of the domain, want %+v", got, want)
	}
	if c, _ := parse(""); c.Retention.keep != (chain.Retention{}) {
		t.Errorf("without the block: %+v", c.Retention.keep)
	}
	for body, want := range map[string]string{
		`leaves = "30d"`:                                     "for ever",
		"payloads = \"60d\"\n leaves = \"30d\"":              "cannot outlast",
		`payloads = "soon"`:                                  "30d",
		`payloads = "0d"`:                                    "30d",
		`payloads = "5m"`:                                    "30d",
		`payloads = "101y"`:                                  "30d",
		`payloads = "99999999d"`:                             "30d",
		"domain \"web\" {\n }":                               "UUID",
		"domain \"" + id + "\" {\n tiles = \"1y\"\n }":       "for ever",
		"domain \"" + id + "\" {}\ndomain \"" + id + "\" {}": "twice",
	} {
		if c, problem := parse("retention {\n" + body + "\n}"); c != nil || !strings.Contains(problem, want) {
			t.Errorf("%s: %q", body, problem)
		}
	}
}
