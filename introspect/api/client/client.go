package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// DefaultSocket is where provostd listens unless it is told otherwise.
const DefaultSocket = "/run/provost/provostd.sock"

// Client calls one daemon. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the daemon behind the unix socket. It connects when
// it is first used.
func New(socket string) *Client {
	d := &net.Dialer{}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

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

// TailQuery chooses entries. The zero value means all logs from their start.
type TailQuery struct {
	Domain  string   // name or UUID; empty: all, and the host log
	Classes []string // empty: all
	Last    int      // only the newest so many entries that match; 0: all
	New     bool     // none that are sealed already
	Follow  bool     // go on as entries are sealed
}

// Tail returns the entries in the order they were sealed. It ends with the
// newest one, or with ctx where it follows.
func (c *Client) Tail(ctx context.Context, q TailQuery) iter.Seq2[*Entry, error] {
	v := url.Values{"class": q.Classes}
	if q.Domain != "" {
		v.Set("domain", q.Domain)
	}
	v.Set("last", strconv.Itoa(q.Last))
	v.Set("new", strconv.FormatBool(q.New))
	v.Set("follow", strconv.FormatBool(q.Follow))
	return func(yield func(*Entry, error) bool) {
		body, err := c.open(ctx, http.MethodGet, "/v1/tail", v)
		if err != nil {
			yield(nil, err)
			return
		}
		defer body.Close()
		dec := json.NewDecoder(body)
		for {
			var e Entry
			if err := dec.Decode(&e); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				yield(nil, fmt.Errorf("read entries from %s: %w", c.socket, err))
				return
			}
			if !yield(&e, nil) {
				return
			}
		}
	}
}

// ExportQuery chooses the entries of an evidence bundle: those from From to
// To, both included, of a domain's newest log, or of the log Origin.
type ExportQuery struct {
	Domain string
	Origin string
	From   uint64
	To     uint64 // AllEntries: up to the newest
}

// AllEntries is the To of a range without an end.
const AllEntries = ^uint64(0)

// Export writes an evidence bundle to w.
func (c *Client) Export(ctx context.Context, q ExportQuery, w io.Writer) error {
	v := url.Values{}
	v.Set("domain", q.Domain)
	v.Set("origin", q.Origin)
	v.Set("from", strconv.FormatUint(q.From, 10))
	if q.To != AllEntries {
		v.Set("to", strconv.FormatUint(q.To, 10))
	}
	body, err := c.open(ctx, http.MethodPost, "/v1/export", v)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("read bundle from %s: %w", c.socket, err)
	}
	return nil
}

// EraseQuery chooses the records whose payloads are erased: exactly one of Record,
// a time, and All.
type EraseQuery struct {
	Domain   string    // name or UUID
	Origin   string    // of one log, instead of Domain
	Record   *uint64   // entry of Origin, or of the domain's newest log
	From, To time.Time // sealed at From or later, and before To; zero: open
	All      bool
	Reason   string // is sealed
}

// Erase has payloads erased. It cannot be taken back.
func (c *Client) Erase(ctx context.Context, q EraseQuery) (*Erasure, error) {
	v := url.Values{"domain": {q.Domain}, "origin": {q.Origin}, "reason": {q.Reason}, "all": {strconv.FormatBool(q.All)}}
	if q.Record != nil {
		v.Set("record", strconv.FormatUint(*q.Record, 10))
	}
	if !q.From.IsZero() {
		v.Set("from", q.From.Format(time.RFC3339Nano))
	}
	if !q.To.IsZero() {
		v.Set("to", q.To.Format(time.RFC3339Nano))
	}
	var e Erasure
	return &e, c.call(ctx, http.MethodPost, "/v1/erase", v, &e)
}

func (c *Client) call(ctx context.Context, method, path string, v url.Values, into any) error {
	body, err := c.open(ctx, method, path, v)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read answer of %s: %w", c.socket, err)
	}
	return nil
}

// maxProblem bounds what is read of an error's body.
const maxProblem = 64 << 10

func (c *Client) open(ctx context.Context, method, path string, v url.Values) (io.ReadCloser, error) {
	u := "http://provostd" + path
	if len(v) > 0 {
		u += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return nil, fmt.Errorf("call provostd: %w", err)
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
		return nil, fmt.Errorf("read answer of %s: %w", c.socket, err)
	}
	p := &Problem{Status: res.StatusCode}
	if json.Unmarshal(b, p) != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("provostd answered %s: %s", res.Status, bytes.TrimSpace(b))
	}
	return nil, p
}

// explain says what to do about a daemon that cannot be reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no provostd listens on %s; start it, or name its socket with --socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("access to %s is denied; run as root or as a member of the socket's group", c.socket)
	}
	return fmt.Errorf("call provostd on %s: %w", c.socket, err)
}
