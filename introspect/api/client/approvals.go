package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Submission is a statement, approval or revocation, with its signatures.
type Submission struct {
	Statement  string   `json:"statement"`  // as it was signed, byte for byte
	Signatures []string `json:"signatures"` // armoured, of one or several in each
}

// Approval is an approval that was taken.
type Approval struct {
	ID          string   `json:"id"`
	Group       string   `json:"group"`
	State       string   `json:"state"` // valid, not begun, ended, revoked
	Policies    []string `json:"policies"`
	NotBefore   string   `json:"not_before"`
	NotAfter    string   `json:"not_after"`
	MaxUses     uint64   `json:"max_uses"` // of each VM
	RequestedBy string   `json:"requested_by"`
	Reason      string   `json:"reason"`
	Signers     []string `json:"signers"` // that count
	Submitter   string   `json:"submitter"`
	Taken       string   `json:"taken"` // RFC 3339
	// VMs it is for; what was used is known of those that are here and while it
	// has not ended.
	VMs     []ApprovalVM `json:"vms"`
	Revoked *Revoked     `json:"revoked,omitempty"`
	// Submission is left out in lists.
	Submission *Submission `json:"submission,omitempty"`
}

// ApprovalVM is what became of an approval on one VM.
type ApprovalVM struct {
	UUID string  `json:"uuid"`
	Name string  `json:"name,omitempty"`
	Log  string  `json:"log,omitempty"` // origin
	Uses *uint64 `json:"uses,omitempty"`
}

// Revoked says how an approval was ended.
type Revoked struct {
	At        string   `json:"at"` // RFC 3339
	Reason    string   `json:"reason"`
	Signers   []string `json:"signers"`
	Submitter string   `json:"submitter"`
}

// Approvals lists the approvals that were ever taken, the newest first.
func (c *Client) Approvals(ctx context.Context) ([]Approval, error) {
	var all []Approval
	return all, c.call(ctx, http.MethodGet, "/v1/approvals", nil, &all)
}

// Approval returns one, with its statement and signatures.
func (c *Client) Approval(ctx context.Context, id string) (*Approval, error) {
	var a Approval
	return &a, c.call(ctx, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil, &a)
}

// Approve hands in an approval. It returns when that is sealed for every VM.
func (c *Client) Approve(ctx context.Context, s Submission) (*Approval, error) {
	var a Approval
	return &a, c.send(ctx, "/v1/approvals", &s, &a)
}

// Revoke hands in a revocation.
func (c *Client) Revoke(ctx context.Context, s Submission) (*Approval, error) {
	var a Approval
	return &a, c.send(ctx, "/v1/revocations", &s, &a)
}

// send posts a value as JSON.
func (c *Client) send(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.callWith(ctx, http.MethodPost, path, nil, bytes.NewReader(b), into)
}
