package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/provostd/provost/chain/record"
)

// testConfig is a host in a directory of its own.
func testConfig(t *testing.T, extra string) *Config {
	t.Helper()
	dir := t.TempDir()
	cfg, _, diags := parseConfig(fmt.Appendf(nil, "host_id = \"test.host\"\nstate_dir = %q\nanchor = %q\n%s\napi {\n  socket = %q\n  listen = \"127.0.0.1:0\"\n}\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "anchor", "anchor"), extra, filepath.Join(dir, "s")), "test.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg
}

var quiet = slog.New(slog.DiscardHandler)

// TestMetricsFollowTheConventions gathers everything a daemon exports.
func TestMetricsFollowTheConventions(t *testing.T) {
	cfg := testConfig(t, fmt.Sprintf("witness \"w1\" {\n  url = \"https://witness.example.net/w1\"\n  key = %q\n}\n", witnessKey))
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	d.metrics.triggered(&record.Verdict{Policy: "p", Mode: "enforce", Severity: "high"})
	d.metrics.acted("p", "enforce", "pause", "done")
	all, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if len(all) < 40 {
		t.Errorf("%d metrics, want some for every stage", len(all))
	}
}

// TestInitIsDeliberate holds that no start creates a history or overwrites one.
func TestInitIsDeliberate(t *testing.T) {
	cfg := testConfig(t, "")
	if Initialised(cfg) {
		t.Fatal("a host is initialised that never was")
	}
	if _, err := New(cfg, "test", quiet); err == nil {
		t.Error("a daemon starts on a host without a ledger")
	}
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	if err := Init(cfg, quiet); err == nil {
		t.Error("a second init succeeds")
	}
	if err := os.RemoveAll(filepath.Join(cfg.StateDir, "ledger")); err != nil {
		t.Fatal(err)
	}
	if err := Init(cfg, quiet); err == nil {
		t.Error("init begins a new history although the anchor tells of one")
	}
}

// TestBrokenPoliciesStopTheStart: no daemon runs with policies other than those
// it was given (I10).
func TestBrokenPoliciesStopTheStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte("policy \"x\" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, fmt.Sprintf("policies = %q\n", dir))
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	_, err := New(cfg, "test", quiet)
	var p *PolicyError
	if !errors.As(err, &p) || !p.Diags.HasErrors() {
		t.Errorf("the daemon starts, or says only %v", err)
	}
}

// TestSocketOfAnother holds that a daemon that runs keeps its socket.
func TestSocketOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := controlSocket(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v (%v), want 0600", st.Mode(), err)
	}
	if _, err := controlSocket(path, -1); !errors.Is(err, record.ErrReject) {
		t.Errorf("a second daemon takes the socket: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = controlSocket(path, -1)
	if err != nil {
		t.Fatalf("a socket that was left behind is in the way: %v", err)
	}
	l.Close()
}
