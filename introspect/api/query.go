package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

const (
	// indexPatience is how long a question waits for the index to reach what
	// was sealed when it was asked. The answer says what it still lacks.
	indexPatience = 2 * time.Second
	// pageBudget bounds how many entries one answer reads.
	pageBudget = 200_000
	tokenForm  = "1-" // what follows is an ordinal
)

// query answers with the entries that are wanted, one a line, and a last line
// that tells where to go on.
func (c *Control) query(w http.ResponseWriter, r *http.Request) {
	q, limit, err := c.parseQuery(r.URL.Query())
	if err != nil {
		c.problem(w, r, err)
		return
	}
	c.awaitIndex(r.Context())
	w.Header().Set("Content-Type", "application/jsonl")
	out := &lines{w: w, enc: json.NewEncoder(w), name: c.Name}
	end, err := c.copyFound(r.Context(), q, limit, out)
	if err == nil {
		err = out.enc.Encode(client.QueryLine{End: end})
	}
	if err != nil && r.Context().Err() == nil {
		// The missing last line tells the reader.
		c.Log.WarnContext(r.Context(), "answer to a query ended early", "error", err)
	}
}

// awaitIndex waits a little for the index to catch up.
func (c *Control) awaitIndex(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, indexPatience)
	defer cancel()
	_ = c.Index.Wait(ctx) // the answer tells how far behind it is
}

func (c *Control) copyFound(ctx context.Context, q *index.Query, limit int, out *lines) (*client.QueryEnd, error) {
	var stats index.Stats
	end := &client.QueryEnd{}
	n := 0
	for f, err := range c.Index.Find(ctx, q, &stats) {
		if err != nil {
			return nil, err
		}
		if n == limit {
			end.Next = token(f.Ordinal)
			break
		}
		if err := out.write(&f.Item); err != nil {
			return nil, err
		}
		if n++; n == 1 {
			out.flush() // what comes next may take longer
		}
	}
	if stats.Cut {
		end.Next = token(stats.Next)
	}
	end.Examined, end.Behind = stats.Examined, c.Index.Lag()
	return end, nil
}

func token(ordinal uint64) string { return tokenForm + strconv.FormatUint(ordinal, 10) }

// parseQuery reads the parameters of a query. An error wraps record.ErrReject
// or ErrNotFound and says which parameter is wrong.
func (c *Control) parseQuery(v url.Values) (*index.Query, int, error) {
	q := &index.Query{Budget: pageBudget}
	p := &params{v: v}
	if err := c.parseLogs(v.Get("domain"), v.Get("log"), q); err != nil {
		return nil, 0, err
	}
	p.classes(q)
	p.pattern("path", &q.Path)
	p.pattern("exe", &q.Exe)
	p.pattern("name", &q.Name)
	p.parse("sha256", func(s string) (err error) {
		if q.Sha256, err = hex.DecodeString(s); err != nil || len(q.Sha256) != 32 {
			return fmt.Errorf("want 64 hexadecimal digits")
		}
		return nil
	})
	p.parse("address", func(s string) (err error) { q.Address, q.Port, err = parseAddress(s); return err })
	p.parse("pid", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		q.Process.Pid = uint32(n)
		return err
	})
	p.parse("start", func(s string) (err error) { q.Process.Start, err = strconv.ParseUint(s, 10, 64); return err })
	p.parse("user", func(s string) error {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil {
			uid := uint32(n)
			q.UID = &uid
			return nil
		}
		q.Account = s
		return nil
	})
	p.time("since", &q.Since)
	p.time("until", &q.Until)
	p.parse("order", func(s string) error {
		q.Oldest = s == "oldest"
		if s != "oldest" && s != "newest" {
			return fmt.Errorf("want newest or oldest")
		}
		return nil
	})
	limit := client.MaxPage
	p.parse("limit", func(s string) (err error) {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > client.MaxPage {
			return fmt.Errorf("want 1 to %d", client.MaxPage)
		}
		return nil
	})
	p.parse("after", func(s string) error {
		digits, ok := strings.CutPrefix(s, tokenForm)
		n, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("want what an earlier answer gave as next")
		}
		q.From = &n
		return nil
	})
	return q, limit, p.err
}

// parseLogs chooses the logs of a domain, of all its incarnations, or one log.
func (c *Control) parseLogs(name, origin string, q *index.Query) error {
	if origin != "" {
		l, ok := c.Store.LogByOrigin(origin)
		if !ok {
			return fmt.Errorf("log %q: %w", origin, ErrNotFound)
		}
		q.Logs = append(q.Logs, l.ID())
	}
	if name == "" {
		return nil
	}
	uuid := strings.ToLower(name)
	l, err := c.Find(name)
	if err == nil {
		uuid = l.Name().Domain
	}
	var of []chain.LogID
	for _, l := range c.Store.Logs() {
		if o := l.Name(); !o.IsHost() && o.Domain == uuid {
			of = append(of, l.ID())
		}
	}
	switch {
	case len(of) == 0 && err != nil:
		return err // it has the way to put it right
	case origin == "":
		q.Logs = of
	case !containsID(of, q.Logs[0]):
		q.NoLog = true
	}
	return nil
}

func containsID(all []chain.LogID, id chain.LogID) bool {
	for _, l := range all {
		if l == id {
			return true
		}
	}
	return false
}

// parseAddress reads an address, an address with a port, or a network.
func parseAddress(s string) (netip.Prefix, uint16, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), 0, nil
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		ip := a.Addr().Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), a.Port(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), 0, nil
	}
	return netip.Prefix{}, 0, fmt.Errorf("want an address, an address and port such as 192.0.2.7:443, or a network such as 192.0.2.0/24")
}

// params reads parameters and keeps the first error.
type params struct {
	v   url.Values
	err error
}

func (p *params) parse(name string, f func(string) error) {
	s := p.v.Get(name)
	if s == "" || p.err != nil {
		return
	}
	if err := f(s); err != nil {
		p.err = fmt.Errorf("%s is %q: %w: %w", name, s, err, record.ErrReject)
	}
}

func (p *params) pattern(name string, into *index.Pattern) {
	p.parse(name, func(s string) (err error) { *into, err = index.ParsePattern(s); return err })
}

func (p *params) time(name string, into *int64) {
	p.parse(name, func(s string) error {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || t.Year() < 1970 || t.Year() > 2200 {
			return fmt.Errorf("want a time such as 2026-11-23T06:00:00Z")
		}
		*into = t.UnixNano()
		return nil
	})
}

// classes turns patterns of names into classes.
func (p *params) classes(q *index.Query) {
	for _, pattern := range p.v["class"] {
		n := len(q.Classes)
		for _, k := range record.Classes() {
			if ok, err := path.Match(pattern, k.String()); ok && err == nil {
				q.Classes = append(q.Classes, k)
			}
		}
		if len(q.Classes) == n && p.err == nil {
			p.err = fmt.Errorf("no class matches %q; such are process.exec, file.*, policy.*: %w", pattern, record.ErrReject)
		}
	}
}
