package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

const (
	// indexPatience is how long a question waits for the index to reach what
	// was sealed when it was asked. The answer says what it still lacks.
	indexPatience = 2 * time.Second
	// pageBudget bounds how many entries one answer reads.
	pageBudget = 200_000
)

// query answers with the entries that are wanted, one a line, and a last line
// that tells where to go on.
func (s *Service) query(c *call) error {
	q, limit, err := c.parseQuery()
	if err != nil {
		return err
	}
	p := c.params()
	payload := p.boolean("payload", true)
	if p.err != nil {
		return p.err
	}
	s.awaitIndex(c.ctx)
	out := &page{c: c, payload: payload, tells: payload || q.OfPayloads(), given: tally{}, flushed: time.Now()}
	end, err := out.fill(q, limit)
	if err == nil {
		err = out.nothing(q)
	}
	if err == nil {
		err = out.end(end)
	}
	if err != nil && out.begun {
		// The missing last line tells the reader.
		s.Log.WarnContext(c.ctx, "answer to a query ended early", "error", err)
		return nil
	}
	return err
}

// awaitIndex waits a little for the index to catch up.
func (s *Service) awaitIndex(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.private.patience)
	defer cancel()
	_ = s.Index.Wait(ctx) // the answer tells how far behind it is
}

// page is an answer to a query. It goes out in parts, each behind the
// disclosure of exactly what is in it.
type page struct {
	c       *call
	payload bool
	tells   bool // of payloads: by themselves, or by what they were chosen for
	lines   bytes.Buffer
	given   tally // in lines
	some    bool  // was given
	flushed time.Time
	begun   bool
}

// Bounds of a part: what it holds in memory, and how long what was found waits
// for company.
const (
	partBytes = 256 << 10
	partTime  = 500 * time.Millisecond
)

func (p *page) fill(q *index.Query, limit int) (*client.QueryEnd, error) {
	var stats index.Stats
	end := &client.QueryEnd{}
	n := 0
	for f, err := range p.c.s.Index.Find(p.c.ctx, q, &stats) {
		if err != nil {
			return nil, err
		}
		if n == limit {
			end.Next = p.c.s.token(tokenQuery, f.Ordinal, 0)
			break
		}
		if err := p.add(&f.Item); err != nil {
			return nil, err
		}
		n++
	}
	if stats.Cut {
		end.Next = p.c.s.token(tokenQuery, stats.Next, 0)
	}
	end.Examined, end.Behind = stats.Examined, p.c.behind(p.c.s.Index.Lag())
	return end, nil
}

func (p *page) add(i *chain.Item) error {
	if err := json.NewEncoder(&p.lines).Encode(p.c.s.wire(i, p.payload)); err != nil {
		return err
	}
	if disclosed(i, p.tells) {
		p.given.add(i)
		p.some = true
	}
	if p.lines.Len() < partBytes && time.Since(p.flushed) < partTime {
		return nil
	}
	return p.flush()
}

// nothing has sealed a search of payloads that found none: that tells of all of
// them.
func (p *page) nothing(q *index.Query) error {
	if p.some || q.NoLog || !q.OfPayloads() {
		return nil
	}
	d := access.Disclosure{Last: access.Open}
	if len(q.Logs) == 1 {
		if l, ok := p.c.s.Store.LogByID(q.Logs[0]); ok {
			d.Origin = l.Origin()
		}
	}
	return p.c.disclose(d)
}

func (p *page) flush() error {
	if err := p.given.disclose(p.c); err != nil {
		return err
	}
	p.c.deadline(p.c.s.private.write)
	if !p.begun {
		p.begun = true
		p.c.w.Header().Set("Content-Type", linesType)
	}
	if _, err := p.lines.WriteTo(p.c.w); err != nil {
		return err
	}
	p.flushed = time.Now()
	p.c.flush()
	return nil
}

func (p *page) end(e *client.QueryEnd) error {
	if err := json.NewEncoder(&p.lines).Encode(map[string]*client.QueryEnd{"end": e}); err != nil {
		return err
	}
	return p.flush()
}

// linesType is the content type of one JSON value a line.
const linesType = "application/jsonl"

// writeTimeout ends a request whose reader does not read.
const writeTimeout = 30 * time.Second

// flush hands on what is written; the next write reports a reader that is gone.
func (c *call) flush() { _ = http.NewResponseController(c.w).Flush() }

// parseQuery reads the parameters of a query. An error wraps record.ErrReject
// or ErrNotFound and says which parameter is wrong.
func (c *call) parseQuery() (*index.Query, int, error) {
	q := &index.Query{Budget: pageBudget}
	p := c.params()
	if err := c.scope(q); err != nil {
		return nil, 0, err
	}
	q.Classes = p.classes()
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
	q.Process.Pid, q.Process.Start = p.process()
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
		n, _, err := c.s.parseToken(tokenQuery, s)
		q.From = &n
		return err
	})
	return q, limit, p.err
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
