package access

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

// TLSFiles are what a listener shows and whom it believes.
type TLSFiles struct {
	Certificate string // chain, PEM
	Key         string // its private key, PEM
	ClientCA    string // CAs of client certificates, PEM; empty: none are asked for
	// ClientCRLs are files of the CAs' revocation lists, PEM or DER. None: nothing
	// is revoked. Else what no list in date tells of is refused.
	ClientCRLs []string
	// Optional lets clients in that show no certificate: they have a token.
	Optional bool
}

// TLS is the certificate of a listener, the CAs of its clients and what these
// have revoked. Each handshake and each request sees the files as they are; a set
// that cannot be used leaves the one before in force, and is told. It is safe for
// concurrent use.
type TLS struct {
	files TLSFiles
	log   *slog.Logger
	stats *Stats
	now   func() time.Time

	mu    sync.Mutex
	seen  []stamp // of the files when they were last read
	bad   error   // why they are not used, as it was logged
	stale string  // why a list tells nothing any more, likewise
	trust *trust
}

// trust is one set of files.
type trust struct {
	conf  *tls.Config
	cas   []*x509.Certificate
	lists *revocations
}

// OpenTLS reads the files of a listener. now is the clock.
func OpenTLS(files TLSFiles, log *slog.Logger, stats *Stats, now func() time.Time) (*TLS, error) {
	t := &TLS{files: files, log: log, stats: stats, now: now}
	return t, t.Reload(context.Background())
}

// Config is the configuration of a listener: TLS 1.3 and HTTP/1.1 only. Without
// HTTP/2 one connection carries one request at a time, so that limits of
// connections limit requests.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			return t.current(h.Context()).conf, nil
		},
	}
}

// current returns what is in force, behind a look at the files.
func (t *TLS) current(ctx context.Context) *trust {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.refresh(ctx) // logged there, and the set before stays
	return t.trust
}

// Reload looks at the files now.
func (t *TLS) Reload(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refresh(ctx)
}

// Fresh returns an error where the revocation list of a CA is out of date, so that
// none of its certificates is taken.
func (t *TLS) Fresh() error {
	set := t.current(context.Background())
	return set.lists.fresh(set.cas, t.now())
}

func (t *TLS) refresh(ctx context.Context) error {
	var now []stamp
	for _, name := range append([]string{t.files.Certificate, t.files.Key, t.files.ClientCA}, t.files.ClientCRLs...) {
		now = append(now, stampOf(name))
	}
	// Files that are of no use are so until they change: they may be large, and
	// whoever connects would have them read.
	if slices.EqualFunc(t.seen, now, stamp.same) && (t.bad == nil || errors.Is(t.bad, record.ErrReject)) {
		return t.bad
	}
	set, err := t.load()
	changed := !slices.Equal(t.seen, now)
	t.seen = now
	if err == nil {
		if t.trust == nil || changed || t.bad != nil {
			t.stats.Reloads.Add(1)
			t.trust = set // and with it new keys of session tickets
			t.tell(ctx, set.lists.fresh(set.cas, t.now()))
		}
		t.bad = nil
		return nil
	}
	if t.bad == nil || err.Error() != t.bad.Error() { // once for each fault
		t.stats.ReloadFails.Add(1)
		t.log.ErrorContext(ctx, "the certificates of a listener cannot be used, those before stay in force", "error", err)
	}
	t.bad = err
	return err
}

// tell logs that a revocation list is out of date, once for each; nil: none is.
func (t *TLS) tell(ctx context.Context, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != t.stale {
		t.stats.ReloadFails.Add(1)
		t.log.ErrorContext(ctx, "client certificates are refused", "error", err)
	}
	t.stale = why
}

func (t *TLS) load() (*trust, error) {
	chain, err := os.ReadFile(t.files.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, err := readPrivate(t.files.Key, maxFile, 0o027) // a group may read it, as Debian's ssl-cert
	if err != nil {
		return nil, fmt.Errorf("read key of the certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w: %w", t.files.Certificate, t.files.Key, err, record.ErrReject)
	}
	set := &trust{conf: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}, Time: t.now}}
	if t.files.ClientCA == "" {
		return set, nil
	}
	return set, t.loadClients(set)
}

// loadClients adds whose certificates are taken.
func (t *TLS) loadClients(set *trust) (err error) {
	if set.cas, err = readCAs(t.files.ClientCA); err != nil {
		return fmt.Errorf("read CAs of clients: %w", err)
	}
	set.conf.ClientCAs = x509.NewCertPool()
	for _, ca := range set.cas {
		set.conf.ClientCAs.AddCert(ca)
	}
	set.conf.ClientAuth = tls.RequireAndVerifyClientCert
	if t.files.Optional {
		set.conf.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if len(t.files.ClientCRLs) == 0 {
		return nil
	}
	if set.lists, err = readRevocations(t.files.ClientCRLs, set.cas); err != nil {
		return err
	}
	// Of sessions that are resumed too.
	set.conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return nil
		}
		return t.allow(context.Background(), set, s.VerifiedChains, t.now())
	}
	return nil
}

// readCAs reads the certificates of a file in PEM.
func readCAs(name string) (all []*x509.Certificate, err error) {
	b, err := readBounded(name, maxFile)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		// As x509.CertPool has it: what cannot be read certifies nobody.
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no certificate of a CA in PEM: %w", name, record.ErrReject)
	}
	return all, nil
}

// allow checks chains against the revocation lists of a set.
func (t *TLS) allow(ctx context.Context, set *trust, chains [][]*x509.Certificate, now time.Time) error {
	err := set.lists.allow(chains, now)
	var stale *staleError
	if errors.As(err, &stale) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.tell(ctx, err)
	}
	return err
}

// verify checks the certificate of a connection again: it may have expired or
// been revoked, or its CA gone, since the handshake.
func (t *TLS) verify(ctx context.Context, state *tls.ConnectionState, now time.Time) (*x509.Certificate, error) {
	set := t.current(ctx)
	roots := set.conf.ClientCAs
	if len(state.PeerCertificates) == 0 || len(state.VerifiedChains) == 0 || roots == nil {
		return nil, errors.New("no client certificate")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, err
	}
	return leaf, t.allow(ctx, set, chains, now)
}

// subjectKinds are the names of a certificate that identities are known by.
var subjectKinds = []string{"dns:", "email:", "uri:", "cn:"}

// CheckSubject says whether an identity can be known by a subject.
func CheckSubject(s string) error {
	for _, k := range subjectKinds {
		if v, ok := strings.CutPrefix(s, k); ok && v != "" {
			return nil
		}
	}
	return fmt.Errorf("subject %q begins with none of %s: %w", s, strings.Join(subjectKinds, " "), record.ErrReject)
}

// subjects returns the names of a certificate. Each says of what kind it is, so
// that a CA which checks one kind cannot be made to certify another.
func subjects(c *x509.Certificate) []string {
	var all []string
	for _, n := range c.DNSNames {
		all = append(all, "dns:"+n)
	}
	for _, n := range c.EmailAddresses {
		all = append(all, "email:"+n)
	}
	for _, u := range c.URIs {
		all = append(all, "uri:"+u.String())
	}
	if c.Subject.CommonName != "" {
		all = append(all, "cn:"+c.Subject.CommonName)
	}
	return all
}

// Certified is an identity that is known by subjects of client certificates.
type Certified struct {
	Identity
	Subjects []string
}

// certified returns whose a certificate is. One that fits two identities is
// nobody's.
func certified(all []Certified, c *x509.Certificate) (*Identity, string) {
	var found *Identity
	for _, s := range subjects(c) {
		for i := range all {
			if !slices.Contains(all[i].Subjects, s) || found == &all[i].Identity {
				continue
			}
			if found != nil {
				return nil, fmt.Sprintf("the certificate is that of %s and of %s", found.Name, all[i].Name)
			}
			found = &all[i].Identity
		}
	}
	if found == nil {
		return nil, fmt.Sprintf("no identity has a subject of the certificate: %q", subjects(c))
	}
	id := *found
	sum := sha256.Sum256(c.Raw)
	id.How = "certificate " + idOf(sum[:])
	return &id, ""
}
