package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/replay"
)

func bundleText(version, mode string) string {
	return fmt.Sprintf("bundle {\n  name = \"b\"\n  version = %q\n  language = 1\n}\npolicy \"p\" {\n  on = [\"vm.stop\"]\n  mode = %q\n  action \"alert\" {\n    message = \"x\"\n  }\n}\n", version, mode)
}

func writeBundle(t *testing.T, dir, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// choose opens the policies of a host as a start does, and ends with which version
// is in force.
func choose(t *testing.T, cfg *Config, want string) *policies {
	t.Helper()
	p, err := openPolicies(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.engine.Bundle().Version; got != want {
		t.Errorf("version %q is in force, want %q", got, want)
	}
	return p
}

// TestTheNewestChoiceIsInForce follows what a start takes: the directory, what was
// applied since, and the directory again once it has changed.
func TestTheNewestChoiceIsInForce(t *testing.T) {
	dir := t.TempDir()
	writeBundle(t, dir, bundleText("1", "audit"))
	cfg := testConfig(t, fmt.Sprintf("policies = %q\n", dir))
	choose(t, cfg, "1")
	p := choose(t, cfg, "1")
	if len(p.now.Previous) != 0 {
		t.Errorf("a start alone is a change: %v", p.now)
	}
	applied := t.TempDir()
	writeBundle(t, applied, bundleText("2", "audit"))
	p.from = applied
	b, err := p.configured()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.shelf.keep(b), p.shelf.setActive(p.now.to(b.Digest.String()))); err != nil {
		t.Fatal(err)
	}
	p = choose(t, cfg, "2") // although the directory still holds 1
	if len(p.now.Previous) != 1 {
		t.Errorf("before it were %v", p.now.Previous)
	}
	writeBundle(t, dir, bundleText("3", "audit"))
	choose(t, cfg, "3")
	p = choose(t, cfg, "3")
	if len(p.now.Previous) != 2 {
		t.Errorf("before it were %v", p.now.Previous)
	}
	// What was activated once is found by its digest, whatever is in force.
	for _, digest := range p.now.Previous {
		if _, err := p.shelf.load(digest); err != nil {
			t.Error(err)
		}
	}
	cfg.Policies = ""
	choose(t, cfg, "")
}

// TestAShelfThatWasChangedIsNotBelieved changes a bundle that is kept, and what says
// which is in force.
func TestAShelfThatWasChangedIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	writeBundle(t, dir, bundleText("1", "audit"))
	cfg := testConfig(t, fmt.Sprintf("policies = %q\n", dir))
	p := choose(t, cfg, "1")
	digest := p.now.Active
	other := strings.Repeat("a", 64)
	if err := p.shelf.setActive(active{Active: other, Directory: digest}); err != nil {
		t.Fatal(err)
	}
	if _, err := openPolicies(cfg, quiet); !errors.Is(err, record.ErrReject) {
		t.Errorf("a bundle that is not kept comes in force: %v", err)
	}
	if err := os.WriteFile(p.shelf.activeFile(), []byte("{\"active\":\"../x\"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPolicies(cfg, quiet); !errors.Is(err, record.ErrReject) {
		t.Errorf("a path is taken for a digest: %v", err)
	}
	writeBundle(t, p.shelf.place(digest), bundleText("1", "enforce"))
	if _, err := p.shelf.load(digest); !errors.Is(err, record.ErrReject) {
		t.Errorf("a bundle that was changed is loaded: %v", err)
	}
	if err := os.Remove(p.shelf.activeFile()); err != nil {
		t.Fatal(err)
	}
	p = choose(t, cfg, "1")
	if _, err := p.shelf.load(digest); err != nil {
		t.Errorf("the start does not keep it anew: %v", err)
	}
}

// TestReceivedNames holds that what is sent stays in its directory and its bounds.
func TestReceivedNames(t *testing.T) {
	s, err := openShelf(filepath.Join(t.TempDir(), "policies"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.incoming()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../x", "/x", "a/../x", "a//b", "a/b/c/d/e", "a\\b", "a\x00"} {
		if err := in.add(name, strings.NewReader("x"), 1); !errors.Is(err, record.ErrReject) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := errors.Join(in.add("lists/a", strings.NewReader("x"), 1), in.add("a.policy.hcl", strings.NewReader("xy"), 1)); err != nil {
		t.Error(err)
	}
	for name, size := range map[string]int64{"a.policy.hcl": 1, "short": 9, "huge": maxReceived, "below": -1} {
		if err := in.add(name, strings.NewReader("x"), size); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s of %d bytes: %v", name, size, err)
		}
	}
	if _, err := openShelf(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(in.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was being received stays: %v", err)
	}
	in.discard()
}

// TestApply brings bundles in force on a daemon that runs, by its socket, and holds
// what is sealed, what is refused and what a restart finds.
func TestApply(t *testing.T) {
	v := serve(t, "")
	c := client.New(v.cfg.API.Socket)
	defer c.Close()
	apply := func(text string, dry bool) *client.Applied {
		t.Helper()
		a, err := c.ApplyPolicies(t.Context(), map[string][]byte{"a.policy.hcl": []byte(text), "a.policytest.hcl": []byte("# none\n")}, client.ApplyQuery{DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	inForce := func(want string) {
		t.Helper()
		got := "none"
		if s, err := c.Status(t.Context()); err != nil {
			t.Error(err)
		} else if s.Bundle != nil {
			got = s.Bundle.Version
		}
		if got != want {
			t.Errorf("version %s is in force, want %s", got, want)
		}
	}
	size := v.store.HostLog().Size()
	if a := apply("policy {\n", false); a.Applied || a.Bundle != nil || !strings.Contains(string(a.Diagnostics), "POL") {
		t.Errorf("a broken bundle: %+v", a)
	}
	if a := apply(strings.Replace(bundleText("1", "audit"), "message = \"x\"", "message = \"x\"\n channels = [\"none\"]", 1), false); a.Applied || !strings.Contains(a.Reason, "no alert channel") {
		t.Errorf("a bundle which this host cannot honour: %+v", a)
	}
	if a := apply(bundleText("1", "audit"), true); a.Applied || a.Bundle == nil {
		t.Errorf("a trial: %+v", a)
	}
	if _, err := c.RollBackPolicies(t.Context()); err == nil {
		t.Error("a rollback to nothing succeeds")
	}
	if got := v.store.HostLog().Size(); got != size {
		t.Errorf("what was refused has sealed %d entries", got-size)
	}
	inForce("none")
	failing := map[string][]byte{"a.policy.hcl": []byte(bundleText("1", "audit")), "a.policytest.hcl": []byte("vm \"v\" {\n  name = \"v\"\n}\ntest \"t\" {\n  policy = \"p\"\n  vm = \"v\"\n  event \"vm.stop\" {}\n  expect {\n    matched = false\n  }\n}\n")}
	if a, err := c.ApplyPolicies(t.Context(), failing, client.ApplyQuery{}); err != nil || a.Applied || !strings.Contains(a.Reason, "1 of its 1 tests fail") {
		t.Errorf("a bundle whose test fails: %+v, %v", a, err)
	}
	inForce("none")
	first := apply(bundleText("1", "audit"), false)
	inForce("1")
	apply(bundleText("2", "enforce"), false)
	inForce("2")
	item, err := v.store.HostLog().Item(first.Entry)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if b, ok := m.(*record.BundleActivation); err != nil || !ok || b.Version != "1" || len(b.Policies) != 1 || b.Policies[0].Mode != "audit" {
		t.Errorf("the host log says %v (%v)", m, err)
	}
	back, err := c.RollBackPolicies(t.Context())
	if err != nil || !back.Applied || back.Bundle.Version != "1" || back.Was.Version != "2" {
		t.Errorf("a rollback: %+v, %v", back, err)
	}
	inForce("1")
	p, err := c.Policies(t.Context())
	if err != nil || len(p.Policies) != 1 || p.Policies[0].Mode != "audit" || len(p.Previous) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	again, err := openPolicies(v.cfg, quiet)
	if err != nil || again.engine.Bundle().Version != "1" {
		t.Errorf("the next start: %v", err)
	}
	if _, err := os.Stat(filepath.Join(again.shelf.place(first.Bundle.Digest), "a.policytest.hcl")); err != nil {
		t.Errorf("the tests are not kept: %v", err)
	}
}

// TestReplayAndBudget replays a candidate over what a real ledger holds, and has the
// daemon refuse a bundle that would have wanted too much.
func TestReplayAndBudget(t *testing.T) {
	v := serve(t, "")
	c := client.New(v.cfg.API.Socket)
	defer c.Close()
	l, err := v.store.CreateLog(t.Context(), proof.VMOrigin("test.host", "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", 1), &record.Genesis{DomainName: "web", DomainUuid: "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"})
	if err != nil {
		t.Fatal(err)
	}
	b := chain.Batch{Log: l}
	for range 3 {
		e, err := v.store.Draft(record.OriginHost, record.ClassVMStop, &record.Event{Vm: &record.VM{Name: "web"}})
		if err != nil {
			t.Fatal(err)
		}
		b.Entries = append(b.Entries, e)
	}
	if _, err := v.store.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"a.policy.hcl": []byte(bundleText("1", "audit"))}
	since := time.Now().Add(-time.Hour)
	given := v.store.HostLog().Size()
	done, err := c.ReplayPolicies(t.Context(), files, client.ReplayQuery{Since: since}, func(uint64, uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	var r replay.TrialReport
	if err := json.Unmarshal(done.Report, &r); err != nil || r.Wanted != 3 || r.Entries != 4 || len(r.Policies) != 1 || r.Policies[0].New != 3 || len(done.Read) != 1 || done.Read[0].Last != 3 {
		t.Errorf("%+v, %v, %+v", r, err, done.Read)
	}
	if got := v.store.HostLog().Size(); got != given+1 {
		t.Errorf("what the answer quotes is disclosed in %d entries", got-given)
	}
	if done, err := c.ReplayPolicies(t.Context(), map[string][]byte{"a.policy.hcl": []byte("policy {\n")}, client.ReplayQuery{Since: since}, func(uint64, uint64) {}); err != nil || done.Report != nil || done.Reason == "" {
		t.Errorf("a broken bundle: %+v, %v", done, err)
	}
	for most, applied := range map[uint64]bool{2: false, 3: true} {
		a, err := c.ApplyPolicies(t.Context(), files, client.ApplyQuery{MaxActions: &most, Since: since})
		if err != nil || a.Applied != applied || a.Replay == nil || strings.Contains(a.Reason, "3 actions") == applied {
			t.Errorf("at most %d: %+v, %v", most, a, err)
		}
	}
}

// TestCheckPolicies has the check refuse what the daemon would: a bundle that
// wants what this host cannot do.
func TestCheckPolicies(t *testing.T) {
	for block, want := range map[string]string{
		"action \"pause\" {}":                                                          "",
		"action \"snapshot\" {\n memory = true\n }":                                    "",
		"action \"snapshot\" {\n keep = 3\n }":                                         "",
		"action \"kill_process\" {}":                                                   "",
		"action \"pause\" {\n resume_after = \"5m\"\n }":                               "",
		"action \"quarantine\" {\n release = \"manual\"\n }":                           "",
		"action \"quarantine\" {\n release = \"two-person\"\n }":                       `release = "two-person"`,
		"action \"detach_network\" {\n mode = \"unplug\"\n }":                          "",
		"action \"detach_network\" {\n mode = \"isolate\"\n }":                         `mode = "isolate"`,
		"action \"pause\" {}\nlimit {\n max = 1\n per = \"1h\"\n scope = \"host\"\n }": "",
		"prevent \"egress\" {\n deny = [\"192.0.2.1\"]\n }":                            "cannot prevent egress",
	} {
		b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte("bundle {\n name = \"t\"\n version = \"1\"\n language = 1\n}\npolicy \"p\" {\n on = [\"process.exec\"]\n " + block + "\n}\n")}})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		switch err := CheckPolicies(testConfig(t, ""), b); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", block, err)
		case want != "" && (!errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", block, err, want)
		}
	}
}

// TestEvidenceBringsThePolicies has a daemon export evidence: it holds the text of the
// bundle that the log names, and says that it has none of another one.
func TestEvidenceBringsThePolicies(t *testing.T) {
	v := serve(t, "")
	l := v.logOf("11111111-2222-4333-8444-555555555555")
	c := client.New(v.cfg.API.Socket)
	defer c.Close()
	files := map[string][]byte{"a.policy.hcl": []byte(bundleText("1", "audit"))}
	if a, err := c.ApplyPolicies(t.Context(), files, client.ApplyQuery{}); err != nil || !a.Applied {
		t.Fatalf("%+v, %v", a, err)
	}
	digest := policy.DigestFiles(files)
	for _, d := range []policy.Digest{digest, {1}} {
		e, err := v.store.Draft(record.OriginHost, record.ClassPolicyLoaded, &record.BundleActivation{Name: "b", Digest: d[:]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.store.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := c.Export(t.Context(), client.ExportQuery{Log: l.Origin(), To: client.AllEntries}, &out); err != nil {
		t.Fatal(err)
	}
	b, err := proof.ReadBundle(bytes.NewReader(out.Bytes()), int64(out.Len()), proof.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Verify(b, v.store.HostLog().VerifierKey(), proof.Options{}); err != nil {
		t.Error(err)
	}
	for _, p := range b.Policies {
		if text := string(p.Files["a.policy.hcl"]); (p.Digest == digest) != (text == bundleText("1", "audit")) || (p.Digest == digest) != (p.Lacks == "") {
			t.Errorf("%s: lacks %q, text %q", p.Digest, p.Lacks, text)
		}
	}
	if len(b.Policies) != 2 {
		t.Errorf("%d policies", len(b.Policies))
	}
	// One of before is read from the shelf, which is held against the digest.
	writeBundle(t, v.policies.shelf.place(strings.Repeat("01", 32)), bundleText("2", "audit"))
	if files, err := c.PolicyText(t.Context(), record.Hash(bytes.Repeat([]byte{1}, 32))); err == nil {
		t.Errorf("a text with another digest is given: %v", files)
	}
}

// TestFullExample has a host that is equipped for it take the example of the whole
// language, and one that is not refuse it.
func TestFullExample(t *testing.T) {
	b, diags := policy.Load("../../examples/policies/full")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	text, err := os.ReadFile("../../examples/provostd.hcl")
	if err != nil {
		t.Fatal(err)
	}
	var groups string
	for _, g := range []string{"security-team", "platform-team", "virtualisation-team"} {
		groups += fmt.Sprintf("approver_group %q {\n  key \"alice\" {\n    public_key = %q\n  }\n  key \"bob\" {\n    public_key = %q\n  }\n}\n", g,
			"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDXieh59E44EyMQcOHkVMdsqcLo+aYQNfLl9VcNoEYim",
			"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKgmRAlctBFuOSGVhIPT/krcPkRgnY81YETIQJW9hIFQ")
	}
	for _, c := range []struct{ more, want string }{
		{"", "cannot prevent egress"},
		{"egress {\n  resolvers = [\"10.0.0.53\"]\n}\n", "security-team"},
		{"egress {\n  resolvers = [\"10.0.0.53\"]\n}\n" + groups, ""},
	} {
		cfg, _, diags := parseConfig([]byte(string(text)+c.more), "provostd.hcl")
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if err := CheckPolicies(cfg, b); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %q: %v, want %q", c.more, err, c.want)
		}
	}
}
