package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/record"
)

// lineage answers with the graph of what led to a path, a process or an
// address, and of what came of it.
func (c *Control) lineage(w http.ResponseWriter, r *http.Request) {
	q, err := c.parseLineage(r.URL.Query())
	if err != nil {
		c.problem(w, r, err)
		return
	}
	c.awaitIndex(r.Context())
	g, err := c.Index.Lineage(r.Context(), *q)
	var nothing *index.NothingError
	if errors.As(err, &nothing) {
		err = fmt.Errorf("%w in these bounds: %w", err, ErrNotFound)
	}
	c.answer(w, r, g, err)
}

func (c *Control) parseLineage(v url.Values) (*index.LineageQuery, error) {
	q := &index.LineageQuery{Path: []byte(v.Get("path"))}
	p := &params{v: v}
	given := 0
	for _, name := range []string{"path", "pid", "address"} {
		if v.Get(name) != "" {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("give one of path, pid and address: %w", record.ErrReject)
	}
	p.parse("pid", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		if err == nil && n == 0 {
			err = errors.New("no process has this id")
		}
		q.Process.Pid = uint32(n)
		return err
	})
	p.parse("start", func(s string) (err error) { q.Process.Start, err = strconv.ParseUint(s, 10, 64); return err })
	p.parse("address", func(s string) (err error) { q.Address, q.Port, err = parseAddress(s); return err })
	p.parse("direction", func(s string) error {
		q.Back, q.Forward = s == "back" || s == "both", s == "forward" || s == "both"
		if !q.Back && !q.Forward {
			return errors.New("want back, forward or both")
		}
		return nil
	})
	for name, into := range map[string]*int{"depth": &q.Depth, "nodes": &q.Nodes, "events": &q.Events} {
		p.parse(name, func(s string) (err error) { *into, err = strconv.Atoi(s); return err })
	}
	p.time("since", &q.Since)
	p.time("until", &q.Until)
	if p.err != nil {
		return nil, p.err
	}
	return q, c.lineageDomain(v.Get("domain"), q)
}

// lineageDomain finds the UUID of the domain that is meant.
func (c *Control) lineageDomain(name string, q *index.LineageQuery) error {
	if name == "" {
		return nil // the index says where one is needed
	}
	l, err := c.Find(name)
	if err == nil {
		q.Domain = l.Name().Domain
		return nil
	}
	for _, l := range c.Store.Logs() {
		if o := l.Name(); !o.IsHost() && o.Domain == strings.ToLower(name) {
			q.Domain = o.Domain
			return nil
		}
	}
	return err
}
