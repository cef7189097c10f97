package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/lineage"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
)

// lineage answers with the graph of what led to a path, a process or an
// address, and of what came of it.
func (s *Service) lineage(c *call) error {
	q, err := c.parseLineage()
	if err != nil {
		return err
	}
	s.awaitIndex(c.ctx)
	g, err := s.Index.Lineage(c.ctx, *q)
	var nothing *index.NothingError
	if errors.As(err, &nothing) {
		// That there is nothing tells something of all payloads.
		if err := c.disclose(access.Disclosure{Last: access.Open}); err != nil {
			return err
		}
		return fmt.Errorf("%w in these bounds: %w", err, ErrNotFound)
	} else if err != nil {
		return err
	}
	g.Behind = c.behind(g.Behind)
	if err := c.discloseGraph(g); err != nil {
		return err
	}
	return c.answer(g, nil)
}

// discloseGraph has sealed which entries a graph tells of: its edges name them,
// and its nodes say what these say.
func (c *call) discloseGraph(g *lineage.Graph) error {
	logs := map[string]*access.Disclosure{}
	for _, e := range g.Edges {
		for _, at := range []lineage.Ref{e.First, e.Last} {
			if at.Log == "" {
				continue // no entry: the child of a process named it
			}
			d := logs[at.Log]
			if d == nil {
				d = &access.Disclosure{Origin: at.Log, First: at.Index, Last: at.Index}
				logs[at.Log] = d
			}
			d.First, d.Last = min(d.First, at.Index), max(d.Last, at.Index)
		}
		if d := logs[e.First.Log]; d != nil {
			d.Count += e.Count
		}
	}
	if len(logs) == 0 { // a start alone tells something as well
		return c.disclose(access.Disclosure{Last: access.Open})
	}
	for _, origin := range slices.Sorted(maps.Keys(logs)) {
		if err := c.disclose(*logs[origin]); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) parseLineage() (*index.LineageQuery, error) {
	v := c.v
	q := &index.LineageQuery{Path: []byte(v.Get("path"))}
	p := c.params()
	given := 0
	for _, name := range []string{"path", "pid", "address"} {
		if v.Get(name) != "" {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("give one of path, pid and address: %w", record.ErrReject)
	}
	q.Process.Pid, q.Process.Start = p.process()
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

// lineageDomain finds the UUID of the domain that is meant. Who does not see all
// domains names one of his: a graph of all would lead through the others.
func (c *call) lineageDomain(name string, q *index.LineageQuery) (err error) {
	if name == "" {
		if !c.all() {
			return fmt.Errorf("name the domain: %w", record.ErrReject)
		}
		return nil // the index says where one is needed
	}
	q.Domain, _, err = c.domainLogs(name)
	return err
}
