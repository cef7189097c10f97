package api

import (
	"fmt"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// What the caller may not see is answered as what is not there, in the same
// words and after the same work: nobody learns from the difference.

func (c *call) sees(l *chain.Log) bool { return c.id.Sees(l.Name().Domain) }

// all reports whether the caller sees every log.
func (c *call) all() bool { return c.id.May(access.Auditor) }

// seen returns the logs that the caller may see, in the order they were made.
func (c *call) seen() []*chain.Log {
	var out []*chain.Log
	for _, l := range c.s.Store.Logs() {
		if c.sees(l) {
			out = append(out, l)
		}
	}
	return out
}

// logByID returns the log with an id of paths and parameters: its origin, with
// tildes for slashes or as it is.
func (c *call) logByID(id string) (*chain.Log, error) {
	l, ok := c.s.Store.LogByOrigin(client.OriginOf(id))
	if !ok || !c.sees(l) {
		return nil, fmt.Errorf("log %q: %w", clip(id), ErrNotFound)
	}
	return l, nil
}

// pathLog returns the log that the path names.
func (c *call) pathLog() (*chain.Log, error) { return c.logByID(c.r.PathValue("log")) }

// domainLogs returns the UUID of a domain, named by name or UUID, and its logs
// from the first incarnation on. There is at least one.
func (c *call) domainLogs(name string) (uuid string, logs []*chain.Log, err error) {
	uuid = strings.ToLower(name)
	named := uuid
	if l, err := c.s.Find(name); err == nil {
		named = l.Name().Domain
	}
	logs, byName := c.logsOf(uuid), c.logsOf(named) // the same work for every name
	if len(logs) == 0 {                             // a UUID is that of its domain, whatever others are called
		uuid, logs = named, byName
	}
	if len(logs) == 0 {
		return "", nil, fmt.Errorf("domain %q: %w", clip(name), ErrNotFound)
	}
	return uuid, logs, nil
}

// logsOf returns the logs of a domain that the caller may see.
func (c *call) logsOf(uuid string) (logs []*chain.Log) {
	for _, l := range c.s.Store.Logs() {
		if o := l.Name(); !o.IsHost() && o.Domain == uuid && c.sees(l) {
			logs = append(logs, l)
		}
	}
	return logs
}

// choose returns the logs that the parameters domain and log name together,
// and whether they name any.
func (c *call) choose() (logs []*chain.Log, chosen bool, err error) {
	if id := c.v.Get("log"); id != "" {
		l, err := c.logByID(id)
		if err != nil {
			return nil, true, err
		}
		logs, chosen = []*chain.Log{l}, true
	}
	name := c.v.Get("domain")
	if name == "" {
		return logs, chosen, nil
	}
	_, of, err := c.domainLogs(name)
	if err != nil {
		return nil, true, err
	}
	if !chosen {
		return of, true, nil
	}
	if logs[0].Name().Domain != of[0].Name().Domain {
		logs = nil // entries of both: there are none
	}
	return logs, true, nil
}

// scope restricts a query to what is chosen and may be seen.
func (c *call) scope(q *index.Query) error {
	logs, chosen, err := c.choose()
	if err != nil {
		return err
	}
	if !chosen {
		if c.all() {
			return nil
		}
		logs = c.seen()
	}
	for _, l := range logs {
		q.Logs = append(q.Logs, l.ID())
	}
	q.NoLog = len(logs) == 0
	return nil
}

// behind is how far behind an index is, as the caller may know it: how much is
// sealed for others is not a tenant's business.
func (c *call) behind(commits uint64) uint64 {
	if c.all() {
		return commits
	}
	return min(commits, 1)
}
