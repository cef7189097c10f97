package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/introspect/api/access"
)

// served is a daemon without libvirt whose listeners run.
type served struct {
	*Daemon
	t      *testing.T
	remote string         // address of the TLS listener
	local  string         // of the plain one
	roots  *x509.CertPool // of its certificate
	halt   func()         // ends the ledger before the rest
}

// serve runs the ledger, the index and the listeners of a daemon with a TLS
// listener that takes tokens.
func serve(t *testing.T, api string) *served {
	t.Helper()
	dir := t.TempDir()
	v := &served{t: t, roots: x509.NewCertPool()}
	v.roots.AddCert(writeCertificate(t, dir))
	cfg, _, diags := parseConfig(fmt.Appendf(nil, `
host_id = "test.host"
state_dir = %q
anchor = %q
api {
  socket = %q
  listen = "127.0.0.1:0"
  tokens = %q
  %s
}
listener "127.0.0.1:0" {
  certificate = %q
  key = %q
  tokens = true
}
`, filepath.Join(dir, "state"), filepath.Join(dir, "anchor", "anchor"), filepath.Join(dir, "s"), filepath.Join(dir, "tokens"), api,
		filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")), "test.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	var err error
	if v.Daemon, err = New(cfg, "test", quiet); err != nil {
		t.Fatal(err)
	}
	s, err := v.listen()
	if err != nil {
		t.Fatal(errors.Join(err, v.Close()))
	}
	v.local, v.remote = s.all[1].listener.Addr().String(), s.all[2].listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ledger, end := context.WithCancel(t.Context())
	ended, done := make(chan error, 1), make(chan error, 2)
	go func() { ended <- v.store.Run(ledger) }()
	for _, run := range []func(context.Context) error{v.index.Run, s.run} {
		go func() { done <- run(ctx) }()
	}
	v.halt = sync.OnceFunc(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		err := errors.Join(<-done, <-done)
		v.halt()
		if err = errors.Join(err, v.Close()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return v
}

// writeCertificate makes a certificate for 127.0.0.1 that signs itself.
func writeCertificate(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: der}, "k.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// token makes a token.
func (v *served) token(name string, role access.Role, domains ...string) string {
	v.t.Helper()
	text, _, err := access.CreateToken(v.cfg.API.Tokens, name, role.String(), domains, time.Now(), time.Hour)
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

// get asks over TLS.
func (v *served) get(path, token string) (status int, body string) {
	v.t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: v.roots}, DisableKeepAlives: true}
	return fetch(v.t, &http.Client{Transport: tr, Timeout: 20 * time.Second}, "https://"+v.remote+path, token, "")
}

func fetch(t *testing.T, c *http.Client, url, token, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestListeners asks a daemon on all of its listeners.
func TestListeners(t *testing.T) {
	v := serve(t, "")
	if status, body := v.get("/v1/status", v.token("root", access.Operator)); status != http.StatusOK || !strings.Contains(body, `"host":"test.host"`) {
		t.Errorf("an operator: %d %s", status, body)
	}
	if status, body := v.get("/v1/status", ""); status != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", status, body)
	}
	if status, _ := v.get("/metrics", v.token("bob", access.Auditor)); status == http.StatusOK {
		t.Error("metrics are served to others than this host")
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{"": 200, "localhost": 200, "localhost:1": 200, "[::1]:1": 200, "evil.example": 421, "203.0.113.5:9477": 421, "0.0.0.0:9477": 421, "127.0.0.2:9477": 200, "evil.example:9477": 421} {
		if status, _ := fetch(t, plain, "http://"+v.local+"/metrics", "", host); status != want {
			t.Errorf("metrics for host %q: %d, want %d", host, status, want)
		}
	}
	for _, path := range []string{"/v1/status", "/v1/tail", "/v1/query"} {
		if status, _ := fetch(t, plain, "http://"+v.local+path, "", ""); status != http.StatusNotFound {
			t.Errorf("%s in plain: %d", path, status)
		}
	}
	broken := v.door.Broken.Load()
	if c, err := tls.Dial("tcp", v.remote, &tls.Config{RootCAs: v.roots, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); v.door.Broken.Load() == broken; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("a handshake that failed is not counted")
		}
	}
	if err := v.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(v.cfg.API.Tokens, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := v.Reload(t.Context()); err == nil {
		t.Error("tokens that others read are taken")
	}
}

// TestBadListeners are errors of the start, and leave no port behind.
func TestBadListeners(t *testing.T) {
	v := serve(t, "")
	for name, change := range map[string]func(c *Config){
		"group":       func(c *Config) { c.API.Group = "no-such-group" },
		"certificate": func(c *Config) { c.Listeners[0].Certificate = "/nowhere" },
		"lists": func(c *Config) {
			c.Listeners[0].ClientCA, c.Listeners[0].ClientCRL = c.Listeners[0].Certificate, []string{"/nowhere"}
		},
		"port in use": func(c *Config) { c.Listeners[0].Address = v.remote },
		"plain port":  func(c *Config) { c.API.Listen = v.local },
	} {
		cfg := *v.cfg
		api := *cfg.API
		cfg.API = &api
		cfg.API.Socket = filepath.Join(t.TempDir(), "s")
		cfg.Listeners = append([]ListenerConfig(nil), cfg.Listeners...)
		change(&cfg)
		if err := CheckListeners(&cfg); (err == nil) == (name == "certificate" || name == "lists") {
			t.Errorf("%s: the check says %v", name, err)
		}
		d := *v.Daemon
		d.cfg = &cfg
		if s, err := d.listen(); err == nil {
			t.Errorf("%s: it listens: %v", name, s)
		}
		if _, err := os.Stat(cfg.API.Socket); err == nil {
			t.Errorf("%s: the socket is left behind", name)
		}
	}
}

// TestSocketOfGroup gives the socket to a group.
func TestSocketOfGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := controlSocket(path, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v: %v", st.Mode(), err)
	}
	if id, err := groupID("root"); err != nil || id != 0 {
		t.Errorf("group root is %d: %v", id, err)
	}
	if id, err := groupID(""); err != nil || id >= 0 {
		t.Errorf("no group is %s: %v", strconv.Itoa(id), err)
	}
}

// TestCheap: what seals a disclosure is not as cheap as a tile, or readers could
// make the host log grow hundreds of times a second.
func TestCheap(t *testing.T) {
	const log = "/logs/h/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/1/"
	for path, want := range map[string]bool{
		log + "checkpoint": true, log + "tile/0/000": true, log + "tile/entries/000": true, log + "tile/openings/001": true, log + "tile/openings/x001/000": true,
		log + "tile/openings/000": false, log + "tile/openings/000.p/7": false, "/v1/query": false,
	} {
		if got := cheap(httptest.NewRequest("GET", path, nil)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
