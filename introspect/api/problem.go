package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// busyError is a refusal for now.
type busyError struct{ why string }

func (e *busyError) Error() string { return e.why }

// retryAfter is when a busy service may be asked again, in seconds.
const retryAfter = 30

// problem answers with an error. It must come before any byte of a body. What
// an error says may go to whoever asked, but for those that are no fault of
// his: they may name what he must not see.
func (c *call) problem(err error) {
	p := &client.Problem{Status: http.StatusInternalServerError, Detail: err.Error()}
	var busy *busyError
	var dropped *chain.DroppedError
	switch {
	case errors.As(err, &busy):
		p.Status = http.StatusTooManyRequests
		c.w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	case errors.Is(context.Cause(c.ctx), access.ErrGone):
		p.Status, p.Detail = http.StatusUnauthorized, access.ErrGone.Error()
	case c.r.Context().Err() != nil: // mostly nobody is there to read it
		p.Status, p.Detail = http.StatusServiceUnavailable, "the request was given up"
	case errors.Is(err, ErrNotFound), errors.Is(err, chain.ErrNotFound):
		p.Status, p.Hint = http.StatusNotFound, "GET /v1/domains and GET /v1/logs, or provost domain list, show what there is"
	case errors.Is(err, context.DeadlineExceeded) && c.ctx.Err() != nil:
		p.Status, p.Detail = http.StatusServiceUnavailable, errTooLong.Error()
	case errors.As(err, &dropped):
		p.Status, p.Hint = http.StatusGone, "its archive has all of it, and verifies without this host; what is left is its last checkpoint, which GET /v1/logs/{log} shows"
	case errors.Is(err, chain.ErrPruned):
		p.Status, p.Hint = http.StatusGone, "what is kept of a log begins with the minimum that GET /v1/logs shows"
	case unreadable(err) != nil:
		p = unreadable(err)
	case errors.Is(err, record.ErrReject):
		p.Status = http.StatusBadRequest
	case errors.Is(err, record.ErrRetry):
		p.Status, p.Hint = http.StatusServiceUnavailable, "it may work in a moment"
	default:
		c.s.Log.ErrorContext(c.ctx, "request failed", "path", c.r.URL.Path, "error", err)
		if !c.id.May(access.Operator) {
			p.Detail = "the daemon could not answer; its log says why"
		}
	}
	writeProblem(c.w, p)
}

// unreadable returns the problem of entries that cannot be read any more, nil for
// every other error: which they are, and why.
func unreadable(err error) *client.Problem {
	var e *chain.UnreadableError
	if !errors.As(err, &e) {
		return nil
	}
	return &client.Problem{Status: http.StatusGone, Detail: err.Error(), Hint: "everything else in the log can be read and proven",
		Unreadable: &client.Unreadable{Log: e.Origin, First: e.First, Last: e.Last, Reason: e.Reason}}
}

// writeProblem writes the body of an answer that is no success.
func writeProblem(w http.ResponseWriter, p *client.Problem) {
	w.Header().Set("Content-Type", client.ProblemType)
	w.Header().Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone if this fails
}
