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

// maxSubmission bounds the body of a submission, as the guard before it does: the
// largest statement and as many signatures as are taken, in JSON.
const maxSubmission = 64 << 10

// bodies are the routes that take a body, and how long that may be.
var bodies = map[string]int64{"POST /v1/approvals": maxSubmission, "POST /v1/revocations": maxSubmission, "POST /v1/domains/{domain}/release": maxSubmission, "POST /v1/policies/apply": maxUpload, "POST /v1/policies/replay": maxUpload}

// submission reads the body of a request.
func (c *call) submission() (statement []byte, signatures []byte, err error) {
	b, err := io.ReadAll(io.LimitReader(c.r.Body, maxSubmission))
	if err != nil {
		return nil, nil, fmt.Errorf("read submission: %w: %w", err, record.ErrReject)
	}
	var s client.Submission
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(&s); err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read submission: %w: %w", err, record.ErrReject)
	}
	for _, a := range s.Signatures {
		signatures = append(append(signatures, a...), '\n')
	}
	return []byte(s.Statement), signatures, nil
}

// approve takes an approval. Who hands it in is sealed with it.
func (s *Service) approve(c *call) error {
	statement, signatures, err := c.submission()
	if err != nil {
		return err
	}
	return c.answer(s.Approvals.Approve(c.ctx, statement, signatures, c.id.String()))
}

// revoke takes a revocation.
func (s *Service) revoke(c *call) error {
	statement, signatures, err := c.submission()
	if err != nil {
		return err
	}
	return c.answer(s.Approvals.Revoke(c.ctx, statement, signatures, c.id.String()))
}

func (s *Service) approvals(c *call) error {
	all, err := s.Approvals.List()
	if all == nil {
		all = []client.Approval{}
	}
	return c.answer(all, err)
}

func (s *Service) approval(c *call) error {
	return c.answer(s.Approvals.Show(c.r.PathValue("id")))
}
