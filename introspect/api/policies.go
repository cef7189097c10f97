package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
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

// policyText gives the text of a bundle that is or was in force, as a tar archive.
func (s *Service) policyText(c *call) error {
	digest, err := record.ParseHash(c.r.PathValue("digest"))
	if err != nil {
		return fmt.Errorf("%q is no digest of a policy bundle: %w", clip(c.r.PathValue("digest")), ErrNotFound)
	}
	leave, err := s.exports.enter(c.id, "exports", maxExports, maxAllExports) // it is held in memory too
	if err != nil {
		return err
	}
	defer leave()
	files, err := s.PolicyText(c.ctx, digest)
	if err != nil {
		return err
	}
	body, err := client.Pack(files)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/x-tar")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := c.w.Write(body); err != nil {
		s.Log.DebugContext(c.ctx, "answer not delivered", "path", c.r.URL.Path, "error", err)
	}
	return nil
}

// applyPolicies brings a bundle in force. One that is refused is an answer: it says
// why, with the diagnostics.
func (s *Service) applyPolicies(c *call) error {
	p := c.params()
	q := client.ApplyQuery{DryRun: p.boolean("dry_run", false), Since: c.since(p)}
	if c.v.Has("max_actions") {
		p.parse("max_actions", func(s string) error {
			n, err := strconv.ParseUint(s, 10, 63)
			q.MaxActions = &n
			return err
		})
	}
	if p.err == nil && (q.MaxActions != nil) != c.v.Has("since") {
		return fmt.Errorf("since and max_actions belong together: the bundle is replayed from then on: %w", record.ErrReject)
	}
	if p.err != nil {
		return p.err
	}
	a, err := s.ApplyPolicies(c.ctx, c.id.String(), c.r.Body, q)
	return c.answer(a, err)
}

// since reads a time; zero where it is not given.
func (c *call) since(p *params) time.Time {
	var at int64
	if p.time("since", &at); at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at)
}

// sayEvery is how often a replay says how far it is.
const sayEvery = time.Second

// replayPolicies answers in lines: how far it is, and in the end what came of it. What
// that quotes of payloads is disclosed first.
func (s *Service) replayPolicies(c *call) error {
	p := c.params()
	since := c.since(p)
	if p.err != nil {
		return p.err
	}
	if since.IsZero() {
		return fmt.Errorf("parameter since is missing: %w", record.ErrReject)
	}
	logs, chosen, err := c.choose()
	if err != nil {
		return err
	}
	if !chosen {
		logs = s.Store.Logs()
	}
	enc := json.NewEncoder(c.w)
	begun := false
	line := func(l client.ReplayLine) error {
		if !begun {
			c.w.Header().Set("Content-Type", linesType)
			begun = true
		}
		c.deadline(s.private.write)
		err := enc.Encode(l)
		c.flush()
		return err
	}
	var said time.Time
	r, err := s.ReplayPolicies(c.ctx, c.r.Body, logs, since, func(done, total uint64) {
		if now := time.Now(); now.Sub(said) >= sayEvery {
			said = now
			_ = line(client.ReplayLine{Done: done, Total: total}) // a reader who is gone ends the context
		}
	})
	if err == nil {
		for _, l := range r.Read {
			if err = c.disclose(access.Disclosure{Origin: l.Log, First: l.First, Last: l.Last}); err != nil {
				break
			}
		}
	}
	if err != nil {
		if !begun {
			return err
		}
		r = &client.Replayed{Reason: err.Error(), Diagnostics: []byte("[]"), Read: []client.ReadLog{}}
	}
	if err := line(client.ReplayLine{End: r}); err != nil {
		s.Log.DebugContext(c.ctx, "answer not delivered", "path", c.r.URL.Path, "error", err)
	}
	return nil
}

func (s *Service) rollBack(c *call) error {
	a, err := s.RollBack(c.ctx, c.id.String())
	return c.answer(a, err)
}
