package conformance

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
)

const domain = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"

// tool builds a program of the bench module and returns its path.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, ".cache", "tools", name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(root, "bench"), "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// ledger makes a store on disk with one VM log of more than four full tiles,
// sealed in batches of many sizes under several checkpoints.
func ledger(t *testing.T) (*chain.Store, *chain.Log) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", domain, 1), &record.Genesis{Cause: "define", DomainName: "web"})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; l.Size() < 1200; i++ {
		b := chain.Batch{Log: l}
		for j := range 1 + i*7%60 {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint("change ", i, " ", j)})
			if err != nil {
				t.Fatal(err)
			}
			b.Entries = append(b.Entries, e)
		}
		if _, err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	return s, l
}

const success = "Successfully fsck'd"

// fsck runs Tessera's fsck on a log. Its version 1.0.4 exits with 0 whatever
// it finds, and with few workers it hangs on a corrupt log: so there are
// sixteen, a deadline, and only its words count.
func fsck(t *testing.T, program, url string, l *chain.Log) (ok bool, output string) {
	t.Helper()
	vkey := filepath.Join(t.TempDir(), "log.vkey")
	if err := os.WriteFile(vkey, []byte(l.VerifierKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--storage_url="+url, "--public_key="+vkey, "--ui=false", "-N=16").CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("fsck of %s did not end:\n%s", url, out)
	}
	return err == nil && bytes.Contains(out, []byte(success)), string(out)
}

func TestTesseraFsck(t *testing.T) {
	program := tool(t, "fsck", "github.com/transparency-dev/tessera/cmd/fsck")
	s, l := ledger(t)
	handler := api.Tiles(s, nil)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	for _, l := range []*chain.Log{l, s.HostLog()} {
		if ok, out := fsck(t, program, srv.URL+"/logs/"+l.Origin()+"/", l); !ok {
			t.Errorf("fsck of %s:\n%s", l.Origin(), out)
		}
	}
	// The negative control: were fsck to accept these, its word on the logs
	// above would be worth nothing.
	for name, resource := range map[string]string{"entry": "tile/entries/002", "hash": "tile/0/001", "parent": "tile/1/000.p/4"} {
		tampered := httptest.NewServer(flip(handler, "/logs/"+l.Origin()+"/"+resource))
		if ok, out := fsck(t, program, tampered.URL+"/logs/"+l.Origin()+"/", l); ok {
			t.Errorf("fsck accepts a log with a changed %s:\n%s", name, out)
		}
		tampered.Close()
	}
}

// flip serves h with one byte of one resource changed.
func flip(h http.Handler, path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		body[len(body)/2] ^= 1
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	})
}

func TestSpicy(t *testing.T) {
	program := tool(t, "spicy", "filippo.io/torchwood/cmd/spicy")
	s, l := ledger(t)
	var archive bytes.Buffer
	if err := chain.Export(t.Context(), s, l, chain.Selection{Indexes: []uint64{1, 255, 256, 777, l.Size() - 1}}, &archive); err != nil {
		t.Fatal(err)
	}
	dir := unzip(t, archive.Bytes())
	// The host's key is the auditor's own, as the bundle's README has it.
	vm, err := os.ReadFile(filepath.Join(dir, "vm.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	hostKey, vmKey := s.HostLog().VerifierKey(), strings.TrimSpace(string(vm))
	spicy := func(key string, files ...string) (bool, string) {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"-verify", key}, files...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return err == nil && bytes.Contains(out, []byte("verified")), string(out)
	}
	events, err := filepath.Glob(filepath.Join(dir, "events", "*.leaf"))
	if err != nil || len(events) != 6 { // and the genesis
		t.Fatalf("events %v: %v", events, err)
	}
	if ok, out := spicy(vmKey, events...); !ok {
		t.Errorf("events: %s", out)
	}
	if ok, out := spicy(hostKey, "vm-checkpoint.leaf", "vm-key.leaf"); !ok {
		t.Errorf("host log: %s", out)
	}
	if ok, out := spicy(hostKey, events...); ok {
		t.Errorf("spicy accepts VM entries under the host's key: %s", out)
	}
	leaf, err := os.ReadFile(events[2])
	if err != nil {
		t.Fatal(err)
	}
	leaf[30] ^= 1
	if err := os.WriteFile(events[2], leaf, 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, out := spicy(vmKey, events...); ok {
		t.Errorf("spicy accepts a changed leaf: %s", out)
	}
}

func unzip(t *testing.T, archive []byte) string {
	t.Helper()
	dir := t.TempDir()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestShell runs the bundle's verify.sh, with nothing but openssl and a shell, on
// every entry, and on entries of which a bit was changed.
func TestShell(t *testing.T) {
	need(t, "openssl", "openssl")
	s, l := ledger(t)
	var archive bytes.Buffer
	if err := chain.Export(t.Context(), s, l, chain.Selection{Indexes: []uint64{1, 255, 256, 777, l.Size() - 1}}, &archive); err != nil {
		t.Fatal(err)
	}
	dir := unzip(t, archive.Bytes())
	key := filepath.Join(t.TempDir(), "trusted.vkey")
	if err := os.WriteFile(key, []byte(s.HostLog().VerifierKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh := func(shell, entry string) (bool, string) {
		cmd := exec.CommandContext(t.Context(), shell, "verify.sh", key, entry)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return err == nil && bytes.Contains(out, []byte("verified: "+entry+" is entry ")), string(out)
	}
	last := fmt.Sprintf("events/%08d", l.Size()-1)
	for _, shell := range []string{"sh", need(t, "bash", "bash")} {
		for _, entry := range []string{"vm-key", "vm-checkpoint", "events/00000000", "events/00000001", "events/00000255", "events/00000256", "events/00000777", last} {
			if ok, out := sh(shell, entry); !ok {
				t.Errorf("%s: %s: %s", shell, entry, out)
			}
		}
	}
	// Each file that the entry rests on, with one bit changed.
	const entry = "events/00000777"
	for _, name := range []string{entry + ".leaf", entry + ".tlog-proof", entry + ".payload", "vm.vkey", "vm-key.leaf", "vm-key.payload", "vm-key.tlog-proof", "vm-checkpoint.leaf", "vm-checkpoint.payload", "vm.checkpoint", key} {
		path := name
		if !filepath.IsAbs(name) {
			path = filepath.Join(dir, filepath.FromSlash(name))
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(whole) / 3, len(whole) / 2, len(whole) - 3} {
			bad := bytes.Clone(whole)
			bad[at] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if ok, out := sh("sh", entry); ok || !strings.Contains(out, "NOT verified") {
				t.Errorf("byte %d of %s changed: %s", at, name, out)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ok, out := sh("sh", entry); !ok {
		t.Errorf("put back: %s", out)
	}
	for _, entry := range []string{"events/00000002", "../x", ""} {
		if ok, out := sh("sh", entry); ok {
			t.Errorf("%q: %s", entry, out)
		}
	}
}
