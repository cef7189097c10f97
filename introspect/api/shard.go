package api

import (
	"fmt"

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
