package client

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// Policies are the policies in force.
type Policies struct {
	Bundle   *Bundle          `json:"bundle,omitempty"` // nil: none
	Policies []ActivePolicy   `json:"policies"`         // with the modes of the host as a whole
	Domains  []DomainPolicies `json:"domains"`
	// Previous are digests of the bundles before this one, the last one first.
	Previous []string `json:"previous"`
}

// ActivePolicy is one policy in force.
type ActivePolicy struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Severity string   `json:"severity"`
	Mode     string   `json:"mode"` // effective
	Actions  []string `json:"actions"`
}

// DomainPolicies are the policies in force for one domain.
type DomainPolicies struct {
	UUID  string         `json:"uuid"`
	Name  string         `json:"name"`
	Log   string         `json:"log"`             // origin
	Entry *uint64        `json:"entry,omitempty"` // of that log, which says so since now
	Modes map[string]int `json:"modes"`           // how many policies are in each
	// Other are the modes of policies that have another one on the host as a whole.
	Other map[string]string `json:"other"`
}

// Applied is what became of a bundle that was to come in force.
type Applied struct {
	Applied bool   `json:"applied"`
	Reason  string `json:"reason,omitempty"` // why not
	// Bundle is nil where it does not load, or none is in force.
	Bundle      *Bundle          `json:"bundle,omitempty"`
	Was         *Bundle          `json:"was,omitempty"`
	Diagnostics json.RawMessage  `json:"diagnostics"`
	Entry       uint64           `json:"entry,omitempty"` // of the host log, which says so
	Domains     []DomainPolicies `json:"domains"`
}

// Policies asks which policies are in force.
func (c *Client) Policies(ctx context.Context) (*Policies, error) {
	var p Policies
	return &p, c.call(ctx, http.MethodGet, "/v1/policies", nil, &p)
}

// ApplyPolicies has the daemon bring a bundle in force, given by its files; dry: it
// is only looked at. One that is refused is no error.
func (c *Client) ApplyPolicies(ctx context.Context, files map[string][]byte, dry bool) (*Applied, error) {
	body, err := pack(files)
	if err != nil {
		return nil, err
	}
	var a Applied
	return &a, c.callWith(ctx, http.MethodPost, "/v1/policies/apply", url.Values{"dry_run": {strconv.FormatBool(dry)}}, bytes.NewReader(body), &a)
}

// RollBackPolicies has the daemon bring the bundle in force that was before.
func (c *Client) RollBackPolicies(ctx context.Context) (*Applied, error) {
	var a Applied
	return &a, c.call(ctx, http.MethodPost, "/v1/policies/rollback", nil, &a)
}

// pack makes a tar archive of files.
func pack(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o600}); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return b.Bytes(), nil
}
