package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
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
	if _, err := exportShard(t.Context(), v.store, &access.Sealer{Store: v.store}, nil, l, filepath.Join(dir, "nobody.zip"), false); err == nil {
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
	if d, err := DropShard(t.Context(), cfg, quiet, "root (uid 0)", l.Origin(), file, "old", "ann"); err != nil || d.Size != l.Size() {
		t.Fatalf("%+v, %v", d, err)
	}
	if f, err := Fsck(t.Context(), cfg, quiet); err != nil || !f.OK() || f.Dropped != l.Size() {
		t.Fatalf("fsck: %+v %v", f, err)
	}
}

// TestDamagedShard archives and drops a log of which an entry is fenced off. An archive
// that lacks what can be read is refused.
func TestDamagedShard(t *testing.T) {
	cfg := testConfig(t, "")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	v := &served{Daemon: d, t: t}
	stop := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { stop <- d.store.Run(ctx) }()
	l := v.logOf("11111111-2222-4333-8444-555555555555")
	err = d.store.CloseLog(t.Context(), l, "test", "")
	if err := nobodyReads(l, []proof.Range{{First: 1, Last: 2}}); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "entry 1 lacks in it") {
		t.Errorf("an archive that lacks what can be read: %v", err)
	}
	cancel()
	if err := errors.Join(err, <-stop, d.Close()); err != nil {
		t.Fatal(err)
	}
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		t.Fatal(err)
	}
	chaintest.Spoil(t, cfg.chain(k, quiet), l.ID(), 2, true)
	if r, err := Repair(t.Context(), cfg, quiet); err != nil || !r.Fenced() {
		t.Fatalf("%+v, %v", r, err)
	}
	file := filepath.Join(t.TempDir(), "shard.zip")
	if a, err := ExportShard(t.Context(), cfg, quiet, "root (uid 0)", l.Origin(), file, false); err != nil || a.Size != l.Size() || a.Payloads != l.Size()-1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if d, err := DropShard(t.Context(), cfg, quiet, "root (uid 0)", l.Origin(), file, "old", "ann"); err != nil || d.Size != l.Size() {
		t.Fatalf("%+v, %v", d, err)
	}
	if f, err := Fsck(t.Context(), cfg, quiet); err != nil || !f.OK() || f.Dropped != l.Size() {
		t.Fatalf("fsck: %+v %v", f, err)
	}
}

// TestDropShard archives a closed log and drops it, through the daemon: tampered and
// foreign archives are refused, readers are told where it is, its words are found no
// more, and the host still verifies.
func TestDropShard(t *testing.T) {
	const uuid = "11111111-2222-4333-8444-555555555555"
	v := serve(t, "requests_per_second = 1000")
	l, other := v.logOf(uuid), v.logOf("99999999-2222-4333-8444-555555555555")
	for _, l := range []*chain.Log{l, other} {
		if err := v.store.CloseLog(t.Context(), l, "test", ""); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	file, foreign, bad := filepath.Join(dir, "shard.zip"), filepath.Join(dir, "other.zip"), filepath.Join(dir, "bad.zip")
	a, err := ExportShard(t.Context(), v.cfg, quiet, "root", l.Origin(), file, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ExportShard(t.Context(), v.cfg, quiet, "root", other.Origin(), foreign, false); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("tile/entries/000"))
	b[at+100] ^= 1
	if err := os.WriteFile(bad, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.index.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for archive, want := range map[string]string{bad: "does not verify", foreign: "it is that of " + other.Origin(), filepath.Join(dir, "none.zip"): "no such file", dir: "it is no file"} {
		if _, err := DropShard(t.Context(), v.cfg, quiet, "root", l.Origin(), archive, "old", ""); err == nil || !strings.Contains(err.Error(), want) || l.Gone() != nil {
			t.Errorf("%s: %v, want %q", archive, err, want)
		}
	}
	who := access.With(t.Context(), &access.Identity{Name: "x", Role: access.Operator, How: "token", Address: "192.0.2.1"})
	if _, err := v.dropShard(who, l, file, "old", "x"); !errors.Is(err, record.ErrReject) {
		t.Errorf("from elsewhere: %v", err)
	}
	d, err := DropShard(t.Context(), v.cfg, quiet, "root", l.Origin(), file, "old", "ann")
	if err != nil || d.SHA256 != a.SHA256 || d.Size != a.Size {
		t.Fatalf("%+v, %v", d, err)
	}
	item, err := v.store.HostLog().Item(d.Entry)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if r, ok := m.(*record.Dropped); err != nil || !ok || r.Reason != "old" || !strings.HasPrefix(r.Requester, "ann, by uid ") || r.ArchiveBytes != uint64(a.Bytes) {
		t.Errorf("sealed: %+v, %v", m, err)
	}

	auditor := v.remoteClient(v.token("eve", access.Auditor))
	id := client.LogID(l.Origin())
	for name, read := range map[string]func() error{
		"entry":      func() error { _, err := auditor.Entry(t.Context(), id, 1, true); return err },
		"inclusion":  func() error { _, err := auditor.Inclusion(t.Context(), id, 1, 0); return err },
		"window":     func() error { _, err := auditor.Window(t.Context(), id, time.Time{}, time.Time{}); return err },
		"checkpoint": func() error { _, err := auditor.Resource(t.Context(), l.Origin(), "checkpoint"); return err },
		"tile":       func() error { _, err := auditor.Resource(t.Context(), l.Origin(), "tile/0/000.p/5"); return err },
		"entries":    func() error { _, err := auditor.Resource(t.Context(), l.Origin(), "tile/entries/000.p/5"); return err },
		"openings":   func() error { _, err := auditor.Resource(t.Context(), l.Origin(), "tile/openings/000.p/5"); return err },
		"export": func() error {
			return auditor.Export(t.Context(), client.ExportQuery{Log: l.Origin(), To: client.AllEntries}, io.Discard)
		},
	} {
		var p *client.Problem
		if err := read(); !errors.As(err, &p) || p.Status != http.StatusGone || !strings.Contains(p.Detail, "its archive has it") {
			t.Errorf("%s: %v, want 410", name, err)
		}
	}
	if info, err := auditor.Log(t.Context(), id); err != nil || info.Dropped == nil || *info.Dropped != d.Entry || info.Checkpoint == "" {
		t.Errorf("%+v, %v", info, err)
	}
	if c, err := auditor.Chain(t.Context(), uuid); err != nil || len(c.Links) != 1 || c.Links[0].State != "dropped" {
		t.Errorf("%+v, %v", c, err)
	}
	if err := v.index.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := 0
	for e, err := range auditor.Query(t.Context(), client.Query{Classes: []string{"vm.change"}}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if found++; e.Log == l.Origin() {
			t.Error("an entry of it is found")
		}
	}
	if found != 3 {
		t.Errorf("%d entries of the other log are found, want 3", found)
	}
	for e, err := range auditor.Stream(t.Context(), client.StreamQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Log == l.Origin() {
			t.Error("an entry of it is streamed")
		}
	}

	// Everybody who verifies the host is told.
	if err := v.store.CheckpointNow(t.Context(), v.store.HostLog()); err != nil {
		t.Fatal(err)
	}
	logs, err := client.NewMirror(client.MirrorConfig{URL: "https://" + v.remote, Token: v.token("adam", access.Auditor), TLS: &tls.Config{RootCAs: v.roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	r, err := mirror.Verify(t.Context(), logs, v.store.HostLog().VerifierKey(), mirror.Options{Frame: attest.Frame})
	if err != nil || len(r.Dropped) != 1 || r.Dropped[0].SHA256 != a.SHA256 || r.Dropped[0].Index != d.Entry {
		t.Errorf("%+v, %v", r, err)
	}
	if all, err := Shards(t.Context(), v.cfg, quiet); err != nil || len(all) != 2 || all[0].Dropped == nil || all[1].Dropped != nil {
		t.Errorf("%+v, %v", all, err)
	}
}
