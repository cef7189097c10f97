package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Domains lists the domains that may be seen, those that are gone too.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	var all []Domain
	return all, c.call(ctx, http.MethodGet, "/v1/domains", nil, &all)
}

// Domain asks for one domain, named by name or UUID.
func (c *Client) Domain(ctx context.Context, name string) (*Domain, error) {
	var d Domain
	return &d, c.call(ctx, http.MethodGet, "/v1/domains/"+url.PathEscape(name), nil, &d)
}

// Chain asks for all logs of a domain and how they hang together.
func (c *Client) Chain(ctx context.Context, name string) (*Chain, error) {
	var out Chain
	return &out, c.call(ctx, http.MethodGet, "/v1/domains/"+url.PathEscape(name)+"/chain", nil, &out)
}

// Logs lists the logs that may be seen.
func (c *Client) Logs(ctx context.Context) ([]Log, error) {
	var all []Log
	return all, c.call(ctx, http.MethodGet, "/v1/logs", nil, &all)
}

func logPath(id string, rest string) string {
	return "/v1/logs/" + url.PathEscape(LogID(id)) + rest
}

// Log asks for one log, by its id or origin, with its newest checkpoint.
func (c *Client) Log(ctx context.Context, id string) (*Log, error) {
	var l Log
	return &l, c.call(ctx, http.MethodGet, logPath(id, ""), nil, &l)
}

// Entry asks for an entry of a log; without payload only its leaf comes, and
// nothing is disclosed.
func (c *Client) Entry(ctx context.Context, log string, index uint64, payload bool) (*Entry, error) {
	v := url.Values{}
	if !payload {
		v.Set("payload", "false")
	}
	var e Entry
	if err := c.call(ctx, http.MethodGet, logPath(log, "/entries/"+strconv.FormatUint(index, 10)), v, &e); err != nil {
		return nil, err
	}
	if e.Log != OriginOf(log) || !e.at(index) {
		return nil, fmt.Errorf("read answer of %s: it is not of entry %d of %s", c.name, index, OriginOf(log))
	}
	return &e, nil
}

// at reports whether the entry stands at index, as it says itself.
func (e *Entry) at(index uint64) bool {
	l, err := record.ParseLeaf(e.Leaf)
	if err != nil {
		return e.Unreadable != "" && e.Index != nil && *e.Index == index
	}
	return l.Index == index
}

// Inclusion asks for the proof that an entry is in the tree of a size; size 0 is
// that of the newest checkpoint.
func (c *Client) Inclusion(ctx context.Context, log string, index, size uint64) (*InclusionProof, error) {
	v := url.Values{"index": {strconv.FormatUint(index, 10)}}
	if size > 0 {
		v.Set("size", strconv.FormatUint(size, 10))
	}
	var p InclusionProof
	return &p, c.call(ctx, http.MethodGet, logPath(log, "/proof/inclusion"), v, &p)
}

// Check proves that a leaf, of 136 bytes, is in the log whose verifier key is vkey:
// with the path its hash makes the root of the checkpoint, which that key has
// signed. A proof of an older size comes without its checkpoint, and proves nothing.
// Whether the key is that of the host is for the caller to know; that of a VM log
// is certified in the host log.
func (p *InclusionProof) Check(leaf []byte, vkey string) error {
	fail := func(err error) error {
		return fmt.Errorf("entry %d of %s is not proved: %w: %w", p.Index, p.Log, err, record.ErrReject)
	}
	l, err := record.ParseLeaf(leaf)
	if err != nil {
		return fail(err)
	}
	if l.Index != p.Index {
		return fail(fmt.Errorf("the leaf is that of entry %d", l.Index))
	}
	if p.Checkpoint == "" {
		return fail(errors.New("the proof has no checkpoint: ask for that of the newest size"))
	}
	v, err := proof.ParseVerifierKey(vkey)
	if err != nil {
		return fail(err)
	}
	c, err := proof.OpenCheckpoint([]byte(p.Checkpoint), v)
	if err != nil {
		return fail(err)
	}
	if c.Origin != p.Log || c.Size != p.Size || c.Root.String() != p.Root {
		return fail(fmt.Errorf("its checkpoint is of %s at size %d with root %s", c.Origin, c.Size, c.Root))
	}
	path := make([]record.Hash, len(p.Path))
	for i, s := range p.Path {
		if path[i], err = record.ParseHash(s); err != nil {
			return fail(err)
		}
	}
	if err := proof.VerifyInclusion(record.LeafHash(leaf), p.Index, path, c); err != nil {
		return fail(err)
	}
	return nil
}

// Consistency asks for the proof that a log of one size is the beginning of that
// of another; to 0 is the size of the newest checkpoint.
func (c *Client) Consistency(ctx context.Context, log string, from, to uint64) (*ConsistencyProof, error) {
	v := url.Values{"from": {strconv.FormatUint(from, 10)}}
	if to > 0 {
		v.Set("to", strconv.FormatUint(to, 10))
	}
	var p ConsistencyProof
	return &p, c.call(ctx, http.MethodGet, logPath(log, "/proof/consistency"), v, &p)
}

// Window asks what a VM log tells of a time, and when something else may have
// happened in it. Zero times are the beginning and the end of the log.
func (c *Client) Window(ctx context.Context, log string, since, until time.Time) (*Window, error) {
	v := url.Values{}
	times(v, since, until)
	var w Window
	return &w, c.call(ctx, http.MethodGet, logPath(log, "/window"), v, &w)
}

func times(v url.Values, since, until time.Time) {
	for name, t := range map[string]time.Time{"since": since, "until": until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
}

// maxResource bounds what is read of a tile, an entry bundle or a checkpoint.
const maxResource = 32 << 20

// Resource reads a resource of a log as c2sp.org/tlog-tiles names it, such as
// "checkpoint" or "tile/0/000".
func (c *Client) Resource(ctx context.Context, log, resource string) ([]byte, error) {
	body, err := c.open(ctx, http.MethodGet, "/logs/"+OriginOf(log)+"/"+strings.TrimPrefix(resource, "/"), nil, nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxResource+1))
	if err == nil && len(b) > maxResource {
		err = fmt.Errorf("it has more than %d bytes", maxResource)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", resource, c.name, err)
	}
	return b, nil
}

// OpenAPI reads the description of the interface.
func (c *Client) OpenAPI(ctx context.Context) (map[string]any, error) {
	var doc map[string]any
	return doc, c.call(ctx, http.MethodGet, "/v1/openapi.json", nil, &doc)
}
