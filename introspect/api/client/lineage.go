package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/provostd/provost/chain/lineage"
)

// LineageQuery says whose lineage is wanted: of a path, a process or an
// address, one of them. Zero bounds are the daemon's defaults.
type LineageQuery struct {
	Domain    string // name or UUID; may be empty with an address
	Path      string
	Pid       uint32
	Start     uint64 // with Pid; 0: the newest process with this id
	Address   string // address, address and port, or a network
	Direction string // back, forward or both; empty: back
	Depth     int
	Nodes     int
	Events    int // that are read for one node
	Since     time.Time
	Until     time.Time
}

// Lineage asks what led to something and what came of it.
func (c *Client) Lineage(ctx context.Context, q LineageQuery) (*lineage.Graph, error) {
	v := url.Values{}
	set := func(name, s string, there bool) {
		if there {
			v.Set(name, s)
		}
	}
	set("domain", q.Domain, q.Domain != "")
	set("path", q.Path, q.Path != "")
	set("pid", strconv.FormatUint(uint64(q.Pid), 10), q.Pid != 0)
	set("start", strconv.FormatUint(q.Start, 10), q.Start != 0)
	set("address", q.Address, q.Address != "")
	set("direction", q.Direction, q.Direction != "")
	set("depth", strconv.Itoa(q.Depth), q.Depth != 0)
	set("nodes", strconv.Itoa(q.Nodes), q.Nodes != 0)
	set("events", strconv.Itoa(q.Events), q.Events != 0)
	set("since", q.Since.UTC().Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.UTC().Format(time.RFC3339Nano), !q.Until.IsZero())
	var g lineage.Graph
	if err := c.call(ctx, http.MethodGet, "/v1/lineage", v, &g); err != nil {
		return nil, err
	}
	return &g, nil
}
