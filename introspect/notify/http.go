package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// HTTPConfig says how to reach a receiver over HTTP. URL is required.
type HTTPConfig struct {
	// URL comes from the host's configuration only. Nothing that a guest or a
	// receiver says changes where requests go.
	URL string
	// TokenFile holds a bearer token; it is read for each request.
	TokenFile string
	TLS       TLSConfig
	// Cleartext allows http:// to other hosts than this one.
	Cleartext bool
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// TLSConfig says whom to believe, and who we are.
type TLSConfig struct {
	CAFile string // PEM; empty: the system's
	// CertificateFile and KeyFile are ours, PEM; read for each connection.
	CertificateFile, KeyFile string
}

const (
	maxAnswerBytes = 64 << 10
	maxSecretFile  = 64 << 10
	maxCAFile      = 4 << 20
)

// httpClient posts to one address.
type httpClient struct {
	cfg  HTTPConfig
	url  string
	http *http.Client
}

// newHTTP checks an address, and reads what its connections need.
func newHTTP(c HTTPConfig, path string) (*httpClient, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		var bad *url.Error
		if errors.As(err, &bad) {
			err = errors.New("it has what no address may have") // and what it has may be a secret
		}
		return nil, fmt.Errorf("the url cannot be read: %w: %w", err, record.ErrReject)
	}
	shown := u.Scheme + "://" + u.Host // the rest may be a secret
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("url %q: want https://HOST/PATH, without user and fragment; token_file is for secrets: %w", shown, record.ErrReject)
	}
	if u.Scheme == "http" && !c.Cleartext && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("url %q is not encrypted: whoever is on the way reads the alerts, and can answer for the receiver; want https, or say cleartext = true: %w", shown, record.ErrReject)
	}
	tc, err := c.TLS.client()
	if err != nil {
		return nil, err
	}
	if c.TokenFile != "" {
		if _, err := readSecret(c.TokenFile); err != nil {
			return nil, err
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &httpClient{cfg: c, url: strings.TrimRight(c.URL, "/") + path, http: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSClientConfig: tc,
			TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10, ForceAttemptHTTP2: true,
		},
		// A receiver that could send us elsewhere could have us ask services of
		// this host's network for it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (t *TLSConfig) client() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := readFile(t.CAFile, maxCAFile)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM: %w", t.CAFile, record.ErrReject)
		}
	}
	if (t.CertificateFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("certificate and key belong together, and one of them is missing: %w", record.ErrReject)
	}
	if t.CertificateFile == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
}

// post sends one body. What comes back is the status; nothing else of the
// answer is used.
func (c *httpClient) post(ctx context.Context, contentType string, body []byte, header map[string]string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("User-Agent", "provostd")
	r.Header.Set("Content-Type", contentType)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if c.cfg.TokenFile != "" {
		token, err := readSecret(c.cfg.TokenFile)
		if err != nil {
			return "", err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w, err := c.http.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address may hold a secret path
		}
		return "", err
	}
	defer func() { _ = w.Body.Close() }() // read only
	said, _ := io.ReadAll(io.LimitReader(w.Body, maxAnswerBytes))
	return c.judge(w, said)
}

// judge tells what a status means for the alert.
func (c *httpClient) judge(w *http.Response, said []byte) (string, error) {
	f := &Failure{What: fmt.Sprintf("the receiver answers HTTP %d", w.StatusCode), Said: string(said[:min(len(said), maxText)])}
	switch s := w.StatusCode; {
	case s >= 200 && s < 300:
		return fmt.Sprintf("HTTP %d", s), nil
	case s >= 300 && s < 400:
		f.What += ", a redirection, which is not followed: name its target in the configuration"
	case s == http.StatusBadRequest, s == http.StatusRequestEntityTooLarge, s == http.StatusUnsupportedMediaType, s == http.StatusUnprocessableEntity:
		f.Final = true // it is about this alert; all other refusals may be mended
	}
	f.After = after(w.Header.Get("Retry-After"), c.cfg.Now())
	return "", f
}

// after reads a Retry-After: seconds, or a time.
func after(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	return b, nil
}

// readSecret reads a file that others than its owner and group must not read.
func readSecret(name string) (string, error) {
	st, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s has mode %04o, so everybody on this host can read it; chmod 0600 it: %w", name, st.Mode().Perm(), record.ErrReject)
	}
	b, err := readFile(name, maxSecretFile)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%s holds no secret, or more than one line: %w", name, record.ErrReject)
	}
	return s, nil
}
