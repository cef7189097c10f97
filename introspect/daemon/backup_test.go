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
	if _, err := Restore(t.Context(), cfg, quiet, o); !errors.Is(err, record.ErrReject) {
		t.Fatalf("over a ledger: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.StateDir, "ledger")); err != nil {
		t.Fatal(err)
	}
	// The daemon has published since: what it sealed when it ended.
	o.AcceptRollback = true
	r, err := Restore(t.Context(), cfg, quiet, o)
	if err != nil || r.State == chain.RestoreUnknown {
		t.Fatalf("%+v, %v", r, err)
	}
	if f, err := Fsck(t.Context(), cfg, quiet); err != nil || !f.OK() {
		t.Fatalf("fsck: %+v %v", f, err)
	}
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
