package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// release ends what holds a domain. Who asks is sealed with the reason.
func (s *Service) release(c *call) error {
	b, err := io.ReadAll(io.LimitReader(c.r.Body, maxSubmission))
	if err != nil {
		return fmt.Errorf("read release: %w: %w", err, record.ErrReject)
	}
	var q client.ReleaseRequest
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(&q); err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return fmt.Errorf("read release: %w: %w", err, record.ErrReject)
	}
	v, err := s.Release(c.ctx, c.r.PathValue("domain"), c.id.String(), q)
	return c.answer(v, err)
}
