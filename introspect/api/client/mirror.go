package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/record"
)

// Bounds of one request for a resource of a mirror.
const (
	mirrorTimeout = 2 * time.Minute
	mirrorTries   = 6 // where the server says that it is busy
	mirrorWait    = 30 * time.Second
	mirrorHops    = 5
)

// MirrorConfig says where logs are served.
type MirrorConfig struct {
	// URL is the base of a Verification Service or of any tlog-tiles server, http or https.
	URL string
	// Token goes with every request; over plain http only to this machine.
	Token string
	// TLS is how to verify the server and to show oneself. Nil: the system's authorities.
	TLS *tls.Config
}

// Mirror reads the resources of logs over HTTP. It is safe for concurrent use.
type Mirror struct {
	base  *url.URL
	token string
	http  *http.Client
	// wait waits before a request is sent again.
	wait func(ctx context.Context, d time.Duration) error
}

var _ mirror.Source = (*Mirror)(nil)

// NewMirror returns a Source over HTTP. An error wraps record.ErrReject.
func NewMirror(cfg MirrorConfig) (*Mirror, error) {
	bad := func(format string, args ...any) (*Mirror, error) {
		return nil, fmt.Errorf("read logs at a URL: %s: %w", fmt.Sprintf(format, args...), record.ErrReject)
	}
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return bad("%v", err)
	case base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "":
		return bad("%q is no URL of a server, want http://HOST[:PORT]/ or https://...", cfg.URL)
	case base.User != nil:
		return bad("the URL holds a password, which lists of processes would show; put a token into a file")
	case base.RawQuery != "" || base.Fragment != "":
		return bad("the URL has a query or a fragment; give the place that the logs stand below")
	case cfg.Token != "" && base.Scheme == "http" && !loopback(base.Hostname()):
		return bad("anybody on the way to %s could read the token; use https", base.Host)
	case strings.ContainsAny(cfg.Token, "\r\n\x00 "):
		return bad("the token holds blanks or control characters; the file must hold the token alone")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 16
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS
	}
	m := &Mirror{base: base, token: cfg.Token, wait: pause}
	m.http = &http.Client{Transport: t, Timeout: mirrorTimeout, CheckRedirect: m.redirect}
	return m, nil
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close drops idle connections.
func (m *Mirror) Close() { m.http.CloseIdleConnections() }

// redirect follows a server to other paths of its own only: another host would be
// asked for what the auditor's network can reach, and be given the token.
func (m *Mirror) redirect(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != m.base.Scheme || r.URL.Host != m.base.Host {
		return fmt.Errorf("the server sends on to another host, %s; give that URL if you trust it", record.Printable([]byte(r.URL.Host)))
	}
	if len(via) > mirrorHops {
		return fmt.Errorf("the server sends on more than %d times", mirrorHops)
	}
	return nil
}

// Fetch implements mirror.Source.
func (m *Mirror) Fetch(ctx context.Context, path string, limit int) ([]byte, error) {
	for try := 1; ; try++ {
		b, again, err := m.once(ctx, path, limit)
		if again == 0 || try == mirrorTries {
			return b, err
		}
		if err := m.wait(ctx, again); err != nil {
			return nil, err
		}
	}
}

// once asks once. again is not zero where the server is busy: how long to wait.
func (m *Mirror) once(ctx context.Context, path string, limit int) (b []byte, again time.Duration, err error) {
	u := m.base.JoinPath(path)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, fmt.Errorf("ask for %s: %w", u, err)
	}
	r.Header.Set("User-Agent", "provost-verify")
	if m.token != "" {
		r.Header.Set("Authorization", "Bearer "+m.token)
	}
	a, err := m.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		return nil, 0, fmt.Errorf("ask for %s: %w", path, err)
	}
	defer func() { _ = a.Body.Close() }() // what was read counts
	switch a.StatusCode {
	case http.StatusOK:
	case http.StatusGone:
		if gone := goneEntries(a); gone != nil {
			return nil, 0, fmt.Errorf("%s: %w", u, gone)
		}
		fallthrough
	case http.StatusNotFound:
		return nil, 0, fmt.Errorf("%s: the server says %s: %w", u, a.Status, fs.ErrNotExist)
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, 0, fmt.Errorf("%s: the server says %s: give a token with --token-file", u, record.Printable([]byte(a.Status)))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return nil, retryAfter(a), fmt.Errorf("%s: the server says %s", u, record.Printable([]byte(a.Status)))
	default:
		return nil, 0, fmt.Errorf("%s: the server says %s", u, record.Printable([]byte(a.Status)))
	}
	b, err = io.ReadAll(io.LimitReader(a.Body, int64(limit)+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", u, err)
	}
	if len(b) > limit {
		return nil, 0, fmt.Errorf("%s: more than %d bytes: %w", u, limit, mirror.ErrTooLarge)
	}
	return b, 0, nil
}

// maxReason bounds what is repeated of what a server says.
const maxReason = 512

// goneEntries reads which entries a server says that it cannot read any more, nil where
// it does not say.
func goneEntries(a *http.Response) *mirror.GoneError {
	var p Problem
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	if kind != ProblemType || json.NewDecoder(io.LimitReader(a.Body, maxProblem)).Decode(&p) != nil || p.Unreadable == nil {
		return nil
	}
	u := p.Unreadable
	return &mirror.GoneError{First: u.First, Last: u.Last, Reason: u.Reason[:min(len(u.Reason), maxReason)]}
}

// retryAfter is how long a busy server wants to be left alone.
func retryAfter(a *http.Response) time.Duration {
	n, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || n < 1 {
		return time.Second
	}
	return min(time.Duration(n)*time.Second, mirrorWait)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
