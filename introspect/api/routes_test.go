package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// TestProblems wants every refusal as a Problem that says what is wrong.
func TestProblems(t *testing.T) {
	w := newWorld(t)
	id := client.LogID(w.web[1].Origin())
	for _, c := range []struct {
		method, target string
		code           int
		want           string
	}{
		{"GET", "/", 404, "not found"},
		{"GET", "/v2/status", 404, "/v2/status"},
		{"GET", "/v1/tail", 404, "not found"},
		{"GET", "/v1//status", 404, "not found"},
		{"GET", "/v1/logs/../status", 404, "not found"},
		{"GET", "/logs", 404, "not found"},
		{"GET", "/logs/x", 404, "no such log"},
		{"PUT", "/v1/status", 405, "allowed: GET, HEAD"},
		{"HEAD", "/v1/query", 405, ""},
		{"GET", "/v1/export", 405, "allowed: POST"},
		{"DELETE", "/logs/" + w.db.Origin() + "/checkpoint", 405, "allowed: GET"},
		{"GET", "/v1/status?verbose=1", 400, `no parameter \"verbose\"; known are: none`},
		{"GET", "/v1/query?pth=/etc", 400, `no parameter \"pth\"; known are: domain, log`},
		{"GET", "/v1/query?path=/a&path=/b", 400, "given 2 times"},
		{"GET", "/v1/query?path=%zz", 400, "cannot be read"},
		{"GET", "/v1/query?path=" + strings.Repeat("a", maxQuery), 400, "the limit is"},
		{"GET", "/v1/logs/" + id + "/entries/-1", 400, "is no number"},
		{"GET", "/v1/logs/" + id + "/entries/99", 404, "has 4 entries"},
		{"GET", "/v1/logs/" + id + "/proof/inclusion", 400, "index is missing"},
		{"GET", "/v1/logs/" + id + "/proof/inclusion?index=4", 400, "has 4 entries"},
		{"GET", "/v1/logs/" + id + "/proof/inclusion?index=0&size=5", 400, "has 4 entries"},
		{"GET", "/v1/logs/" + id + "/proof/consistency?from=0", 400, "from 1 to 4"},
		{"GET", "/v1/logs/" + id + "/proof/consistency?from=3&to=2", 400, "the smaller first"},
		{"GET", "/v1/logs/" + id + "/proof/consistency?from=18446744073709551615", 400, "number of entries"},
		{"POST", "/v1/export", 400, "name a domain or a log"},
		{"POST", "/v1/export?domain=web&index=1&from=0", 400, "not by several"},
		{"POST", "/v1/export?domain=web&index=1&since=2026-01-01T00:00:00Z", 400, "not by several"},
		{"POST", "/v1/export?domain=web&index=77", 400, "leaves 0 to 3"},
		{"POST", "/v1/export?domain=web&from=3&to=2", 400, "leaves 0 to 3"},
		{"POST", "/v1/export?log=" + client.LogID(w.service.Store.HostLog().Origin()), 400, "bundles are of VM logs"},
		{"GET", "/v1/stream?last=-1", 400, "want 0 to"},
		{"GET", "/v1/stream?follow=maybe", 400, "true or false"},
		{"POST", "/v1/domains/web/agent-stop", 400, "no reason"},
		{"POST", "/v1/domains/nobody/enroll", 404, "nobody"},
	} {
		got := w.ask(t, operator, c.method, c.target)
		var p client.Problem
		if c.method != http.MethodHead {
			if err := json.Unmarshal(got.Body.Bytes(), &p); err != nil || p.Status != c.code || got.Header().Get("Content-Type") != client.ProblemType {
				t.Errorf("%s %s: no problem: %s", c.method, c.target, got.Body)
			}
		}
		if got.Code != c.code || !strings.Contains(got.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.target, got.Code, got.Body, c.code, c.want)
		}
		if got.Code == 405 && c.method != http.MethodHead && !strings.HasSuffix(p.Hint, got.Header().Get("Allow")) {
			t.Errorf("%s %s: allow %q, hint %q", c.method, c.target, got.Header().Get("Allow"), p.Hint)
		}
	}
	r := httptest.NewRequestWithContext(access.With(t.Context(), operator), "POST", "/v1/export?domain=web", strings.NewReader("x"))
	out := httptest.NewRecorder()
	if w.handler.ServeHTTP(out, r); out.Code != 400 || !strings.Contains(out.Body.String(), "has a body") {
		t.Errorf("with a body: %d %s", out.Code, out.Body)
	}
}

// TestInternalErrorsStayInside: what a tenant is told of a failure must not
// come from what failed.
func TestInternalErrorsStayInside(t *testing.T) {
	w := newWorld(t)
	for who, told := range map[*access.Identity]bool{tenant: false, auditor: false, operator: true} {
		out := httptest.NewRecorder()
		c := &call{s: w.service, w: out, r: httptest.NewRequestWithContext(t.Context(), "GET", "/v1/query", nil), ctx: t.Context(), id: who}
		c.problem(errSealing)
		if out.Code != 500 || strings.Contains(out.Body.String(), errSealing.Error()) != told {
			t.Errorf("%s: %d %s", who.Role, out.Code, out.Body)
		}
	}
}

// FuzzRequests asks every route for anything: it is answered without a panic,
// by a success or by a Problem.
func FuzzRequests(f *testing.F) {
	s, l := tileStore(f, 3)
	service := serviceOf(s, l)
	h := service.Handler()
	routes := service.routes()
	f.Add(uint8(3), "web", "last=1&follow=false")
	f.Add(uint8(8), "x", "index=1&size=2")
	f.Add(uint8(9), "kvm1.example~log~1", "from=1&to=18446744073709551616")
	f.Add(uint8(13), "x", "follow=false&after=AAAA&class=%5B")
	f.Add(uint8(14), "x", "domain=web&index=1&index=x")
	f.Fuzz(func(t *testing.T, n uint8, segment, query string) {
		rt := routes[int(n)%len(routes)]
		switch rt.pattern { // of the daemon, or of an index, which have tests of their own
		case "/v1/status", "/v1/domains", "/v1/domains/{domain}", "/v1/query", "/v1/lineage", "/v1/export":
			rt.least = access.Operator
		}
		if rt.least == access.Operator {
			c := &call{s: service, ctx: t.Context(), id: operator, r: &http.Request{Method: rt.method, URL: &url.URL{Path: "/", RawQuery: query}}}
			if c.parse(&rt) == nil {
				_, _, _ = c.parseQuery()
				_, _ = c.parseLineage()
				_, _ = c.selection(l)
				_, _ = c.parseErase()
			}
			return
		}
		path := strings.NewReplacer("{domain}", segment, "{log}", segment, "{index}", segment, "{path...}", segment).Replace(rt.pattern)
		if rt.pattern == "/v1/stream" {
			query += "&follow=false"
		}
		r := (&http.Request{Method: rt.method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}).WithContext(access.With(t.Context(), operator))
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		if out.Code == 200 {
			return
		}
		var p client.Problem
		if err := json.Unmarshal(out.Body.Bytes(), &p); err != nil || p.Status != out.Code || out.Code >= 500 {
			t.Fatalf("%s?%s: %d %s", path, query, out.Code, out.Body)
		}
	})
}
