package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// indexed serves a store with an index on a socket and returns its client.
func indexed(t *testing.T, s *chain.Store, l *chain.Log) *client.Client {
	t.Helper()
	return onSocket(t, as(withIndex(t, serviceOf(s, l)).Handler(), operator))
}

func ask(t *testing.T, c *client.Client, q client.Query) (got []uint64, end client.QueryEnd) {
	t.Helper()
	for e, err := range c.Query(t.Context(), q, &end) {
		if err != nil {
			t.Fatal(err)
		}
		leaf, _, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, leaf.Index)
	}
	return got, end
}

// TestQuery asks over the socket, page by page and at once.
func TestQuery(t *testing.T) {
	const n = 40
	s, l := tileStore(t, n)
	e, err := s.Draft(record.OriginHost, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/etc/passwd")}})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}})
	if err != nil {
		t.Fatal(err)
	}
	c := indexed(t, s, l)
	if got, end := ask(t, c, client.Query{Domain: "web", Path: "/etc/"}); len(got) != 1 || got[0] != sealed.First || end.Next != "" || end.Behind != 0 {
		t.Errorf("by path: %d, %+v", got, end)
	}
	all, _ := ask(t, c, client.Query{Domain: "web", Oldest: true})
	if len(all) != n+1 || all[0] != 0 || all[n] != n {
		t.Errorf("all of the domain: %d", all)
	}
	if got, _ := ask(t, c, client.Query{Domain: l.Name().Domain}); len(got) != n+1 || got[0] != n {
		t.Errorf("all by UUID, newest first: %d", got)
	}
	if got, _ := ask(t, c, client.Query{Log: s.HostLog().Origin()}); len(got) == 0 {
		t.Error("nothing of the host log")
	}
	if got, _ := ask(t, c, client.Query{Log: s.HostLog().Origin(), Domain: "web"}); len(got) != 0 {
		t.Errorf("entries of two logs at once: %d", got)
	}
	q := client.Query{Domain: "web", Oldest: true, Limit: 7, Since: time.Now().Add(-time.Hour)}
	var pages []uint64
	for {
		got, end := ask(t, c, q)
		pages = append(pages, got...)
		if end.Next == "" {
			break
		}
		if len(got) != 7 {
			t.Fatalf("a page of %d entries", len(got))
		}
		q.After = end.Next
	}
	if len(pages) != n+1 || pages[0] != 0 || pages[n] != n {
		t.Errorf("page by page: %d", pages)
	}
}

// TestQueryRefuses wants each wrong parameter named.
func TestQueryRefuses(t *testing.T) {
	s, l := tileStore(t, 2)
	srv := httptest.NewServer(as(serviceOf(s, l).Handler(), operator))
	defer srv.Close()
	for query, want := range map[string]string{
		"class=nope":          "no class matches",
		"path=%5Ba":           "no pattern",
		"sha256=ab":           "64 hexadecimal digits",
		"address=x":           "want an address",
		"pid=-1":              "pid is",
		"pid=0":               "no process has this id",
		"start=x":             "start is",
		"start=7":             "give pid as well",
		"pid=7&start=0":       "leave it out for any start",
		"since=yesterday":     "want a time",
		"order=random":        "newest or oldest",
		"limit=0":             "want 1 to",
		"limit=10001":         "want 1 to",
		"after=7":             "earlier answer",
		"log=kvm1.example/vm": "not found",
	} {
		res, body := fetch(t, http.MethodGet, srv.URL+"/v1/query?"+query)
		if res.StatusCode/100 != 4 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %q", query, res.StatusCode, body, want)
		}
	}
}

// TestQueryCutOff: an answer without its end is an error, not less.
func TestQueryCutOff(t *testing.T) {
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{\"log\":\"x\"}\n")) // the recorder of a test
	}))
	n := 0
	var err error
	for _, err = range c.Query(t.Context(), client.Query{}, nil) {
		n++
	}
	if n != 2 || err == nil || !strings.Contains(err.Error(), "too early") {
		t.Errorf("%d steps, %v", n, err)
	}
}

// TestLineage asks over the socket.
func TestLineage(t *testing.T) {
	s, l := tileStore(t, 2)
	e, err := s.Draft(record.OriginHost, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/etc/passwd")},
		Process: &record.Process{Pid: 7, Start: 70, Executable: []byte("/usr/bin/vim")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	c := indexed(t, s, l)
	for _, q := range []client.LineageQuery{
		{Domain: "web", Path: "/etc/passwd"}, {Domain: l.Name().Domain, Path: "/etc/passwd", Until: time.Now().Add(time.Hour)},
		{Domain: "web", Pid: 7, Start: 70, Direction: "forward"},
	} {
		g, err := c.Lineage(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Nodes) != 2 || len(g.Edges) != 1 || g.Edges[0].Class != "file.modify" {
			t.Errorf("%+v: %d nodes, %d edges", q, len(g.Nodes), len(g.Edges))
		}
	}
	for want, q := range map[string]client.LineageQuery{
		"no entry tells of /none":   {Domain: "web", Path: "/none"},
		"name the domain":           {Path: "/etc/passwd"},
		"not found":                 {Domain: "nobody", Path: "/etc/passwd"},
		"give one of":               {Domain: "web", Path: "/x", Pid: 7},
		"give pid as well":          {Domain: "web", Path: "/x", Start: 7},
		"back, forward or both":     {Domain: "web", Path: "/x", Direction: "up"},
		"depth is 99, want 1 to 64": {Domain: "web", Path: "/etc/passwd", Depth: 99},
	} {
		if _, err := c.Lineage(t.Context(), q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", q, err, want)
		}
	}
}
