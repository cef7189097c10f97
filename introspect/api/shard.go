package api

import (
	"fmt"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// exportShard has the archive of a closed log written to a file of the daemon's host,
// which seals that its payloads are given.
func (s *Service) exportShard(c *call) error {
	l, err := c.logByID(c.v.Get("log"))
	if err != nil {
		return err
	}
	p := c.params()
	withhold := p.boolean("withhold", false)
	if p.err != nil {
		return p.err
	}
	if c.v.Get("file") == "" {
		return fmt.Errorf("name the file of the archive: %w", record.ErrReject)
	}
	a, err := s.ExportShard(c.ctx, l, c.v.Get("file"), withhold)
	return c.answer(a, err)
}

// dropShard drops a closed log. Who asked for it is sealed with the reason.
func (s *Service) dropShard(c *call) error {
	l, err := c.logByID(c.v.Get("log"))
	if err != nil {
		return err
	}
	for _, name := range []string{"archive", "reason"} {
		if strings.TrimSpace(c.v.Get(name)) == "" {
			return fmt.Errorf("%s is missing: a log is dropped for an archive that has it, and for a reason, which is sealed: %w", name, record.ErrReject)
		}
	}
	requester := c.id.String()
	if name := c.v.Get("requester"); name != "" {
		requester = name + ", by " + requester
	}
	d, err := s.DropShard(c.ctx, l, c.v.Get("archive"), c.v.Get("reason"), requester)
	return c.answer(d, err)
}
