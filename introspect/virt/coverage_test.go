package virt

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCoverageIsDocumented holds docs/coverage-host.md to the events that are asked for.
func TestCoverageIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/coverage-host.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(page), "## Found by sweeps")
	ctx := testContext(t, 20*time.Second)
	got := newCollector()
	startHost(t, ctx, Config{URI: "test:///default", Sink: got.sink, RunDir: t.TempDir(), ConfigDir: t.TempDir()})
	o, _ := got.wait(t, ctx, 0, "connected", func(o Observation) bool { return o.Kind == KindConnected })
	names := append(slices.Collect(maps.Keys(o.Coverage.Missing)), o.Coverage.Events...)
	if len(names) < 25 {
		t.Fatalf("only %d events are asked for: %v", len(names), names)
	}
	for _, name := range names {
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("docs/coverage-host.md does not say what becomes of the event %s", name)
		}
	}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			if name = strings.Trim(name, " `"); !slices.Contains(names, name) {
				t.Errorf("docs/coverage-host.md names the event %q, which nobody asks for", name)
			}
		}
	}
}
