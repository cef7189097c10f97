package client

import (
	"context"
	"net/url"
)

// Hold is an action of a policy that lasts, on a domain.
type Hold struct {
	Action  string `json:"action"` // pause, network, quarantine
	Policy  string `json:"policy"`
	Log     string `json:"log"`     // origin
	Verdict uint64 `json:"verdict"` // leaf of it
	Index   uint32 `json:"index"`   // of the action in the verdict
	Since   string `json:"since"`   // RFC 3339
	Until   string `json:"until,omitempty"`
	// Second says that a second person must sign its release.
	Second bool `json:"second"`
}

// ReleaseRequest asks for the end of what holds a domain.
type ReleaseRequest struct {
	Action string `json:"action,omitempty"` // pause, network, quarantine; empty: all
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"` // only say what would end
	// Statement and Signatures are a second person's, where one must agree.
	Statement  string   `json:"statement,omitempty"`
	Signatures []string `json:"signatures,omitempty"`
}

// Released says what has ended.
type Released struct {
	UUID        string      `json:"uuid"`
	Name        string      `json:"name"`
	Host        string      `json:"host"`
	Group       string      `json:"group,omitempty"` // of which somebody must sign
	Holds       []Hold      `json:"holds"`
	StateBefore string      `json:"state_before,omitempty"`
	StateAfter  string      `json:"state_after,omitempty"`
	Interfaces  []Interface `json:"interfaces,omitempty"`
	Detail      string      `json:"detail,omitempty"`
	DryRun      bool        `json:"dry_run"`
}

// Interface is a network interface of a domain, with the states of its link.
type Interface struct {
	Key        string `json:"key"` // MAC address
	Device     string `json:"device,omitempty"`
	Live       string `json:"live,omitempty"`
	Persistent string `json:"persistent,omitempty"`
}

// Release ends what holds a domain, named by name or UUID. It returns behind the seal.
func (c *Client) Release(ctx context.Context, name string, q ReleaseRequest) (*Released, error) {
	var r Released
	return &r, c.send(ctx, "/v1/domains/"+url.PathEscape(name)+"/release", &q, &r)
}
