package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// TestExportShard has the daemon write the archive of a closed log: it verifies with
// the host's key, only its owner may read it, and the host log has who was given it.
func TestExportShard(t *testing.T) {
	v := serve(t, "")
	l := v.logOf("11111111-2222-4333-8444-555555555555")
	dir := t.TempDir()
	file := filepath.Join(dir, "shard.zip")
	if _, err := ExportShard(t.Context(), v.cfg, quiet, "root", l.Origin(), file, false); err == nil || !strings.Contains(err.Error(), "only a log that is closed") {
		t.Errorf("an open log: %v", err)
	}
	if err := v.store.CloseLog(t.Context(), l, "test", ""); err != nil {
		t.Fatal(err)
	}
	from := v.store.HostLog().Size()
	a, err := ExportShard(t.Context(), v.cfg, quiet, "root", client.LogID(l.Origin()), file, false)
	if err != nil || a.Log != l.Origin() || a.Size != l.Size() || a.File != file {
		t.Fatalf("%+v, %v", a, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != a.SHA256 || int64(len(b)) != a.Bytes {
		t.Errorf("%d bytes with digest %x, told %+v", len(b), sum, a)
	}
	archive, err := mirror.OpenArchive(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := mirror.VerifyArchive(t.Context(), archive, v.store.HostLog().VerifierKey(), mirror.Options{Frame: attest.Frame}); err != nil || r.Entries != l.Size() {
		t.Errorf("%+v, %v", r, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	given := v.disclosures(from)
	if len(given) != 1 || given[0].Origin != l.Origin() || given[0].First != 0 || given[0].Last != l.Size()-1 || given[0].What != "shard export" || !strings.Contains(given[0].How, "uid") {
		t.Errorf("disclosed: %+v", given)
	}

	// Nothing is overwritten, and what fails leaves nothing.
	if _, err := ExportShard(t.Context(), v.cfg, quiet, "root", l.Origin(), file, false); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over an archive: %v", err)
	}
	if _, err := ExportShard(t.Context(), v.cfg, quiet, "root", l.Origin(), filepath.Join(dir, "none", "x.zip"), false); err == nil {
		t.Error("into a directory that is not there")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	// Files of the host are written for people of the host only.
	who := access.With(t.Context(), &access.Identity{Name: "x", Role: access.Operator, How: "token", Address: "192.0.2.1"})
	if _, err := v.exportShard(who, l, filepath.Join(dir, "remote.zip"), false); !errors.Is(err, record.ErrReject) {
		t.Errorf("from elsewhere: %v", err)
	}
	// What cannot be disclosed is not given.
	if _, err := exportShard(t.Context(), v.store, &access.Sealer{Store: v.store}, l, filepath.Join(dir, "nobody.zip"), false); err == nil {
		t.Error("an archive for nobody")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	if all, err := Shards(t.Context(), v.cfg, quiet); err != nil || len(all) != 1 || all[0].Closed == nil || *all[0].Closed != l.Size()-1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestExportShardAlone does it without a daemon.
func TestExportShardAlone(t *testing.T) {
	cfg := testConfig(t, "")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	var l *chain.Log
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	v := &served{Daemon: d, t: t}
	stop := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { stop <- d.store.Run(ctx) }()
	l = v.logOf("11111111-2222-4333-8444-555555555555")
	err = d.store.CloseLog(t.Context(), l, "test", "")
	cancel()
	if err := errors.Join(err, <-stop, d.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shard.zip")
	if a, err := ExportShard(t.Context(), cfg, quiet, "root (uid 0)", l.Origin(), file, true); err != nil || !a.Withheld || a.Size != l.Size() {
		t.Fatalf("%+v, %v", a, err)
	}
	if all, err := Shards(t.Context(), cfg, quiet); err != nil || len(all) != 1 || all[0].Origin != l.Origin() {
		t.Errorf("%+v, %v", all, err)
	}
	if f, err := Fsck(t.Context(), cfg, quiet); err != nil || !f.OK() {
		t.Fatalf("fsck: %+v %v", f, err)
	}
}
