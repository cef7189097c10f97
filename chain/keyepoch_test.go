package chain

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// rotating is a store whose key directory is known.
func rotating(t testing.TB, fs vfs.FS) (cfg Config, dir string) {
	t.Helper()
	cfg, dir = testConfig(t, fs), t.TempDir()
	var err error
	if cfg.Keys, err = keys.Create(dir); err != nil {
		t.Fatal(err)
	}
	return cfg, dir
}

func reopenKeys(t testing.TB, cfg Config, dir string) Config {
	t.Helper()
	var err error
	if cfg.Keys, err = keys.Open(dir); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func mustRotate(t testing.TB, s *Store) KeyEpoch {
	t.Helper()
	e, err := s.RotateVMKey(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestRotate replaces the key three times while one log grows and another does
// not. Evidence of both verifies with the host's key alone, over a restart, and
// the chain of keys is followed.
func TestRotate(t *testing.T) {
	cfg, dir := rotating(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	still, grows := mustCreateLog(t, s, 1), mustCreateLog(t, s, 2)
	mustAppend(t, s, Batch{Log: still, Entries: []Entry{hostEntry(t, s, "x")}})
	if err := s.CheckpointNow(t.Context(), still); err != nil {
		t.Fatal(err)
	}
	stillKey := still.VerifierKey()
	for i := range 3 {
		old := s.cfg.Keys.VMPublic()
		e := mustRotate(t, s)
		if e.Number != uint64(i+1) || e.Key.Equal(old) || !e.Key.Equal(s.cfg.Keys.VMPublic()) {
			t.Fatalf("epoch %+v after key %x", e, old)
		}
		mustAppend(t, s, Batch{Log: grows, Entries: []Entry{hostEntry(t, s, "y")}})
		if err := s.CheckpointNow(t.Context(), grows); err != nil {
			t.Fatal(err)
		}
		p, _ := grows.Checkpoint()
		if _, err := proof.OpenCheckpoint(p.Note, grows.Verifier()); err != nil || !p.key.Equal(e.Key) {
			t.Errorf("epoch %d: the checkpoint is signed by %x: %v", e.Number, p.key, err)
		}
	}
	if still.VerifierKey() != stillKey {
		t.Error("a log that has not grown names another key than the one that signed it")
	}
	check := func(s *Store, l *Log, earlier int) {
		t.Helper()
		b, err := proof.ReadBundle(strings.NewReader(string(exported(t, s, l, Selection{Indexes: []uint64{1}}))), int64(len(exported(t, s, l, Selection{Indexes: []uint64{1}}))), proof.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{}); err != nil || len(b.Certificates) != earlier {
			t.Errorf("%s with %d earlier keys: %v, %v", l.Origin(), len(b.Certificates), err, r.Failures)
		}
		for name, forge := range map[string]func(){
			"a key is left out":    func() { b.Certificates = b.Certificates[1:] },
			"the last is left out": func() { b.Certificates = b.Certificates[:len(b.Certificates)-1] },
			"two are swapped": func() {
				b.Certificates[0], b.Certificates[1] = b.Certificates[1], b.Certificates[0]
			},
		} {
			if earlier < 2 {
				continue
			}
			all := append([]proof.Sealed(nil), b.Certificates...)
			forge()
			if _, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{}); err == nil || !strings.Contains(err.Error(), "certificate of a VM-log key") {
				t.Errorf("%s: %v", name, err)
			}
			b.Certificates = all
		}
	}
	check(s, grows, 3)
	check(s, still, 0)
	shutdown(t, s, stop)
	if r, err := Fsck(t.Context(), cfg, FsckOptions{}); err != nil || !r.OK() {
		t.Fatalf("fsck: %v %v", err, r)
	}
	s = mustOpen(t, reopenKeys(t, cfg, dir))
	stop = run(t, s)
	l, _ := s.LogByOrigin(still.Origin())
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "z")}})
	check(s, l, 3)
	if since, err := s.VMKeySince(); err != nil || since.IsZero() {
		t.Errorf("key since %s: %v", since, err)
	}
	shutdown(t, s, stop)
}

// TestRotateCrash stops a rotation at every durable step and opens what is
// left: the old key or the new one is in force, never none, and the other is
// gone.
func TestRotateCrash(t *testing.T) {
	for name, c := range map[string]struct {
		do  func(t *testing.T, s *Store, dir string)
		new bool // which key is in force afterwards
	}{
		"prepared": {func(t *testing.T, s *Store, dir string) {
			if _, _, err := s.cfg.Keys.PrepareVM(1, proof.VMPrefix(s.cfg.HostID)); err != nil {
				t.Fatal(err)
			}
		}, false},
		"cut short while it was written": {func(t *testing.T, s *Store, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "vm-log.key.next"), []byte("provost-key/v1"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"certified": {certified, true},
		"linked": {func(t *testing.T, s *Store, dir string) {
			certified(t, s, dir)
			if err := os.Link(filepath.Join(dir, "vm-log.key"), filepath.Join(dir, "vm-log.key.old")); err != nil {
				t.Fatal(err)
			}
		}, true},
		"renamed": {func(t *testing.T, s *Store, dir string) {
			certified(t, s, dir)
			key := filepath.Join(dir, "vm-log.key")
			if err := errors.Join(os.Link(key, key+".old"), os.Rename(key+".next", key)); err != nil {
				t.Fatal(err)
			}
		}, true},
		"half destroyed": {func(t *testing.T, s *Store, dir string) {
			certified(t, s, dir)
			key := filepath.Join(dir, "vm-log.key")
			if err := errors.Join(os.Link(key, key+".old"), os.Rename(key+".next", key), os.WriteFile(key+".old", make([]byte, 40), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			cfg, dir := rotating(t, fs)
			s := mustCreate(t, cfg)
			stop := run(t, s)
			l := mustCreateLog(t, s, 1)
			if err := s.CheckpointNow(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			old := s.cfg.Keys.VMPublic()
			c.do(t, s, dir)
			crashed := cfg
			crashed.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
			crashed = reopenKeys(t, crashed, dir)
			if r, err := Fsck(t.Context(), crashed, FsckOptions{}); err != nil || !r.OK() {
				t.Errorf("fsck before the next start: %v %v", err, r)
			}
			again := mustOpen(t, crashed)
			if got := again.cfg.Keys.VMPublic(); got.Equal(old) == c.new {
				t.Errorf("key %x is in force, the old one was %x", got, old)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "vm-log.key.*")); err != nil || len(left) > 0 {
				t.Errorf("left in the key directory: %v %v", left, err)
			}
			stopAgain := run(t, again)
			mustAppend(t, again, Batch{Log: mustCreateLog(t, again, 2), Entries: []Entry{hostEntry(t, again, "x")}})
			mustRotate(t, again)
			shutdown(t, again, stopAgain)
			if r, err := Fsck(t.Context(), reopenKeys(t, crashed, dir), FsckOptions{}); err != nil || !r.OK() {
				t.Errorf("fsck: %v %v", err, r)
			}
			_ = stop() // of the process that crashed: its key may be gone
			_ = s.Close()
		})
	}
}

// certified takes a rotation up to its certificate.
func certified(t *testing.T, s *Store, _ string) {
	t.Helper()
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	if _, err := s.certifyNext(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
}

// TestRetiredKey refuses to go on with a key directory that was restored from
// before a rotation, and names a checkpoint that a retired key signed.
func TestRetiredKey(t *testing.T) {
	cfg, dir := rotating(t, vfs.NewMem())
	file := filepath.Join(dir, keys.VMFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := reopenKeys(t, cfg, dir).Keys
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	signer, err := s.cfg.Keys.VMSigner(l.Origin())
	if err != nil {
		t.Fatal(err)
	}
	mustRotate(t, s)
	if _, err := signer.Sign([]byte("x")); !errors.Is(err, record.ErrReject) {
		t.Errorf("a signer with the old key: %v", err)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) == string(text) {
		t.Errorf("the old key is still on the disk: %v", err)
	}
	// Whoever kept a copy of the old key has a checkpoint quoted all the same.
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
	thief, err := before.VMSigner(l.Origin())
	if err != nil {
		t.Fatal(err)
	}
	size, root := l.Root()
	msg, err := proof.Checkpoint{Origin: l.Origin(), Size: size, Root: root}.Sign(thief)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Draft(record.OriginHost, record.ClassVMCheckpoint, &record.VMCheckpoint{Origin: l.Origin(), Size: size, Note: msg})
	if err != nil {
		t.Fatal(err)
	}
	at := mustAppend(t, s, Batch{Log: s.HostLog(), Entries: []Entry{e}}).First
	shutdown(t, s, stop)
	r, err := Fsck(t.Context(), reopenKeys(t, cfg, dir), FsckOptions{})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Index == nil || *r.Findings[0].Index != at {
		t.Errorf("fsck: %v %v", err, r)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(reopenKeys(t, cfg, dir)); !errors.Is(err, record.ErrFatal) || !strings.Contains(err.Error(), "older copy of the directory") {
		t.Errorf("open with the old key: %v", err)
	}
}
