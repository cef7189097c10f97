package access

import (
	"net/http"
	"time"
)

// Remote authenticates clients of a TLS listener: by a bearer token where a
// request has one, and else by the certificate of its connection.
type Remote struct {
	TLS        *TLS
	Tokens     *Tokens // nil: none are taken
	Identities []Certified
}

func (a *Remote) authenticate(r *http.Request, now time.Time) (*Identity, string) {
	if r.TLS == nil {
		return nil, "the connection is not encrypted"
	}
	if h, ok := r.Header["Authorization"]; ok {
		if a.Tokens == nil || len(h) != 1 {
			return nil, "this listener takes no tokens, or the request has several"
		}
		if id := a.Tokens.find(r.Context(), h[0], now); id != nil {
			return id, ""
		}
		return nil, "the token is unknown, revoked or expired"
	}
	leaf, err := a.TLS.verify(r.Context(), r.TLS, now)
	if err != nil {
		return nil, err.Error()
	}
	return certified(a.Identities, leaf)
}
