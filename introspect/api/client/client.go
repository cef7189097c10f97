package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/provostd/provost/chain/record"
)

// DefaultSocket is where provostd listens unless it is told otherwise.
const DefaultSocket = "/run/provost/provostd.sock"

// Client calls one daemon. It is safe for concurrent use.
type Client struct {
	name  string // of the daemon, for people
	base  string // scheme and host
	token string
	http  *http.Client
}

// New returns a client of the daemon behind the unix socket. It connects when
// it is first used.
func New(socket string) *Client {
	d := &net.Dialer{}
	return &Client{name: socket, base: "http://provostd", http: &http.Client{CheckRedirect: stay, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// Remote is a daemon in the network.
type Remote struct {
	URL   string      // https://host:port, nothing behind it
	Token string      // bearer token; empty where TLS has a client certificate
	TLS   *tls.Config // nil: the system's roots, no client certificate
}

// Dial returns a client of a daemon in the network. It connects when it is first
// used. What is read is a tenant's or a host's own: it goes over TLS only.
func Dial(r Remote) (*Client, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the address of provostd is %q, want https://HOST:PORT: %w", r.URL, record.ErrReject)
	}
	if strings.ContainsFunc(r.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, fmt.Errorf("the token holds signs that no token has: %w", record.ErrReject)
	}
	return &Client{name: u.Host, base: "https://" + u.Host, token: r.Token, http: &http.Client{CheckRedirect: stay, Transport: &http.Transport{
		TLSClientConfig: r.TLS, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute,
	}}}, nil
}

// stay follows no redirection: the daemon makes none, and a token must not go
// elsewhere.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the daemon's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Enroll adds the channel to a domain, named by name or UUID.
func (c *Client) Enroll(ctx context.Context, name string) (*Enrollment, error) {
	var e Enrollment
	return &e, c.call(ctx, http.MethodPost, "/v1/domains/"+url.PathEscape(name)+"/enroll", nil, &e)
}

// StopAgent has the guest agent of a domain, named by name or UUID, end. What
// is asked is sealed with the reason and who asked.
func (c *Client) StopAgent(ctx context.Context, name, reason string) (*AgentAnswer, error) {
	var a AgentAnswer
	v := url.Values{"reason": {reason}}
	return &a, c.call(ctx, http.MethodPost, "/v1/domains/"+url.PathEscape(name)+"/agent-stop", v, &a)
}

// RotateKeys has the key of the VM logs replaced and destroyed.
func (c *Client) RotateKeys(ctx context.Context) (*KeyEpoch, error) {
	var e KeyEpoch
	return &e, c.call(ctx, http.MethodPost, "/v1/keys/rotate", nil, &e)
}

// Backup has the daemon copy its ledger to dir, and the keys of the payloads to
// payloadKeys where that is not empty. Both are directories of the daemon's
// host that are not there yet.
func (c *Client) Backup(ctx context.Context, dir, payloadKeys string) (*Backup, error) {
	v := url.Values{"dir": {dir}}
	if payloadKeys != "" {
		v.Set("payload_keys", payloadKeys)
	}
	var b Backup
	return &b, c.call(ctx, http.MethodPost, "/v1/backup", v, &b)
}

func (c *Client) call(ctx context.Context, method, path string, v url.Values, into any) error {
	return c.callWith(ctx, method, path, v, nil, into)
}

// callWith calls with a body, nil for none.
func (c *Client) callWith(ctx context.Context, method, path string, v url.Values, send io.Reader, into any) error {
	body, err := c.openWith(ctx, method, path, v, nil, send)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read answer of %s: %w", c.name, err)
	}
	return nil
}

// maxAnswer bounds what is read of an answer in one piece.
const maxAnswer = 256 << 20

// maxProblem bounds what is read of an error's body.
const maxProblem = 64 << 10

func (c *Client) open(ctx context.Context, method, path string, v url.Values, header map[string]string) (io.ReadCloser, error) {
	return c.openWith(ctx, method, path, v, header, nil)
}

func (c *Client) openWith(ctx context.Context, method, path string, v url.Values, header map[string]string, send io.Reader) (io.ReadCloser, error) {
	u := c.base + path
	if len(v) > 0 {
		u += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, send)
	if err != nil {
		return nil, fmt.Errorf("call provostd: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", c.name, err)
	}
	p := &Problem{}
	if json.Unmarshal(b, p) != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("provostd answered %s: %s", res.Status, bytes.TrimSpace(b))
	}
	p.Status = res.StatusCode
	return nil, p
}

// explain says what to do about a daemon that cannot be reached.
func (c *Client) explain(err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate of %s is signed by nobody who is trusted here; name the authority with --ca: %w", c.name, err)
	case strings.HasPrefix(c.base, "https:"):
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no provostd listens on %s; start it, or name its socket with --socket", c.name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("access to %s is denied; run as root or as a member of the socket's group", c.name)
	}
	return fmt.Errorf("call provostd on %s: %w", c.name, err)
}
