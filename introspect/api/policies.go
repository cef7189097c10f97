package api

import (
	"net/http"
	"time"
)

// Bounds of a bundle that is sent: its files and what tar adds, and how long the
// sending may take.
const (
	maxUpload      = 100 << 20
	uploadPatience = 2 * time.Minute
)

// Body returns how long a body a request may have, and how long its reading may
// take; zero for the routes that take none.
func Body(r *http.Request) (int64, time.Duration) {
	return bodies[r.Method+" "+r.URL.Path], uploadPatience
}

func (s *Service) policies(c *call) error { return c.answer(s.Policies(c.ctx)) }

// applyPolicies brings a bundle in force. One that is refused is an answer: it says
// why, with the diagnostics.
func (s *Service) applyPolicies(c *call) error {
	p := c.params()
	dry := p.boolean("dry_run", false)
	if p.err != nil {
		return p.err
	}
	a, err := s.ApplyPolicies(c.ctx, c.id.String(), c.r.Body, dry)
	return c.answer(a, err)
}

func (s *Service) rollBack(c *call) error {
	a, err := s.RollBack(c.ctx, c.id.String())
	return c.answer(a, err)
}
