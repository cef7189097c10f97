package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ExportQuery chooses the entries of an evidence bundle, of a domain's newest log
// or of one log: those of Indexes; or those of the time from Since to Until, with
// what tells whether anything else happened in it; or all from From to To. Ends
// are included.
type ExportQuery struct {
	Domain   string // name or UUID
	Log      string // id or origin
	Indexes  []uint64
	From     uint64
	To       uint64 // AllEntries: up to the newest
	Since    time.Time
	Until    time.Time
	Withhold bool // the payloads of the entries chosen
	// WithoutPolicies leaves out the texts of policies, which auditors and operators get
	// else.
	WithoutPolicies bool
}

// AllEntries is the To of a range without an end.
const AllEntries = ^uint64(0)

// maxBundle is what proof.ReadBundle takes of a bundle, in bytes: a server cannot fill
// the disk.
const maxBundle = 1 << 30

// Export writes an evidence bundle to w.
func (c *Client) Export(ctx context.Context, q ExportQuery, w io.Writer) error {
	v := url.Values{}
	if q.Domain != "" {
		v.Set("domain", q.Domain)
	}
	if q.Log != "" {
		v.Set("log", q.Log)
	}
	for _, i := range q.Indexes {
		v.Add("index", strconv.FormatUint(i, 10))
	}
	times(v, q.Since, q.Until)
	if len(q.Indexes) == 0 && q.Since.IsZero() && q.Until.IsZero() {
		v.Set("from", strconv.FormatUint(q.From, 10))
		if q.To != AllEntries {
			v.Set("to", strconv.FormatUint(q.To, 10))
		}
	}
	if q.Withhold {
		v.Set("withhold", "true")
	}
	if q.WithoutPolicies {
		v.Set("policies", "false")
	}
	body, err := c.open(ctx, http.MethodPost, "/v1/export", v, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(w, io.LimitReader(body, maxBundle+1))
	if err == nil && n > maxBundle {
		err = fmt.Errorf("it has more than %d bytes, and no bundle has", int64(maxBundle))
	}
	if err != nil {
		return fmt.Errorf("read bundle from %s: %w", c.name, err)
	}
	return nil
}
