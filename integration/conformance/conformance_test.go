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
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
)

const domainUUID = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"

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
	for name, resource := range map[string]string{"entry": "tile/entries/002", "hash": "tile/0/001", "parent": fmt.Sprintf("tile/1/000.p/%d", l.Size()/256)} {
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
	if err != nil || len(events) < 6 { // with the genesis and the agents' keys
		t.Fatalf("events %v: %v", events, err)
	}
	frames, err := filepath.Glob(filepath.Join(dir, "frames", "*.leaf"))
	if err != nil || len(frames) == 0 {
		t.Fatalf("frames %v: %v", frames, err)
	}
	events = append(events, frames...)
	if ok, out := spicy(vmKey, events...); !ok {
		t.Errorf("events: %s", out)
	}
	if ok, out := spicy(hostKey, "vm-checkpoint.leaf", "vm-key.leaf"); !ok {
		t.Errorf("host log: %s", out)
	}
	if ok, out := spicy(hostKey, events...); ok {
		t.Errorf("spicy accepts VM entries under the host's key: %s", out)
	}
	for _, name := range []string{events[2], events[2] + ".spicy"} {
		whole, err := os.ReadFile(name)
		must(t, err)
		bad := bytes.Clone(whole)
		bad[30] ^= 1
		must(t, os.WriteFile(name, bad, 0o600))
		if ok, out := spicy(vmKey, events...); ok {
			t.Errorf("spicy accepts a changed %s: %s", name, out)
		}
		must(t, os.WriteFile(name, whole, 0o600))
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
	names, err := filepath.Glob(filepath.Join(dir, "*s", "*.leaf")) // events and frames
	must(t, err)
	last, frames := "", []string(nil)
	for _, name := range names {
		name, _ = filepath.Rel(dir, strings.TrimSuffix(name, ".leaf"))
		if last = name; strings.HasPrefix(name, "frames/") {
			frames = append(frames, name)
		}
	}
	if len(frames) == 0 {
		t.Fatalf("no frame in %v", names)
	}
	for _, shell := range []string{"sh", need(t, "bash", "bash")} {
		for _, entry := range []string{"vm-key", "vm-checkpoint", "events/00000000", "events/00000001", "events/00000255", "events/00000256", "events/00000777", last, frames[0]} {
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
	if _, out := sh("sh", entry); !strings.Contains(out, "on the word of: guest") {
		t.Errorf("it does not say whose word it is: %s", out)
	}
	// The words of a certificate and of a quote, in entries of another class.
	for name, class := range map[string]record.Class{"vm-key": record.ClassVMChange, "vm-checkpoint": record.ClassAccessDisclosed} {
		payload, err := os.ReadFile(filepath.Join(dir, name+".payload"))
		must(t, err)
		before := map[string][]byte{}
		for suffix, b := range sealedAs(t, s, class, payload[32:]) {
			path := filepath.Join(dir, name+suffix)
			before[path], err = os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, b, 0o600))
		}
		if ok, out := sh("sh", name); !ok {
			t.Errorf("the entry itself is in the log: %s", out)
		}
		if ok, out := sh("sh", entry); ok || !strings.Contains(out, name+" ") {
			t.Errorf("%s of class %s: %s", name, class, out)
		}
		for path, b := range before {
			must(t, os.WriteFile(path, b, 0o600))
		}
	}
	// A frame under the name of an event.
	for _, suffix := range []string{".leaf", ".payload", ".tlog-proof"} {
		b, err := os.ReadFile(filepath.Join(dir, frames[0]+suffix))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "events", "99"+suffix), b, 0o600))
	}
	if ok, out := sh("sh", "events/99"); ok || !strings.Contains(out, "and no event") {
		t.Errorf("a frame under the name of an event: %s", out)
	}
}

// sealedAs seals a payload in the host log and returns the files of that entry in a
// bundle.
func sealedAs(t *testing.T, s *chain.Store, class record.Class, payload []byte) map[string][]byte {
	t.Helper()
	e, err := s.Draft(record.OriginHost, class, &record.Event{})
	must(t, err)
	e.Payload = payload
	sealed, err := s.Append(t.Context(), chain.Batch{Log: s.HostLog(), Entries: []chain.Entry{e}})
	must(t, err)
	must(t, s.CheckpointNow(t.Context(), s.HostLog()))
	item, err := s.HostLog().Item(sealed.First)
	must(t, err)
	c, _ := s.HostLog().Checkpoint()
	path, err := s.HostLog().ProveInclusion(item.Index, c.Size)
	must(t, err)
	p := proof.Inclusion{Index: item.Index, Note: c.Note}
	for _, h := range path {
		p.Path = append(p.Path, record.Hash(h))
	}
	salt := item.Salt()
	return map[string][]byte{".leaf": item.LeafBytes, ".payload": append(salt[:], item.Payload...), ".tlog-proof": p.Format()}
}

// TestWholeLogs verifies the real pipeline's logs as provost verify does, with the
// signatures of the agents, and with a changed byte in what only it looks into.
func TestWholeLogs(t *testing.T) {
	s, l := ledger(t)
	handler := api.Tiles(s, nil)
	verify := func(h http.Handler) (*mirror.Report, error) {
		srv := httptest.NewServer(h)
		defer srv.Close()
		src, err := client.NewMirror(client.MirrorConfig{URL: srv.URL})
		must(t, err)
		defer src.Close()
		return mirror.Verify(t.Context(), src, s.HostLog().VerifierKey(), mirror.Options{Frame: attest.Frame})
	}
	r, err := verify(handler)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Logs[1]; got.Origin != l.Origin() || got.Size != l.Size() || got.Signed < 1000 || got.Frames < 4 || got.Quotes < 3 || len(r.Logs) != 2 {
		t.Errorf("report %+v", r)
	}
	for _, resource := range []string{"tile/openings/002", "tile/entries/001", "checkpoint"} {
		if r, err := verify(flip(handler, "/logs/"+l.Origin()+"/"+resource)); err == nil || r == nil || r.Valid {
			t.Errorf("a changed %s verifies: %v", resource, err)
		}
	}
}

// TestTesseraClient has Tessera's client library and transparency-dev/merkle read
// a log and verify every inclusion and consistency proof there is.
func TestTesseraClient(t *testing.T) {
	program := tool(t, "tilesclient", "./tilesclient")
	s, l := ledger(t)
	handler := api.Tiles(s, nil)
	run := func(h http.Handler, l *chain.Log) (bool, string) {
		srv := httptest.NewServer(h)
		defer srv.Close()
		out, err := exec.CommandContext(t.Context(), program, srv.URL+"/logs/"+l.Origin()+"/", l.VerifierKey()).CombinedOutput()
		return err == nil && string(out) == fmt.Sprintf("verified %d entries\n", l.Size()), string(out)
	}
	for _, l := range []*chain.Log{l, s.HostLog()} {
		if ok, out := run(handler, l); !ok {
			t.Errorf("%s: %s", l.Origin(), out)
		}
	}
	for _, resource := range []string{"tile/entries/002", "tile/0/001", "checkpoint"} {
		if ok, out := run(flip(handler, "/logs/"+l.Origin()+"/"+resource), l); ok {
			t.Errorf("a changed %s is accepted: %s", resource, out)
		}
	}
}
