package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
)

// logsOf is a ledger with one VM log of n entries, and how to make it grow.
func logsOf(t *testing.T, n int) (s *chain.Store, l *chain.Log, grow func(n int)) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err = chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	l, err = s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", 1), &record.Genesis{Cause: "define"})
	if err != nil {
		t.Fatal(err)
	}
	grow = func(n int) {
		b := chain.Batch{Log: l}
		for i := range n {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint(i)})
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
	grow(n)
	return s, l, grow
}

// TestVerifyMirror verifies a Verification Service over HTTP, keeps what it
// has read, verifies that without the service, and goes on when it has grown.
func TestVerifyMirror(t *testing.T) {
	s, l, grow := logsOf(t, 600)
	tiles := api.Tiles(s, nil)
	srv := httptest.NewServer(tiles)
	defer srv.Close()
	dir := t.TempDir()
	key, state, saved := filepath.Join(dir, "host.vkey"), filepath.Join(dir, "state"), filepath.Join(dir, "saved")
	if err := os.WriteFile(key, []byte(s.HostLog().VerifierKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(code int, words string, args ...string) string {
		t.Helper()
		got, out, errs := call(t, append([]string{"verify", "--key", key}, args...)...)
		if got != code || !strings.Contains(out+errs, words) {
			t.Errorf("verify %v: exit %d, want %d with %q\n%s%s", args, got, code, words, out, errs)
		}
		return out + errs
	}
	want(exitOK, "1 VM logs with 601 entries are there whole", "--state", state, "--save", saved, srv.URL)
	want(exitOK, "It contains the checkpoint seen before", "--state", state, saved)
	want(exitOK, `"valid": true`, "--output", "json", saved)
	want(exitOK, "verified 601 of 601 entries of "+l.Origin(), "--progress", saved)
	want(exitInvalid, "this is the place of one log", filepath.Join(saved, "logs", s.HostLog().Origin()))
	want(exitOK, "this is the place of the host log alone", "--one-log", filepath.Join(saved, "logs", s.HostLog().Origin()))
	want(exitOK, "1 VM logs with 601 entries", "--logs", l.Origin(), srv.URL+"/")
	want(exitInvalid, "log: kvm1.example/vm/x/1/1: the host log quotes no checkpoint of it", "--logs", "kvm1.example/vm/x/1/1", saved)
	grow(100)
	want(exitOK, "701 entries", "--state", state, srv.URL)
	want(exitInvalid, "it was rolled back, or an old checkpoint is replayed", "--state", state, saved)
	if b, err := os.ReadFile(state); err != nil || !bytes.Contains(b, []byte(s.HostLog().Origin())) {
		t.Errorf("%q, %v", b, err)
	}

	// A mirror without payloads verifies only for those who do without.
	if err := os.RemoveAll(filepath.Join(saved, "logs", l.Origin(), "tile", "openings")); err != nil {
		t.Fatal(err)
	}
	want(exitInvalid, "gap: entry 0 of "+l.Origin()+": the payloads of entries 0 to 255 are missing", saved)
	// Of the host log nobody can do without.
	want(exitOK, "Anything of payloads in 1 VM logs", "--without-payloads", saved)
	if err := os.Remove(filepath.Join(saved, "logs", l.Origin(), "tile", "entries", "001")); err != nil {
		t.Fatal(err)
	}
	want(exitInvalid, "entries 256 to 511 are missing", "--without-payloads", saved)

	// A link that leads out of the directory is not followed.
	bundle := filepath.Join(saved, "logs", l.Origin(), "tile", "entries", "001")
	if err := os.Symlink(key, bundle); err != nil {
		t.Fatal(err)
	}
	want(exitFailed, "escapes", "--without-payloads", saved)

	// What cannot be read is no verdict.
	unpacked := t.TempDir()
	if err := os.WriteFile(filepath.Join(unpacked, "manifest.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(exitUsage, "is an unpacked bundle", unpacked)
	want(exitFailed, "no such file", filepath.Join(dir, "none"))
	want(exitUsage, "are for URLs", "--token-file", key, saved)
	want(exitFailed, "no URL of a server", "https://")
	want(exitFailed, "put a token into a file", "https://me:secret@kvm1.example/")
	want(exitFailed, "could read the token", "--token-file", key, "http://192.0.2.1/")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"verify", "--key", key, srv.URL}, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), "nothing is proved") {
		t.Errorf("interrupted: exit %d, %s", code, errs.String())
	}
}

// TestVerifyHostileServer verifies at servers that mean no good or are unwell.
func TestVerifyHostileServer(t *testing.T) {
	s, _, _ := logsOf(t, 300)
	tiles := api.Tiles(s, nil)
	elsewhere := httptest.NewServer(tiles)
	defer elsewhere.Close()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy := 2
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		code  int
		words string
	}{
		"sends on to another host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		}, exitFailed, "sends on to another host"},
		"sends on in circles": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, exitFailed, "more than 5 times"},
		"sends on to itself": {func(w http.ResponseWriter, r *http.Request) {
			if rest, ok := strings.CutPrefix(r.URL.Path, "/logs/"); ok && !strings.HasPrefix(rest, "x/") {
				r.URL.Path = "/logs/" + rest
				tiles.ServeHTTP(w, r)
				return
			}
			http.NotFound(w, r)
		}, exitOK, "VALID"},
		"has no end": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(make([]byte, 128<<10))
		}, exitInvalid, "it is not there"},
		"wants a token": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			tiles.ServeHTTP(w, r)
		}, exitOK, "VALID"},
		"refuses the token": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, exitFailed, "--token-file"},
		"is busy at times": {func(w http.ResponseWriter, r *http.Request) {
			if busy--; busy == 0 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			tiles.ServeHTTP(w, r)
		}, exitOK, "VALID"},
		"is broken": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, exitFailed, "500"},
		"knows nothing": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, fs.ErrNotExist.Error(), http.StatusNotFound)
		}, exitInvalid, "it is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(c.serve)
			defer srv.Close()
			code, out, errs := call(t, "verify", "--key", s.HostLog().VerifierKey(), "--token-file", token, srv.URL)
			if code != c.code || !strings.Contains(out+errs, c.words) {
				t.Errorf("exit %d, want %d with %q\n%s%s", code, c.code, c.words, out, errs)
			}
		})
	}
}

// TestVerifyTLS verifies at a server with certificates of its own, who wants to see
// one.
func TestVerifyTLS(t *testing.T) {
	s, _, _ := logsOf(t, 10)
	srv := httptest.NewUnstartedServer(api.Tiles(s, nil))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // the refusals below
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	own := srv.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := file("cert.pem", "CERTIFICATE", own.Certificate[0]), file("key.pem", "PRIVATE KEY", der)
	for args, c := range map[string]struct {
		code  int
		words string
	}{
		"":                                     {exitFailed, "certificate"},
		"--ca " + cert:                         {exitFailed, "certificate"},
		"--ca " + cert + " --tls-cert " + cert: {exitUsage, "belong together"},
		"--ca " + key + " --tls-cert " + cert + " --tls-key " + key:  {exitFailed, "holds none in PEM"},
		"--ca " + cert + " --tls-cert " + cert + " --tls-key " + key: {exitOK, "VALID"},
	} {
		code, out, errs := call(t, append([]string{"verify", "--key", s.HostLog().VerifierKey(), srv.URL}, strings.Fields(args)...)...)
		if code != c.code || !strings.Contains(out+errs, c.words) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", args, code, c.code, c.words, out, errs)
		}
	}
}

// TestVerifyArchive verifies the archive of a closed log as a file, and one of which a
// bit was changed.
func TestVerifyArchive(t *testing.T) {
	s, l, _ := logsOf(t, 300)
	if err := s.CloseLog(t.Context(), l, "test", ""); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.Archive(t.Context(), l, &b, chain.ArchiveOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, policy := filepath.Join(dir, "shard.zip"), filepath.Join(dir, "policy")
	for name, data := range map[string][]byte{file: b.Bytes(), policy: []byte("log " + s.HostLog().VerifierKey() + "\nquorum none\n")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(code int, words string, args ...string) {
		t.Helper()
		got, out, errs := call(t, append([]string{"verify"}, args...)...)
		if got != code || !strings.Contains(out+errs, words) {
			t.Errorf("verify %v: exit %d, want %d with %q\n%s%s", args, got, code, words, out, errs)
		}
	}
	key := s.HostLog().VerifierKey()
	want(exitOK, "That log was closed by its entry 301", "--key", key, file)
	want(exitOK, "All 302 entries are there", "--policy", policy, file)
	want(exitOK, "\"valid\": true", "--key", key, "--output", "json", file)
	want(exitUsage, "for directories and URLs", "--key", key, "--state", filepath.Join(dir, "state"), file)
	bad := bytes.Clone(b.Bytes())
	at := bytes.Index(bad, []byte("tile/entries/000"))
	bad[at+600] ^= 1
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	want(exitInvalid, "entries 0 to 255 cannot be read", "--key", key, file)
}
