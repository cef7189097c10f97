package access

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRevoked revokes a certificate: new connections of it do not come about, old
// ones are of no use, and nobody else notices.
func TestRevoked(t *testing.T) {
	d := openDoor(t, settings{lists: []string{"clients.crl"}})
	gone, stays := d.clients.client(nil, "cn:acme"), d.clients.client(nil, "dns:auditor.example.net")
	old, other := d.client(gone), d.client(stays)
	for _, c := range []*http.Client{old, other} {
		if a := d.get(c, "/", ""); a.status != http.StatusOK {
			t.Fatalf("before: %d %s %v", a.status, a.body, a.err)
		}
	}
	put(t, d.file("clients.crl"), d.clients.list(nil, gone))
	if a := d.get(old, "/", ""); a.status != http.StatusUnauthorized {
		t.Errorf("revoked, on an old connection: %d %s %v", a.status, a.body, a.err)
	}
	if a := d.get(d.client(gone), "/", ""); a.err == nil {
		t.Errorf("revoked, on a new connection: %d %s", a.status, a.body)
	}
	for _, c := range []*http.Client{other, d.client(stays)} {
		if a := d.get(c, "/", ""); a.status != http.StatusOK {
			t.Errorf("another one: %d %s %v", a.status, a.body, a.err)
		}
	}
	// A session of before is not resumed either.
	conf := d.client(gone).Transport.(*http.Transport).TLSClientConfig
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	put(t, d.file("clients.crl"), d.clients.list(nil))
	resumed := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	if a := d.get(resumed, "/", ""); a.status != http.StatusOK {
		t.Fatalf("taken off the list: %d %v", a.status, a.err)
	}
	put(t, d.file("clients.crl"), d.clients.list(nil, gone))
	if a := d.get(resumed, "/", ""); a.err == nil {
		t.Errorf("revoked, with a session of before: %d %s", a.status, a.body)
	}
}

// TestRevocationListEnds holds that nothing is taken on the word of an old list.
func TestRevocationListEnds(t *testing.T) {
	d := openDoor(t, settings{lists: []string{"clients.crl"}})
	acme := d.clients.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) }, "cn:acme")
	text := d.token("bob", Auditor)
	old := d.client(acme)
	if a := d.get(old, "/", ""); a.status != http.StatusOK || d.tls.Fresh() != nil {
		t.Fatalf("before: %d %s %v %v", a.status, a.body, a.err, d.tls.Fresh())
	}
	d.clock.pass(59 * time.Minute)
	if a := d.get(d.client(acme), "/", ""); a.status != http.StatusOK {
		t.Fatalf("while the list is good: %d %s %v", a.status, a.body, a.err)
	}
	if a := d.get(d.client(nil), "/", text); a.status != http.StatusOK {
		t.Errorf("a token: %d", a.status)
	}
	d.clock.pass(2 * time.Minute)
	before := d.stats.ReloadFails.Load()
	for range 3 {
		if a := d.get(d.client(acme), "/", ""); a.err == nil {
			t.Errorf("behind the end of the list, on a new connection: %d %s", a.status, a.body)
		}
		if a := d.get(old, "/", ""); a.status != http.StatusUnauthorized {
			t.Errorf("behind the end of the list, on an old connection: %d %s", a.status, a.body)
		}
	}
	if n := d.stats.ReloadFails.Load() - before; n != 1 {
		t.Errorf("it is told %d times", n)
	}
	if err := d.tls.Fresh(); err == nil || !strings.Contains(err.Error(), "was good until") || !strings.Contains(err.Error(), d.file("clients.crl")) {
		t.Errorf("the list is out of date: %v", err)
	}
	// One of tomorrow is none of today.
	put(t, d.file("clients.crl"), d.clients.list(func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = d.clock.Now().Add(time.Hour), d.clock.Now().Add(2*time.Hour)
	}))
	if a := d.get(d.client(acme), "/", ""); a.err == nil {
		t.Errorf("under a list of tomorrow: %d %s", a.status, a.body)
	}
	put(t, d.file("clients.crl"), d.clients.list(func(l *x509.RevocationList) { l.NextUpdate = d.clock.Now().Add(time.Hour) }))
	if a := d.get(d.client(acme), "/", ""); a.status != http.StatusOK || d.tls.Fresh() != nil {
		t.Errorf("under a new list: %d %s %v", a.status, a.body, a.err)
	}
}

// TestRevocationReload replaces lists by what cannot be used: those before stay.
func TestRevocationReload(t *testing.T) {
	d := openDoor(t, settings{lists: []string{"clients.crl"}, required: true})
	gone, stays := d.clients.client(nil, "cn:acme"), d.clients.client(nil, "dns:auditor.example.net")
	newer := newAuthority(t, "clients") // of the same name
	put(t, d.file("clients.crl"), d.clients.pemList(gone))
	if err := d.tls.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	entry := x509.RevocationListEntry{SerialNumber: d.clients.cert.SerialNumber, RevocationTime: time.Now(),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}
	with := func(id asn1.ObjectIdentifier, critical bool) []byte {
		return d.clients.list(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: []byte{0x30, 0}}}
		})
	}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"nothing":         {nil, "no revocation list"},
		"a certificate":   {d.clients.pem(), "want X509 CRL only"},
		"cut off":         {d.clients.list(nil)[:90], "no revocation list"},
		"one more byte":   {append(d.clients.list(nil), 0), "no revocation list"},
		"a spoilt block":  {append(d.clients.pemList(), bytes.Replace(d.clients.pemList(gone), []byte("\nM"), []byte("\n!"), 1)...), "1 of 2 blocks"},
		"a changed byte":  {flip(d.clients.list(nil)), "none is signed by"},
		"another CA":      {d.servers.list(nil), "none is signed by"},
		"of a namesake":   {newer.list(nil), "none is signed by"},
		"changes only":    {with(deltaList, true), "delta list"},
		"a part":          {with(partialList, false), "of some certificates only"},
		"unknown":         {with(asn1.ObjectIdentifier{1, 2, 3}, true), "critical and not known"},
		"unknown entry":   {d.clients.list(func(l *x509.RevocationList) { l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, entry) }), "has an entry with"},
		"a very long one": {bytes.Repeat([]byte{'x'}, maxCRL+1), "has more than"},
	} {
		put(t, d.file("clients.crl"), c.file)
		if err := d.tls.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if a := d.get(d.client(gone), "/", ""); a.err == nil {
			t.Errorf("%s: what was revoked gets in: %d", name, a.status)
		}
		if a := d.get(d.client(stays), "/", ""); a.status != http.StatusOK {
			t.Errorf("%s: what was not revoked is refused: %d %v", name, a.status, a.err)
		}
	}
	if err := complete(&x509.RevocationList{ThisUpdate: time.Now()}); err == nil || !strings.Contains(err.Error(), "until when") {
		t.Errorf("a list without an end: %v", err)
	}
}

// flip changes the last byte of a signature.
func flip(b []byte) []byte { b[len(b)-1] ^= 1; return b }

// TestRevokedBetween wants a list of each CA between a client and client_ca.
func TestRevokedBetween(t *testing.T) {
	d := openDoor(t, settings{lists: []string{"clients.crl", "between.crl"}, required: true})
	between := &authority{t: t}
	between.key, between.cert = d.clients.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "between"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	acme := between.client(nil, "cn:acme")
	acme.Certificate = append(acme.Certificate, between.cert.Raw)
	itself := &tls.Certificate{Certificate: [][]byte{between.cert.Raw}}
	for _, c := range []struct {
		name          string
		root, between []byte
		ok            bool
	}{
		{"no list of the CA between", d.clients.list(nil), d.clients.list(nil), false},
		{"one of each", d.clients.list(nil), between.list(nil), true},
		{"both in one file", append(d.clients.pemList(), between.pemList()...), d.clients.list(nil), true},
		{"the client is revoked", d.clients.list(nil), between.list(nil, acme), false},
		{"the CA between is revoked", d.clients.list(nil, itself), between.list(nil), false},
		{"by one of two lists", append(between.pemList(acme), between.pemList()...), d.clients.list(nil), false},
		{"its number is revoked by another CA", d.clients.list(func(l *x509.RevocationList) {
			leaf, err := x509.ParseCertificate(acme.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: leaf.SerialNumber, RevocationTime: time.Now()}}
		}), between.list(nil), leafNumber(t, acme) != between.cert.SerialNumber.Int64()},
	} {
		put(t, d.file("clients.crl"), c.root)
		put(t, d.file("between.crl"), c.between)
		if err := d.tls.Reload(t.Context()); err != nil {
			t.Fatal(c.name, err)
		}
		if a := d.get(d.client(acme), "/", ""); (a.err == nil && a.status == http.StatusOK) != c.ok {
			t.Errorf("%s: %d %s %v", c.name, a.status, a.body, a.err)
		}
	}
}

func leafNumber(t *testing.T, c *tls.Certificate) int64 {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.Int64()
}
