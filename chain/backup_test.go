package chain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// backedUp makes a store, a backup of it in /backup with its keys in /backup-keys
// while it runs, and goes on for a while.
func backedUp(t *testing.T, after func(s *Store, l *Log)) (cfg Config, m *Manifest) {
	t.Helper()
	cfg = testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	story(t, s, l)
	// Somebody appends meanwhile.
	ctx, cancel := context.WithCancel(context.Background())
	appended := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "meanwhile"})
			if err == nil {
				_, err = s.Append(context.Background(), Batch{Log: l, Entries: []Entry{e}})
			}
			if err != nil {
				appended <- err
				return
			}
		}
		appended <- nil
	}()
	m, err := s.Backup(context.Background(), BackupOptions{Dir: "/backup", PayloadKeys: "/backup-keys", Requester: "uid 0", Software: "test"})
	cancel()
	if err := errors.Join(err, <-appended); err != nil {
		t.Fatal(err)
	}
	if after != nil {
		after(s, l)
	}
	shutdown(t, s, stop)
	return cfg, m
}

// lose takes the store away, as a dead disk does.
func lose(t *testing.T, cfg Config) {
	t.Helper()
	if err := cfg.FS.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
}

var accepted = RestoreOptions{Dir: "/backup", AcceptRollback: true, Reason: "the disk died", Requester: "root"}

// goesOn opens a restored store, appends, and checks it.
func goesOn(t *testing.T, cfg Config) {
	t.Helper()
	s := mustOpen(t, cfg)
	stop := run(t, s)
	l, _ := s.LogByID(1)
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "after")}})
	if err := s.CheckpointNow(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	contents(t, l)
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() {
		t.Fatalf("findings %v", r.Findings)
	}
}

func TestBackupAndRollback(t *testing.T) {
	cfg, m := backedUp(t, func(s *Store, l *Log) {
		for range 3 {
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "lost")}})
			if err := s.CheckpointNow(context.Background(), l); err != nil {
				t.Fatal(err)
			}
		}
	})
	if len(m.Logs) != 2 || m.Payloads != "encrypted" || len(m.Files) < 4 || len(m.KeyFiles) == 0 || m.Anchored.Size == 0 {
		t.Fatalf("manifest %+v", m)
	}
	before, err := readAnchor(cfg.FS, cfg.Anchor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(context.Background(), cfg, accepted); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "overwrites nothing") {
		t.Fatalf("over a store: %v", err)
	}
	lose(t, cfg)
	o := accepted
	o.AcceptRollback = false
	var rollback *RollbackError
	if _, err := Restore(context.Background(), cfg, o); !errors.As(err, &rollback) || rollback.Want.Size <= rollback.Have.Size || !errors.Is(err, record.ErrReject) {
		t.Fatalf("a rollback without a word: %v", err)
	}
	o = accepted
	o.Reason = " "
	if _, err := Restore(context.Background(), cfg, o); !errors.Is(err, record.ErrReject) {
		t.Fatalf("a rollback without a reason: %v", err)
	}
	r, err := Restore(context.Background(), cfg, accepted)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != RestoreRolledBack || r.Lost != rollback.Want.Size-rollback.Have.Size || r.Size != m.Anchored.Size {
		t.Fatalf("restored %+v", r)
	}
	if kept, err := readAnchor(cfg.FS, cfg.Anchor+beforeRestore); err != nil || !bytes.Equal(kept, before) {
		t.Fatalf("the anchor of before is not kept: %v", err)
	}
	s := mustOpen(t, cfg)
	item, err := s.host.Item(m.Logs[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	d, err := item.Decode()
	e, ok := d.(*record.Restore)
	if err != nil || !ok || item.Leaf.Origin != record.OriginOperator || e.Reason != accepted.Reason || e.Requester != "root" || e.Lost != r.Lost || e.Size != m.Logs[0].Size || len(e.GivenUp) == 0 || e.State != RestoreRolledBack {
		t.Fatalf("the first entry is %s %+v (%v)", item.Leaf.Header.Class, d, err)
	}
	if known, err := s.gaveUp(rollback.Want.Size); err != nil || !known {
		t.Errorf("what was given up is not known: %v", err)
	}
	if known, err := s.gaveUp(rollback.Want.Size + 1); err != nil || known {
		t.Errorf("what nobody published is given up: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goesOn(t, cfg)
}

// TestRestoreComplete restores what nobody has gone on from: no word is needed.
func TestRestoreComplete(t *testing.T) {
	cfg, _ := closedStore(t, vfs.NewMem())
	s := mustOpen(t, cfg) // and not run: as without a daemon
	m, err := s.Backup(context.Background(), BackupOptions{Dir: "/backup", PayloadKeys: "/backup-keys", Requester: "root"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lose(t, cfg)
	o := RestoreOptions{Dir: "/backup", Requester: "root"}
	if err := cfg.FS.RemoveAll(cfg.PayloadKeys); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(context.Background(), cfg, o); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "payload keys") {
		t.Fatalf("without keys: %v", err)
	}
	o.PayloadKeys = "/backup-keys"
	r, err := Restore(context.Background(), cfg, o)
	if err != nil || r.State != RestoreComplete || r.Lost != 0 || r.Size != m.Anchored.Size {
		t.Fatalf("%+v %v", r, err)
	}
	goesOn(t, cfg)
}

// TestRestoreWithoutAnchor must be accepted: nobody can tell what is lost.
func TestRestoreWithoutAnchor(t *testing.T) {
	cfg, _ := backedUp(t, nil)
	lose(t, cfg)
	if err := cfg.FS.Remove(cfg.Anchor); err != nil {
		t.Fatal(err)
	}
	o := accepted
	o.AcceptRollback = false
	var rollback *RollbackError
	if _, err := Restore(context.Background(), cfg, o); !errors.As(err, &rollback) || rollback.State != RestoreUnknown {
		t.Fatalf("without an anchor: %v", err)
	}
	if r, err := Restore(context.Background(), cfg, accepted); err != nil || r.State != RestoreUnknown {
		t.Fatalf("%+v %v", r, err)
	}
	goesOn(t, cfg)
}

// TestRestoreWithLaterKeys restores a backup from before two changes of the
// VM-log key, whose keys are destroyed.
func TestRestoreWithLaterKeys(t *testing.T) {
	cfg, _ := backedUp(t, func(s *Store, _ *Log) {
		for range 2 {
			if _, err := s.RotateVMKey(context.Background(), "test"); err != nil {
				t.Fatal(err)
			}
		}
	})
	lose(t, cfg)
	if _, err := Restore(context.Background(), cfg, accepted); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, cfg)
	if n := len(s.vmKeys); n != 3 {
		t.Errorf("%d keys are certified, want 3", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goesOn(t, cfg)
	// Keys that the backup's cannot have led to are refused.
	lose(t, cfg)
	other, err := keys.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys = other
	if _, err := Restore(context.Background(), cfg, accepted); err == nil {
		t.Error("restored under keys of another host")
	}
}

// TestRestoreRefusesDamage changes, removes and adds files of a backup.
func TestRestoreRefusesDamage(t *testing.T) {
	cfg, m := backedUp(t, nil)
	lose(t, cfg)
	fs := cfg.FS
	refused := func(name, words string) {
		t.Helper()
		_, err := Restore(context.Background(), cfg, accepted)
		if !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
		if there, err := exists(fs, cfg.Dir); err != nil || there {
			t.Fatalf("%s: there is a store afterwards (%v)", name, err)
		}
	}
	for _, f := range m.Files {
		if f.Size == 0 {
			continue
		}
		name := path.Join("/backup", f.Name)
		old := readFile(t, fs, name)
		bad := bytes.Clone(old)
		bad[len(bad)/2] ^= 1
		writeFile(t, fs, name, bad)
		refused(f.Name+" changed", f.Name+" of the backup was changed")
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		if f.Name == backupAnchor {
			refused(f.Name+" removed", "no anchor")
		} else {
			refused(f.Name+" removed", "lacks "+f.Name)
		}
		writeFile(t, fs, name, old)
	}
	writeFile(t, fs, "/backup/ledger/more", []byte("x"))
	refused("another file", "does not name")
	if err := fs.Remove("/backup/ledger/more"); err != nil {
		t.Fatal(err)
	}
	other := cfg
	other.HostID = "kvm2.example"
	if _, err := Restore(context.Background(), other, accepted); !errors.Is(err, record.ErrReject) {
		t.Errorf("on another host: %v", err)
	}
	if _, err := Restore(context.Background(), cfg, accepted); err != nil {
		t.Fatal(err)
	}
	goesOn(t, cfg)
}

func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(bytes.Clone(data))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestBackupRefuses(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	good := BackupOptions{Dir: "/b", PayloadKeys: "/k", Requester: "root"}
	for name, change := range map[string]func(*BackupOptions){
		"relative":               func(o *BackupOptions) { o.Dir = "b" },
		"in the store":           func(o *BackupOptions) { o.Dir = cfg.Dir + "/b" },
		"in the keys":            func(o *BackupOptions) { o.Dir = cfg.PayloadKeys + "/b" },
		"there already":          func(o *BackupOptions) { o.Dir = cfg.PayloadKeys },
		"keys in the backup":     func(o *BackupOptions) { o.PayloadKeys = "/b/keys" },
		"backup beside the keys": func(o *BackupOptions) { o.Dir = "/k/b" },
		"nobody asks":            func(o *BackupOptions) { o.Requester = "" },
	} {
		o := good
		change(&o)
		size := s.host.Size()
		if _, err := s.Backup(context.Background(), o); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
		if s.host.Size() != size {
			t.Errorf("%s: it is sealed", name)
		}
	}
	// One that was cut short is replaced; one that is whole is not.
	writeFile(t, cfg.FS, "/b.partial", []byte("x"))
	if _, err := s.Backup(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(context.Background(), good); !errors.Is(err, record.ErrReject) {
		t.Errorf("over a backup: %v", err)
	}
	item, err := s.host.Item(2)
	if err != nil || item.Leaf.Header.Class != record.ClassHostBackup {
		t.Errorf("the backup is not sealed: %s, %v", item.Leaf.Header.Class, err)
	}
}

// TestWitnessAfterRollback: a witness that shows what was given up disputes, and
// does not end the ledger; once it has begun anew it cosigns again.
func TestWitnessAfterRollback(t *testing.T) {
	var givenUp []byte
	cfg, _ := backedUp(t, func(s *Store, l *Log) {
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "lost")}})
		if err := s.CheckpointNow(context.Background(), l); err != nil {
			t.Fatal(err)
		}
		p, _ := s.host.Checkpoint()
		givenUp = p.Note
	})
	lose(t, cfg)
	if _, err := Restore(context.Background(), cfg, accepted); err != nil {
		t.Fatal(err)
	}
	w := newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s := mustOpen(t, cfg)
	stop := run(t, s)
	w.fail(&proof.DisputeError{Witness: "w1", Origin: s.host.origin, Ours: s.host.Size(), Theirs: 1000, Reason: "rolled back"})
	w.latest = givenUp
	for range 2 {
		grow(t, s)
		mustCosign(t, s)
	}
	if n := countClass(t, s, record.ClassWitnessDisputed); n != 1 || s.Err() != nil {
		t.Errorf("the dispute was sealed %d times, the ledger fails with %v", n, s.Err())
	}
	w.fail(nil)
	grow(t, s)
	mustCosign(t, s)
	if _, missing, _ := s.Witnesses(); missing != "" {
		t.Errorf("a witness that has begun anew does not cosign: %s", missing)
	}
	shutdown(t, s, stop)
}
