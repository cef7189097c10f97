package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/policy"
)

// TestBackupByDaemon has the one that runs make a backup, whose files are its
// owner's alone, loses the ledger and brings it back.
func TestBackupByDaemon(t *testing.T) {
	cfg := testConfig(t, "")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- d.store.Run(ctx) }()
	go func() { done <- s.run(ctx) }()
	// Two bundles were in force: one is gone from here later, one stays.
	c := client.New(cfg.API.Socket)
	defer c.Close()
	var digests []string
	for _, version := range []string{"1", "2"} {
		files := map[string][]byte{"a.policy.hcl": []byte(bundleText(version, "audit")), "a.policytest.hcl": []byte("")}
		if a, err := c.ApplyPolicies(t.Context(), files, client.ApplyQuery{}); err != nil || !a.Applied {
			t.Fatalf("%+v, %v", a, err)
		}
		delete(files, "a.policytest.hcl")
		digests = append(digests, policy.DigestFiles(files).String())
	}
	to := t.TempDir()
	b, err := Backup(t.Context(), cfg, quiet, "test", filepath.Join(to, "copy"), filepath.Join(to, "keys"))
	if err != nil || b.Logs != 1 || b.Files < 4 || b.Size == 0 {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := Backup(t.Context(), cfg, quiet, "test", filepath.Join(to, "copy"), ""); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over a backup: %v", err)
	}
	cancel()
	if err := errors.Join(<-done, <-done, d.Close()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"copy", "keys"} {
		if st, err := os.Stat(filepath.Join(to, dir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v, want 0700", dir, st.Mode(), err)
		}
	}
	if _, err := os.Stat(filepath.Join(to, "copy", "index")); err == nil {
		t.Error("the index is in the backup: it holds words of payloads")
	}

	o := chain.RestoreOptions{Dir: filepath.Join(to, "copy"), Requester: "root", Reason: "test"}
	if _, _, err := Restore(t.Context(), cfg, quiet, o); !errors.Is(err, record.ErrReject) {
		t.Fatalf("over a ledger: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.StateDir, "ledger")); err != nil {
		t.Fatal(err)
	}
	// The daemon has published since: what it sealed when it ended.
	o.AcceptRollback = true
	shelf := &shelf{dir: cfg.policiesDir()}
	if err := errors.Join(os.RemoveAll(shelf.place(digests[0])), os.Remove(shelf.activeFile())); err != nil {
		t.Fatal(err)
	}
	r, p, err := Restore(t.Context(), cfg, quiet, o)
	if err != nil || r.State == chain.RestoreUnknown {
		t.Fatalf("%+v, %v", r, err)
	}
	if p.Bundles != 1 || p.There != 1 || len(p.Damaged) != 0 {
		t.Errorf("policies: %+v", p)
	}
	if a, known, err := shelf.active(); err != nil || !known || a.Active != digests[1] || len(a.Previous) == 0 || a.Previous[0] != digests[0] {
		t.Errorf("in force is %+v, %v", a, err)
	}
	f, err := Fsck(t.Context(), cfg, quiet)
	if err != nil || !f.OK() {
		t.Fatalf("fsck: %+v %v", f, err)
	}
	texts := func(lacking, unnamed int) {
		t.Helper()
		if p, err := CheckPolicyTexts(cfg, f); err != nil || len(p.Lacking) != lacking || len(p.Unnamed) != unnamed {
			t.Errorf("texts: %+v, %v; want %d lacking, %d unnamed", p, err, lacking, unnamed)
		}
	}
	texts(0, 0)
	// A bundle that is damaged here, and one that nobody names.
	writeBundle(t, shelf.place(digests[0]), bundleText("3", "audit"))
	writeBundle(t, shelf.place(strings.Repeat("ab", 32)), bundleText("3", "audit"))
	texts(1, 1)
	// Without a daemon the command does it by itself.
	if _, err := Backup(t.Context(), cfg, quiet, "test", filepath.Join(to, "second"), ""); err != nil {
		t.Error(err)
	}
	d, err = New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamagedPoliciesOfABackup changes the copies of policies in a backup, in all ways that
// a restore has to see. It keeps none of them, names each, and restores the others.
func TestDamagedPoliciesOfABackup(t *testing.T) {
	cfg := testConfig(t, "")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	s, err := openShelf(cfg.policiesDir())
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]string{}
	for _, name := range []string{"whole", "changed", "lacking", "named wrongly"} {
		files := map[string][]byte{"a.policy.hcl": []byte(bundleText(name, "audit"))}
		digests[name] = policy.DigestFiles(files).String()
		place := s.place(digests[name])
		if name == "named wrongly" {
			place = s.place(strings.Repeat("0f", 32))
			digests[name] = strings.Repeat("0f", 32)
		}
		writeBundle(t, place, bundleText(name, "audit"))
	}
	if err := s.setActive(active{Active: digests["changed"], Directory: digests["whole"]}); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if _, err := Backup(t.Context(), cfg, quiet, "test", to, ""); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string {
		return filepath.Join(to, "beside", "bundles", digests[name], "a.policy.hcl")
	}
	if err := errors.Join(os.WriteFile(in("changed"), []byte(bundleText("changed", "enforce")), 0o600), os.Remove(in("lacking")),
		os.RemoveAll(cfg.policiesDir()), os.RemoveAll(filepath.Join(cfg.StateDir, "ledger"))); err != nil {
		t.Fatal(err)
	}
	r, p, err := Restore(t.Context(), cfg, quiet, chain.RestoreOptions{Dir: to, Requester: "root"})
	if err != nil || r.State != chain.RestoreComplete {
		t.Fatalf("%+v, %v", r, err)
	}
	all := strings.Join(p.Damaged, "\n")
	if p.Bundles != 1 || p.There != 0 || len(p.Damaged) != 3 || !s.has(digests["whole"]) ||
		!strings.Contains(all, digests["changed"]+": bundles/"+digests["changed"]+"/a.policy.hcl of the backup was changed") ||
		!strings.Contains(all, digests["lacking"]+": ") || !strings.Contains(all, digests["named wrongly"]+": it was changed, its digest is") {
		t.Errorf("%+v", p)
	}
	kept, err := s.kept()
	if err != nil || len(kept) != 1 {
		t.Errorf("kept are %v, %v", kept, err)
	}
	if _, known, err := s.active(); known || err != nil {
		t.Errorf("a bundle that is damaged is in force: %v", err)
	}
}
