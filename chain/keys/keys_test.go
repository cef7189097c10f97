package keys

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

const origin = "kvm1.example/log/1"

func TestCreateAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k.HostPublic().Equal(k.VMPublic()) {
		t.Fatal("both keys are the same")
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, HostFile): 0o600, filepath.Join(dir, VMFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode().Perm(), want, err)
		}
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.HostPublic().Equal(k.HostPublic()) || !again.VMPublic().Equal(k.VMPublic()) {
		t.Fatal("other keys come back")
	}
	if _, err := Create(dir); !errors.Is(err, record.ErrReject) {
		t.Fatalf("create over keys: %v", err)
	}
}

func TestSignersVerify(t *testing.T) {
	dir := t.TempDir()
	k, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	vm := "kvm1.example/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/1"
	for _, c := range []struct {
		origin string
		signer func(string) (note.Signer, error)
		public ed25519.PublicKey
	}{{origin, k.HostSigner, k.HostPublic()}, {vm, k.VMSigner, k.VMPublic()}} {
		s, err := c.signer(c.origin)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := note.Sign(&note.Note{Text: c.origin + "\n1\nAAAA\n"}, s)
		if err != nil {
			t.Fatal(err)
		}
		vkey, err := VerifierKey(c.origin, c.public)
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := note.Open(msg, note.VerifierList(v)); err != nil {
			t.Errorf("%s: %v", c.origin, err)
		}
		if v.Name() != c.origin {
			t.Errorf("verifier is named %s", v.Name())
		}
	}
	if _, err := VerifierKey(origin, nil); !errors.Is(err, record.ErrReject) {
		t.Errorf("verifier of no key: %v", err)
	}
	path, err := k.PublishVerifier(origin)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over the first
		if path, err = k.PublishVerifier(origin); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if want, _ := VerifierKey(origin, k.HostPublic()); err != nil || string(text) != want+"\n" {
		t.Fatalf("%s holds %q: %v", path, text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Fatalf("%s has mode %v: %v", path, info.Mode(), err)
	}
}

// TestOpenRefuses damages key directories in every way that matters. No
// message may repeat what is in a key file.
func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(host, vm string) error
		words  string
	}{
		"group readable":   {func(h, _ string) error { return os.Chmod(h, 0o640) }, "chmod 600"},
		"world readable":   {func(_, v string) error { return os.Chmod(v, 0o604) }, "chmod 600"},
		"missing":          {func(h, _ string) error { return os.Remove(h) }, "no such file"},
		"empty":            {func(h, _ string) error { return os.WriteFile(h, nil, 0o600) }, "first line"},
		"truncated":        {func(h, _ string) error { return os.Truncate(h, 60) }, "second line"},
		"swapped":          {func(h, v string) error { return os.Rename(v, h) }, "first line"},
		"symbolic link":    {func(h, v string) error { return errors.Join(os.Remove(h), os.Symlink(v, h)) }, "symbolic links"},
		"directory":        {func(h, _ string) error { return errors.Join(os.Remove(h), os.Mkdir(h, 0o700)) }, "regular"},
		"trailing garbage": {func(h, _ string) error { return appendTo(h, "x") }, "second line"},
		"huge":             {func(h, _ string) error { return appendTo(h, strings.Repeat("x", 1<<20)) }, "more than"},
		"same key twice": {func(h, v string) error {
			text, err := os.ReadFile(h)
			return errors.Join(err, os.WriteFile(v, []byte(strings.Replace(string(text), UseHostLog, UseVMLog, 1)), 0o600))
		}, "same key"},
		"newer version": {func(h, _ string) error {
			text, err := os.ReadFile(h)
			return errors.Join(err, os.WriteFile(h, []byte(strings.Replace(string(text), "/v1", "/v2", 1)), 0o600))
		}, "provost-key/v1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Create(dir); err != nil {
				t.Fatal(err)
			}
			host, vm := filepath.Join(dir, HostFile), filepath.Join(dir, VMFile)
			secret, err := os.ReadFile(host)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.damage(host, vm); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Fatalf("open: %v, want words %q", err, c.words)
			}
			if seed := strings.Split(string(secret), "\n")[1]; strings.Contains(err.Error(), seed[:20]) {
				t.Fatal("the message holds the key")
			}
		})
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// TestHalfCreated is what a crash between the two files leaves.
func TestHalfCreated(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, VMFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("open: %v", err)
	}
	if _, err := Create(dir); !errors.Is(err, record.ErrReject) {
		t.Fatalf("create: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("provost-key/v1 ed25519 host-log\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add([]byte("provost-key/v1 ed25519 host-log\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b, UseHostLog)
		if err != nil {
			if k != nil || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with a key", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "k")
		if err := writeKey(path, UseHostLog, k); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != string(b) {
			t.Fatalf("%q comes back as %q (%v)", b, text, err)
		}
	})
}
