package client

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/provostd/provost/chain/record"
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
	Tests       int              `json:"tests"`           // that came with it and were run
	Entry       uint64           `json:"entry,omitempty"` // of the host log, which says so
	Domains     []DomainPolicies `json:"domains"`
	// Replay is what a replay said, as rules/replay.TrialReport, where one was asked for.
	Replay json.RawMessage `json:"replay,omitempty"`
}

// ApplyQuery is how a bundle comes in force.
type ApplyQuery struct {
	DryRun bool // it is only looked at
	// MaxActions refuses a bundle that would have wanted more actions since Since, in
	// a replay; nil: there is none.
	MaxActions *uint64
	Since      time.Time
}

// ReplayQuery is what a bundle is replayed over.
type ReplayQuery struct {
	Domain string // name or UUID; empty: all
	Since  time.Time
}

// ReplayLine is one line of the answer: how far it is, or its end.
type ReplayLine struct {
	Done  uint64    `json:"done,omitempty"`
	Total uint64    `json:"total,omitempty"` // entries
	End   *Replayed `json:"end,omitempty"`
}

// Replayed is what came of a replay.
type Replayed struct {
	Reason      string          `json:"reason,omitempty"` // why there is no report
	Diagnostics json.RawMessage `json:"diagnostics"`
	Report      json.RawMessage `json:"report,omitempty"` // as rules/replay.TrialReport
	Read        []ReadLog       `json:"read"`
}

// ReadLog is what was read of a log.
type ReadLog struct {
	Log   string `json:"log"` // origin
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Policies asks which policies are in force.
func (c *Client) Policies(ctx context.Context) (*Policies, error) {
	var p Policies
	return &p, c.call(ctx, http.MethodGet, "/v1/policies", nil, &p)
}

// maxText bounds the tar archive of a bundle, in bytes.
const maxText = 100 << 20

// PolicyText asks for the files of a policy bundle that is or was in force, and holds
// them against their digest.
func (c *Client) PolicyText(ctx context.Context, digest record.Hash) (map[string][]byte, error) {
	body, err := c.open(ctx, http.MethodGet, "/v1/policies/"+digest.String(), nil, nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	files, size := map[string][]byte{}, 0
	for r := tar.NewReader(io.LimitReader(body, maxText)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read policy bundle %s from %s: %w", digest, c.name, err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("read policy bundle %s from %s: %s: %w", digest, c.name, h.Name, err)
		}
		if size += len(h.Name) + len(files[h.Name]); size > maxText {
			return nil, fmt.Errorf("read policy bundle %s from %s: it has more than %d bytes: %w", digest, c.name, maxText, record.ErrReject)
		}
	}
	if got := record.BundleDigest(files); got != digest {
		return nil, fmt.Errorf("read policy bundle %s from %s: what came has digest %s: %w", digest, c.name, got, record.ErrReject)
	}
	return files, nil
}

// ReplayPolicies has the daemon judge recorded entries by a bundle, given by its files,
// beside the one in force. progress is told how far it is.
func (c *Client) ReplayPolicies(ctx context.Context, files map[string][]byte, q ReplayQuery, progress func(done, total uint64)) (*Replayed, error) {
	body, err := Pack(files)
	if err != nil {
		return nil, err
	}
	v := url.Values{"since": {q.Since.UTC().Format(time.RFC3339Nano)}}
	if q.Domain != "" {
		v.Set("domain", q.Domain)
	}
	answer, err := c.openWith(ctx, http.MethodPost, "/v1/policies/replay", v, nil, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	for d := json.NewDecoder(io.LimitReader(answer, maxAnswer)); ; {
		var l ReplayLine
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("read answer of %s: it ends too early: %w", c.name, err)
		}
		if l.End != nil {
			return l.End, nil
		}
		progress(l.Done, l.Total)
	}
}

// ApplyPolicies has the daemon bring a bundle in force, given by its files. One that
// is refused is no error.
func (c *Client) ApplyPolicies(ctx context.Context, files map[string][]byte, q ApplyQuery) (*Applied, error) {
	body, err := Pack(files)
	if err != nil {
		return nil, err
	}
	var a Applied
	v := url.Values{"dry_run": {strconv.FormatBool(q.DryRun)}}
	if q.MaxActions != nil {
		v.Set("max_actions", strconv.FormatUint(*q.MaxActions, 10))
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	return &a, c.callWith(ctx, http.MethodPost, "/v1/policies/apply", v, bytes.NewReader(body), &a)
}

// RollBackPolicies has the daemon bring the bundle in force that was before.
func (c *Client) RollBackPolicies(ctx context.Context) (*Applied, error) {
	var a Applied
	return &a, c.call(ctx, http.MethodPost, "/v1/policies/rollback", nil, &a)
}

// Pack makes a tar archive of files.
func Pack(files map[string][]byte) ([]byte, error) {
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
