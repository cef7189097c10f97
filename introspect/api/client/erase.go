package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// EraseQuery chooses the records whose payloads are erased: exactly one of Record,
// a time, and All.
type EraseQuery struct {
	Domain   string    // name or UUID
	Log      string    // id or origin of one log, instead of Domain
	Record   *uint64   // entry of Log, or of the domain's newest log
	From, To time.Time // sealed at From or later, and before To; zero: open
	All      bool
	Reason   string // is sealed
}

// Erase has payloads erased. It cannot be taken back.
func (c *Client) Erase(ctx context.Context, q EraseQuery) (*Erasure, error) {
	v := url.Values{"domain": {q.Domain}, "log": {q.Log}, "reason": {q.Reason}, "all": {strconv.FormatBool(q.All)}}
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
