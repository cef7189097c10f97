package access

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestCertificates shows a listener certificates of many kinds.
func TestCertificates(t *testing.T) {
	d := openDoor(t, settings{required: true})
	strangers := newAuthority(t, "clients") // of the same name
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		want string // of a body; empty: the handshake fails
	}{
		{"dns", d.clients.client(nil, "dns:auditor.example.net"), "auditor auditor  from 127.0.0.1"},
		{"email", d.clients.client(nil, "email:audit@example.net", "cn:whatever"), "auditor auditor  from 127.0.0.1"},
		{"two names of one", d.clients.client(nil, "dns:auditor.example.net", "email:audit@example.net"), "auditor auditor  from 127.0.0.1"},
		{"uri", d.clients.client(nil, "uri:spiffe://example.net/acme"), "tenant acme " + ownDomain + " from 127.0.0.1"},
		{"common name", d.clients.client(nil, "cn:acme"), "tenant acme " + ownDomain + " from 127.0.0.1"},
		{"none", nil, ""},
		{"expired", d.clients.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, "cn:acme"), ""},
		{"another CA", strangers.client(nil, "dns:auditor.example.net"), ""},
		{"the servers' CA", d.servers.client(nil, "dns:auditor.example.net"), ""},
		{"for servers", d.clients.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "cn:acme"), ""},
		{"another name", d.clients.client(nil, "dns:auditor.example.org"), "nobody is known"},
		{"name of another kind", d.clients.client(nil, "cn:auditor.example.net"), "nobody is known"},
		{"wildcard", d.clients.client(nil, "dns:*.example.net"), "nobody is known"},
		{"two identities", d.clients.client(nil, "dns:auditor.example.net", "cn:acme"), "nobody is known"},
		{"no name", d.clients.client(nil), "nobody is known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := d.get(d.client(c.cert), "/", "")
			switch {
			case c.want == "" && a.err == nil:
				t.Errorf("it is answered %d %s", a.status, a.body)
			case c.want != "" && a.err != nil:
				t.Error(a.err)
			case c.want != "" && (!strings.Contains(a.body, c.want) || (a.status == http.StatusOK) != !strings.HasPrefix(c.want, "nobody")):
				t.Errorf("%d %s, want %s", a.status, a.body, c.want)
			}
		})
	}
	if n := d.stats.Failures.Load(); n != 5 {
		t.Errorf("%d failures are counted", n)
	}
}

// TestOldTLS holds that nothing older than TLS 1.3 is spoken, nor HTTP/2.
func TestOldTLS(t *testing.T) {
	d := openDoor(t, settings{})
	text := d.token("bob", Auditor)
	c := d.client(nil)
	conf := c.Transport.(*http.Transport).TLSClientConfig
	conf.MaxVersion = tls.VersionTLS12
	if a := d.get(c, "/", text); a.err == nil || !strings.Contains(a.err.Error(), "protocol version") {
		t.Errorf("TLS 1.2 is answered %d: %v", a.status, a.err)
	}
	conn, err := tls.Dial("tcp", d.address, &tls.Config{RootCAs: conf.RootCAs, ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s := conn.ConnectionState(); s.NegotiatedProtocol != "http/1.1" || s.Version != tls.VersionTLS13 {
		t.Errorf("%s over %s", s.NegotiatedProtocol, tls.VersionName(s.Version))
	}
	res, err := http.Get("http://" + d.address + "/")
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP is answered %s", res.Status)
		}
	}
}

// TestCertificateEnds holds that a certificate is asked for again with each
// request, not only with each connection.
func TestCertificateEnds(t *testing.T) {
	d := openDoor(t, settings{required: true})
	c := d.client(d.clients.client(nil, "cn:acme"))
	if a := d.get(c, "/", ""); a.status != http.StatusOK {
		t.Fatalf("%d %s %v", a.status, a.body, a.err)
	}
	d.clock.pass(2 * time.Hour)
	if a := d.get(c, "/", ""); a.status != http.StatusUnauthorized || d.stats.Connections.Load() != 1 {
		t.Errorf("an expired certificate on an old connection: %d %s %v", a.status, a.body, a.err)
	}
}

// TestReload replaces the files of a listener that runs.
func TestReload(t *testing.T) {
	d := openDoor(t, settings{})
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", d.address, d.client(nil).Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "first" {
		t.Fatalf("shown is %s", got)
	}
	old := d.client(d.clients.client(nil, "cn:acme"))
	if a := d.get(old, "/", ""); a.status != http.StatusOK {
		t.Fatalf("%d %s %v", a.status, a.body, a.err)
	}
	d.servers.server(d.dir, "second")
	if got := shown(); got != "second" {
		t.Errorf("behind the change %s is shown", got)
	}
	// Half of a pair: the one before stays, and it is told once.
	key, err := os.ReadFile(d.file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	d.servers.server(d.dir, "third")
	put(t, d.file("server.key"), key)
	if err := d.tls.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("a pair that does not fit: %v", err)
	}
	if got := shown(); got != "second" || d.stats.ReloadFails.Load() != 1 {
		t.Errorf("behind a change that cannot be used %s is shown, %d times told", got, d.stats.ReloadFails.Load())
	}
	d.servers.server(d.dir, "fourth")
	if err := d.tls.Reload(t.Context()); err != nil || shown() != "fourth" {
		t.Errorf("what was mended is not used: %v", err)
	}
	// A CA that goes takes the connections of its clients along.
	next := newAuthority(t, "next")
	put(t, d.file("clients.pem"), next.pem())
	if a := d.get(old, "/", ""); a.status != http.StatusUnauthorized {
		t.Errorf("a client of a CA that is gone: %d %s %v", a.status, a.body, a.err)
	}
	if a := d.get(d.client(next.client(nil, "cn:acme")), "/", ""); a.status != http.StatusOK {
		t.Errorf("a client of the new CA: %d %s %v", a.status, a.body, a.err)
	}
}

// TestOpenTLS refuses files that a listener cannot use.
func TestOpenTLS(t *testing.T) {
	d := openDoor(t, settings{})
	good := TLSFiles{Certificate: d.file("server.pem"), Key: d.file("server.key"), ClientCA: d.file("clients.pem")}
	for name, c := range map[string]struct {
		change func(*TLSFiles)
		want   string
	}{
		"no certificate": {func(f *TLSFiles) { f.Certificate = d.file("x") }, "no such file"},
		"no CA":          {func(f *TLSFiles) { f.ClientCA = d.file("x") }, "no such file"},
		"CA without":     {func(f *TLSFiles) { f.ClientCA = f.Key }, "no certificate of a CA"},
		"no key":         {func(f *TLSFiles) { f.Key = f.Certificate }, "private key"},
		"open key": {func(f *TLSFiles) {
			if err := os.Chmod(f.Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 0600"},
	} {
		t.Run(name, func(t *testing.T) {
			f := good
			c.change(&f)
			_, err := OpenTLS(f, d.tokens.log, &Stats{}, time.Now)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := os.Chmod(good.Key, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	for s, ok := range map[string]bool{"dns:a": true, "email:a@b": true, "uri:spiffe://a": true, "cn:x": true, "": false, "dns:": false, "a": false, "ip:1.2.3.4": false} {
		if err := CheckSubject(s); (err == nil) != ok {
			t.Errorf("subject %q: %v", s, err)
		}
	}
}
