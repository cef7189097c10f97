package access

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
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
	// Optional lets clients in that show no certificate: they have a token.
	Optional bool
}

// TLS is the certificate of a listener and the CAs of its clients. Each
// handshake sees the files as they are; a set that cannot be used leaves the
// one before in force, and is told. It is safe for concurrent use.
type TLS struct {
	files TLSFiles
	log   *slog.Logger
	stats *Stats

	mu   sync.Mutex
	seen [3]stamp
	bad  string // why the files are not used, as it was logged
	conf *tls.Config
}

// OpenTLS reads the files of a listener.
func OpenTLS(files TLSFiles, log *slog.Logger, stats *Stats) (*TLS, error) {
	t := &TLS{files: files, log: log, stats: stats}
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
			return t.current(h.Context()), nil
		},
	}
}

// current returns what is in force, behind a look at the files.
func (t *TLS) current(ctx context.Context) *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.refresh(ctx) // logged there, and the set before stays
	return t.conf
}

// Reload looks at the files now.
func (t *TLS) Reload(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refresh(ctx)
}

func (t *TLS) refresh(ctx context.Context) error {
	now := [3]stamp{stampOf(t.files.Certificate), stampOf(t.files.Key), stampOf(t.files.ClientCA)}
	same := t.conf != nil && t.bad == ""
	for i := range now {
		same = same && (t.seen[i].same(now[i]) || t.files.ClientCA == "" && i == 2)
	}
	if same {
		return nil
	}
	conf, err := t.load()
	if err == nil {
		if t.conf == nil || t.seen != now || t.bad != "" {
			t.stats.Reloads.Add(1)
			t.conf = conf // and with it new keys of session tickets
		}
		t.seen, t.bad = now, ""
		return nil
	}
	if err.Error() != t.bad { // once for each fault
		t.bad = err.Error()
		t.stats.ReloadFails.Add(1)
		t.log.ErrorContext(ctx, "the certificates of a listener cannot be used, those before stay in force", "error", err)
	}
	return err
}

func (t *TLS) load() (*tls.Config, error) {
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
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}
	if t.files.ClientCA == "" {
		return c, nil
	}
	cas, err := os.ReadFile(t.files.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read CAs of clients: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(cas) {
		return nil, fmt.Errorf("%s holds no certificate of a CA in PEM: %w", t.files.ClientCA, record.ErrReject)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if t.files.Optional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return c, nil
}

// verify checks the certificate of a connection again: it may have expired, or
// its CA gone, since the handshake.
func (t *TLS) verify(ctx context.Context, state *tls.ConnectionState, now time.Time) (*x509.Certificate, error) {
	roots := t.current(ctx).ClientCAs
	if len(state.PeerCertificates) == 0 || len(state.VerifiedChains) == 0 || roots == nil {
		return nil, errors.New("no client certificate")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return leaf, err
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
