package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const ownDomain = "11111111-2222-4333-8444-555555555555"

// authority is a CA of a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	n    int64

	lists int64 // that it has made
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	return a
}

// sign completes a template and signs it; the first one by itself.
func (a *authority) sign(c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c.SerialNumber = big.NewInt(a.n)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.NotBefore = time.Now().Add(-2 * time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return k, out
}

// pem returns the CA's certificate.
func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// client is a certificate of a client with some subjects.
func (a *authority) client(change func(*x509.Certificate), subjects ...string) *tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, s := range subjects {
		kind, v, _ := strings.Cut(s, ":")
		switch kind {
		case "dns":
			c.DNSNames = append(c.DNSNames, v)
		case "email":
			c.EmailAddresses = append(c.EmailAddresses, v)
		case "uri":
			u, err := url.Parse(v)
			if err != nil {
				a.t.Fatal(err)
			}
			c.URIs = append(c.URIs, u)
		case "cn":
			c.Subject.CommonName = v
		}
	}
	if change != nil {
		change(c)
	}
	k, cert := a.sign(c)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: k}
}

// server writes certificate and key of a server into a directory.
func (a *authority) server(dir, name string) {
	a.t.Helper()
	k, c := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	put(a.t, filepath.Join(dir, "server.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	put(a.t, filepath.Join(dir, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// list is a revocation list of the CA, DER, that is good for an hour.
func (a *authority) list(change func(*x509.RevocationList), revoked ...*tls.Certificate) []byte {
	a.t.Helper()
	a.lists++
	l := &x509.RevocationList{Number: big.NewInt(a.lists), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range revoked {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			a.t.Fatal(err)
		}
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: leaf.SerialNumber, RevocationTime: time.Now()})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// pemList is list in PEM.
func (a *authority) pemList(revoked ...*tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: a.list(nil, revoked...)})
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// clock is a clock that is set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

// door is a TLS listener with all that stands in front of routes.
type door struct {
	t       *testing.T
	dir     string
	address string
	clients *authority
	servers *authority
	stats   Stats
	clock   clock
	guard   *Guard
	tls     *TLS
	tokens  *Tokens
}

// settings of a door that tests differ in.
type settings struct {
	required    bool     // a client certificate
	lists       []string // files of revocation lists, at first empty ones of the clients' CA
	limits      Limits
	connections Connections
	routes      func(http.ResponseWriter, *http.Request)
	patience    time.Duration // with headers, bodies and readers; 0: as it is
}

func openDoor(t *testing.T, s settings) *door {
	t.Helper()
	d := &door{t: t, dir: t.TempDir(), clients: newAuthority(t, "clients"), servers: newAuthority(t, "servers"), clock: clock{now: time.Now()}}
	d.servers.server(d.dir, "first")
	put(t, filepath.Join(d.dir, "clients.pem"), d.clients.pem())
	log := slog.New(slog.DiscardHandler)
	var err error
	if d.tokens, err = OpenTokens(d.file("tokens"), log, &d.stats); err != nil {
		t.Fatal(err)
	}
	files := TLSFiles{Certificate: d.file("server.pem"), Key: d.file("server.key"), ClientCA: d.file("clients.pem"), Optional: !s.required}
	for _, name := range s.lists {
		put(t, d.file(name), d.clients.list(nil))
		files.ClientCRLs = append(files.ClientCRLs, d.file(name))
	}
	d.tls, err = OpenTLS(files, log, &d.stats, d.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if s.limits.RequestsPerSecond == 0 {
		s.limits.RequestsPerSecond = 1000
	}
	if s.connections.PerSecond == 0 {
		s.connections.PerSecond = 1000
	}
	cfg := GuardConfig{Limits: s.limits, Expensive: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/expensive") },
		Cheap: func(r *http.Request) bool { return r.URL.Path == "/cheap" },
		Stats: &d.stats, Log: log, Now: d.clock.Now}
	cfg.private.body, cfg.private.answer = s.patience, s.patience
	if s.patience == 0 {
		s.patience = 10 * time.Second
	}
	d.guard = NewGuard(cfg)
	if s.routes == nil {
		s.routes = func(w http.ResponseWriter, r *http.Request) {
			who := From(r.Context())
			fmt.Fprintf(w, "%s %s %s from %s", who.Role, who.Name, strings.Join(who.Domains, ","), who.Address)
		}
	}
	from := &Remote{TLS: d.tls, Tokens: d.tokens, Identities: []Certified{
		{Identity{Name: "auditor", Role: Auditor}, []string{"dns:auditor.example.net", "email:audit@example.net"}},
		{Identity{Name: "acme", Role: Tenant, Domains: []string{ownDomain}}, []string{"uri:spiffe://example.net/acme", "cn:acme"}},
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	one := &http.Protocols{}
	one.SetHTTP1(true)
	srv := &http.Server{Handler: d.guard.Wrap(http.HandlerFunc(s.routes), from), Protocols: one, ReadHeaderTimeout: s.patience, MaxHeaderBytes: 16 << 10, ConnContext: WithConn,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan error, 1)
	go func() {
		done <- srv.Serve(tls.NewListener(Bound(l, s.connections, &d.stats, d.clock.Now), d.tls.Config()))
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return d
}

func (d *door) file(name string) string { return filepath.Join(d.dir, name) }

// token makes one.
func (d *door) token(name string, role Role, domains ...string) string {
	d.t.Helper()
	text, _, err := CreateToken(d.file("tokens"), name, role.String(), domains, d.clock.Now(), time.Hour)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// client returns a client that shows a certificate, or none, and knows the
// server's CA.
func (d *door) client(c *tls.Certificate) *http.Client {
	d.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(d.servers.cert)
	conf := &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if c == nil {
			return &tls.Certificate{}, nil
		}
		return c, nil // also to a server that does not know its CA
	}}
	tr := &http.Transport{TLSClientConfig: conf}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// answer is what came back.
type answer struct {
	status int
	body   string
	header http.Header
	err    error
}

func (d *door) get(c *http.Client, path, token string) answer {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "https://"+d.address+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return do(c, r)
}

func do(c *http.Client, r *http.Request) answer {
	res, err := c.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(b), res.Header, err}
}

// eventually waits for something that another goroutine brings about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}
