package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Query says which entries are wanted: those that every field set admits. The
// zero value wants all.
type Query struct {
	Domain  string   // name or UUID: of all its incarnations
	Log     string   // origin of one log
	Classes []string // any of these; file.* is all of a group
	Path    string   // of what an entry is about: exact, below a trailing slash, or a pattern
	Exe     string   // executable of the process, likewise
	Sha256  string   // of a file or an executable, hexadecimal
	Address string   // address, address and port, or a network
	Pid     uint32   // of the process
	Start   uint64   // with Pid: its start, as entries have it
	User    string   // number: of the process; name: that a program spoke of
	Name    string   // of DNS, likewise a pattern
	Since   time.Time
	Until   time.Time
	Oldest  bool   // oldest first
	Limit   int    // of entries; 0: all
	After   string // where an earlier answer ended: QueryEnd.Next
}

// Values returns the query as the parameters of the interface.
func (q *Query) Values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"domain": q.Domain, "log": q.Log, "path": q.Path, "exe": q.Exe, "sha256": q.Sha256,
		"address": q.Address, "user": q.User, "name": q.Name, "after": q.After} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if len(q.Classes) > 0 {
		v["class"] = q.Classes
	}
	if q.Pid != 0 {
		v.Set("pid", strconv.FormatUint(uint64(q.Pid), 10))
	}
	if q.Start != 0 {
		v.Set("start", strconv.FormatUint(q.Start, 10))
	}
	times(v, q.Since, q.Until)
	if q.Oldest {
		v.Set("order", "oldest")
	}
	return v
}

// QueryEnd is the last line of an answer.
type QueryEnd struct {
	// Next goes on behind this answer when it is given as Query.After; empty:
	// there is no more.
	Next     string `json:"next,omitempty"`
	Behind   uint64 `json:"behind"`   // commits that are sealed and not indexed yet
	Examined int    `json:"examined"` // entries that were read for the answer
}

// QueryLine is one line of an answer: an entry, or its end.
type QueryLine struct {
	Entry
	End *QueryEnd `json:"end,omitempty"`
}

// MaxPage is the most entries that one answer holds.
const MaxPage = 10_000

// Query returns the entries that are wanted, newest first unless they are asked
// for the other way. It asks as often as the limit needs. end, where it is not
// nil, is where the last answer ended.
func (c *Client) Query(ctx context.Context, q Query, end *QueryEnd) iter.Seq2[*Entry, error] {
	if end == nil {
		end = &QueryEnd{}
	}
	return func(yield func(*Entry, error) bool) {
		for left := q.Limit; ; {
			n, err := c.page(ctx, &q, left, end, func(e *Entry) bool { return yield(e, nil) })
			if err != nil {
				yield(nil, err)
				return
			}
			if left -= n; n < 0 || end.Next == "" || q.Limit > 0 && left <= 0 {
				return
			}
			if end.Next == q.After {
				yield(nil, fmt.Errorf("read answer from %s: it ends where it began, and says that there is more", c.name))
				return
			}
			q.After = end.Next
		}
	}
}

// page asks once. It returns how many entries came, or -1 where they were
// enough.
func (c *Client) page(ctx context.Context, q *Query, limit int, end *QueryEnd, yield func(*Entry) bool) (int, error) {
	v := q.Values()
	if limit > 0 && limit < MaxPage {
		v.Set("limit", strconv.Itoa(limit))
	}
	body, err := c.open(ctx, http.MethodGet, "/v1/query", v, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	want := MaxPage
	if limit > 0 {
		want = min(limit, want)
	}
	r := bufio.NewReaderSize(body, 64<<10)
	for n := 0; ; n++ {
		var l QueryLine
		// An answer without its end was cut off: what is missing must not
		// look as if it were not there.
		line, err := readLine(r, maxEvent)
		if err == nil {
			err = json.Unmarshal(line, &l)
		}
		if err != nil {
			return n, fmt.Errorf("read answer from %s: it ends too early: %w", c.name, err)
		}
		if l.End != nil {
			*end = *l.End
			return n, nil
		}
		if n == want {
			return n, fmt.Errorf("read answer from %s: it has more than the %d entries that were asked for", c.name, want)
		}
		if !yield(&l.Entry) {
			return -1, nil
		}
	}
}
