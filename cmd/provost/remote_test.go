package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestServer asks a daemon elsewhere, with a token and with a certificate.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1/domains":
			http.NotFound(w, r)
		case r.Header.Get("Authorization") == "Bearer right", r.Header.Get("Authorization") == "" && len(r.TLS.PeerCertificates) == 1:
			_, _ = io.WriteString(w, `[{"uuid":"u","name":"web","state":"running\u001b[2J\u009b1m\u007f\u202egnp.exe\udb40\udc41","agent":"none"},{"uuid":"v","name":"old","state":"gone","agent":"none"}]`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"status":401,"detail":"nobody is known to send this request\u001b]0;VALID\u0007"}`)
		}
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	defer srv.Close()
	ca := put("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	right, wrong, open := put("right", "right\n"), put("wrong", "wrong"), put("open", "right")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	certificate, key := testPair(t, put)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"token":        {[]string{"--ca", ca, "--token-file", right}, exitOK, "web"},
		"certificate":  {[]string{"--ca", ca, "--tls-cert", certificate, "--tls-key", key}, exitOK, "web"},
		"wrong token":  {[]string{"--ca", ca, "--token-file", wrong}, exitFailed, "nobody is known"},
		"open token":   {[]string{"--ca", ca, "--token-file", open}, exitFailed, "chmod 0600"},
		"in JSON":      {[]string{"--ca", ca, "--token-file", right, "--output", "json"}, exitOK, `"state": "running\u001b[2J\u009b1m\u007f\u202egnp.exe\udb40\udc41"`},
		"empty token":  {[]string{"--ca", ca, "--token-file", put("empty", "\n")}, exitFailed, "is empty"},
		"no authority": {[]string{"--token-file", right}, exitFailed, "name the authority with --ca"},
	} {
		code, out, told := call(t, append([]string{"domain", "list", "--server", srv.URL}, c.args...)...)
		if code != c.code || !strings.Contains(out+told, c.want) || strings.Contains(out, "old") {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", name, code, c.code, c.want, out, told)
		}
		if strings.ContainsAny(out+told, "\x1b\x07\x7f\u009b\u202e\U000e0041") {
			t.Errorf("%s: a terminal is told what to do by the server: %q", name, out+told)
		}
	}
}

// testPair writes a client certificate that signs itself, and its key.
func testPair(t *testing.T, put func(name, text string) string) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return put("c.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		put("k.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})))
}
