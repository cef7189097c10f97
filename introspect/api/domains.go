package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/introspect/api/client"
)

func (s *Service) status(c *call) error {
	v, err := s.Status(c.ctx)
	return c.answer(v, err)
}

func (s *Service) enroll(c *call) error {
	v, err := s.Enroll(c.ctx, c.r.PathValue("domain"))
	return c.answer(v, err)
}

func (s *Service) stopAgent(c *call) error {
	v, err := s.StopAgent(c.ctx, c.r.PathValue("domain"), c.id.String(), c.v.Get("reason"))
	return c.answer(v, err)
}

func (s *Service) rotate(c *call) error {
	v, err := s.Rotate(c.ctx, c.id.String())
	return c.answer(v, err)
}

func (s *Service) backup(c *call) error {
	v, err := s.Backup(c.ctx, c.id.String(), c.v.Get("dir"), c.v.Get("payload_keys"))
	return c.answer(v, err)
}

// domains lists the domains that the caller may see: those that are defined or
// run, then those of which only logs are left.
func (s *Service) domains(c *call) error {
	all, err := c.domainList()
	return c.answer(all, err)
}

func (c *call) domainList() ([]client.Domain, error) {
	status, err := c.s.Status(c.ctx)
	if err != nil {
		return nil, err
	}
	all := []client.Domain{}
	known := map[string]bool{}
	for _, d := range status.Domains {
		if c.id.Sees(d.UUID) {
			all = append(all, d)
			known[d.UUID] = true
		}
	}
	gone := map[string]*chain.Log{} // the newest of each
	for _, l := range c.seen() {
		if o := l.Name(); !o.IsHost() && !known[o.Domain] && (gone[o.Domain] == nil || later(o, gone[o.Domain].Name())) {
			gone[o.Domain] = l
		}
	}
	n := len(all)
	for uuid, l := range gone {
		info := LogInfo(l)
		all = append(all, client.Domain{UUID: uuid, Name: c.s.Name(uuid), State: client.StateGone, Agent: "none", Incarnation: l.Name().Incarnation, Log: &info})
	}
	slices.SortFunc(all[n:], func(a, b client.Domain) int { return strings.Compare(a.UUID, b.UUID) })
	return all, nil
}

// later orders the logs of one domain.
func later(a, b proof.Origin) bool {
	return a.Incarnation > b.Incarnation || a.Incarnation == b.Incarnation && a.Shard > b.Shard
}

func (s *Service) domain(c *call) error {
	uuid, logs, err := c.domainLogs(c.r.PathValue("domain"))
	if err != nil {
		return err
	}
	all, err := c.domainList()
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.UUID == uuid {
			return c.answer(&d, nil)
		}
	}
	return fmt.Errorf("domain %q, which has %d logs, is not listed", uuid, len(logs))
}
