package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// apiDoc is what the tests read of the description.
type apiDoc struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Summary     string `json:"summary"`
		Role        string `json:"x-least-role"`
		Payloads    bool   `json:"x-gives-payloads"`
		Parameters  []struct {
			Ref  string `json:"$ref"`
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
		Responses map[string]struct {
			Ref     string                     `json:"$ref"`
			Content map[string]json.RawMessage `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Parameters map[string]struct {
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
	} `json:"components"`
}

func readDoc(t *testing.T) *apiDoc {
	t.Helper()
	var d apiDoc
	if err := json.Unmarshal(description, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// docPattern is how the description writes a pattern.
func docPattern(p string) string { return strings.ReplaceAll(p, "...}", "}") }

// TestDescriptionNamesEveryRoute compares the table and the description both
// ways: methods, paths, roles, whether payloads are given, parameters.
func TestDescriptionNamesEveryRoute(t *testing.T) {
	doc := readDoc(t)
	seen := map[string]bool{}
	ids := map[string]bool{}
	for _, rt := range (&Service{}).routes() {
		op, ok := doc.Paths[docPattern(rt.pattern)][strings.ToLower(rt.method)]
		if !ok {
			t.Errorf("openapi.json lacks %s %s", rt.method, rt.pattern)
			continue
		}
		seen[rt.method+" "+docPattern(rt.pattern)] = true
		if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
			t.Errorf("%s %s: it has the operation id %q, which must be one of its own, and the summary %q", rt.method, rt.pattern, op.OperationID, op.Summary)
		}
		ids[op.OperationID] = true
		if op.Role != rt.least.String() || op.Payloads != rt.payloads {
			t.Errorf("%s %s: openapi.json says role %s, payloads %v; it is %s, %v", rt.method, rt.pattern, op.Role, op.Payloads, rt.least, rt.payloads)
		}
		var query, path []string
		for _, p := range op.Parameters {
			if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
				p.Name, p.In = doc.Components.Parameters[name].Name, doc.Components.Parameters[name].In
			}
			switch p.In {
			case "query":
				query = append(query, p.Name)
			case "path":
				path = append(path, p.Name)
			}
		}
		want := slices.Clone(rt.query)
		sort.Strings(want)
		sort.Strings(query)
		if !slices.Equal(query, want) {
			t.Errorf("%s %s: openapi.json has the parameters %v, it takes %v", rt.method, rt.pattern, query, want)
		}
		for _, name := range path {
			if !strings.Contains(docPattern(rt.pattern), "{"+name+"}") {
				t.Errorf("%s has no part %q", rt.pattern, name)
			}
		}
		if strings.Count(rt.pattern, "{") != len(path) {
			t.Errorf("%s: openapi.json explains %d of its parts", rt.pattern, len(path))
		}
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if !seen[strings.ToUpper(method)+" "+path] {
				t.Errorf("openapi.json has %s %s, which is not served", method, path)
			}
		}
	}
}

// checker validates answers against the description.
type checker struct {
	doc      *apiDoc
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
	covered  map[string]bool // "GET /path 200"
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(description))
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{doc: readDoc(t), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, covered: map[string]bool{}}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("openapi.json", v); err != nil {
		t.Fatal(err)
	}
	return c
}

// check holds one answer against what the description says of the route.
func (c *checker) check(rt *route, code int, contentType string, body []byte) error {
	pattern, method := docPattern(rt.pattern), strings.ToLower(rt.method)
	res, ok := c.doc.Paths[pattern][method].Responses[fmt.Sprint(code)]
	if !ok {
		return fmt.Errorf("openapi.json does not say that it answers with %d", code)
	}
	c.covered[fmt.Sprintf("%s %s %d", rt.method, pattern, code)] = true
	at := fmt.Sprintf("/paths/%s/%s/responses/%d", strings.NewReplacer("~", "~0", "/", "~1").Replace(pattern), method, code)
	if res.Ref != "" {
		at = strings.TrimPrefix(res.Ref, "#")
	}
	kind, _, _ := strings.Cut(contentType, ";")
	if res.Ref == "" {
		if _, ok := res.Content[kind]; !ok {
			return fmt.Errorf("openapi.json does not say that it answers in %q", contentType)
		}
	} else if kind != client.ProblemType {
		return fmt.Errorf("the content type of a problem is %q", contentType)
	}
	at = "openapi.json#" + at + "/content/" + strings.ReplaceAll(kind, "/", "~1") + "/schema"
	schema := c.schemas[at]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(strings.NewReplacer("{", "%7B", "}", "%7D").Replace(at)); err != nil {
			return err
		}
		c.schemas[at] = schema
	}
	var values [][]byte
	switch {
	case strings.HasSuffix(kind, "json"):
		values = [][]byte{body}
	case kind == linesType:
		values = bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	case len(body) == 0:
		return fmt.Errorf("the body is empty")
	}
	for _, b := range values {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("%q: %w", b, err)
		}
		if err := schema.Validate(v); err != nil {
			return fmt.Errorf("%s: %w", b, err)
		}
	}
	return nil
}

// find returns the route of a request.
func find(t *testing.T, table []route, method, target string) *route {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	parts := strings.Split(path, "/")
	for i := range table {
		pattern := strings.Split(table[i].pattern, "/")
		if table[i].method != method {
			continue
		}
		if strings.HasSuffix(table[i].pattern, "...}") && len(parts) >= len(pattern) && slices.Equal(parts[:len(pattern)-1], pattern[:len(pattern)-1]) {
			return &table[i]
		}
		if len(parts) == len(pattern) {
			same := true
			for j := range parts {
				same = same && (parts[j] == pattern[j] || strings.HasPrefix(pattern[j], "{"))
			}
			if same {
				return &table[i]
			}
		}
	}
	t.Fatalf("no route for %s %s", method, target)
	return nil
}

// TestAnswersAreAsDescribed calls every route, with what it accepts and with
// what it refuses, and holds the answers against the description.
func TestAnswersAreAsDescribed(t *testing.T) {
	w := newWorld(t)
	c := newChecker(t)
	web, host := client.LogID(w.web[1].Origin()), client.LogID(w.service.Store.HostLog().Origin())
	table := w.service.routes()
	record := guestRecords(t, w.service.Store, w.db, "/home/ann/letter", 1)
	requests := []struct {
		method, target string
		code           int
	}{
		{"GET", "/v1/openapi.json", 200}, {"GET", "/v1/openapi.json?x=1", 400},
		{"GET", "/v1/status", 200}, {"GET", "/v1/status?x=1", 400},
		{"GET", "/v1/domains", 200}, {"GET", "/v1/domains?x=1", 400},
		{"GET", "/v1/domains/web", 200}, {"GET", "/v1/domains/" + dbUUID, 200}, {"GET", "/v1/domains/no", 404},
		{"GET", "/v1/domains/web/chain", 200}, {"GET", "/v1/domains/no/chain", 404},
		{"GET", "/v1/logs", 200}, {"GET", "/v1/logs?x=1", 400},
		{"GET", "/v1/logs/" + web, 200}, {"GET", "/v1/logs/" + host, 200}, {"GET", "/v1/logs/no", 404},
		{"GET", "/v1/logs/" + web + "/entries/1", 200}, {"GET", "/v1/logs/" + host + "/entries/0?payload=false", 200},
		{"GET", "/v1/logs/" + web + "/entries/x", 400}, {"GET", "/v1/logs/" + web + "/entries/99", 404},
		{"GET", "/v1/logs/" + web + "/proof/inclusion?index=2", 200}, {"GET", "/v1/logs/" + web + "/proof/inclusion?index=0&size=1", 200}, {"GET", "/v1/logs/" + web + "/proof/inclusion", 400}, {"GET", "/v1/logs/no/proof/inclusion?index=0", 404},
		{"GET", "/v1/logs/" + web + "/proof/consistency?from=1", 200}, {"GET", "/v1/logs/" + web + "/proof/consistency?from=2&to=3", 200}, {"GET", "/v1/logs/" + web + "/proof/consistency?from=0", 400}, {"GET", "/v1/logs/no/proof/consistency?from=1", 404},
		{"GET", "/v1/logs/" + web + "/window", 200}, {"GET", "/v1/logs/" + web + "/window?since=x", 400}, {"GET", "/v1/logs/no/window", 404},
		{"GET", "/v1/query", 200}, {"GET", "/v1/query?limit=1", 200}, {"GET", "/v1/query?payload=false", 200}, {"GET", "/v1/query?limit=0", 400}, {"GET", "/v1/query?domain=no", 404},
		{"GET", "/v1/lineage?domain=web&path=/etc/passwd&direction=both", 200}, {"GET", "/v1/lineage", 400}, {"GET", "/v1/lineage?domain=web&path=/none", 404},
		{"GET", "/v1/stream?follow=false", 200}, {"GET", "/v1/stream?last=x", 400}, {"GET", "/v1/stream?domain=no", 404},
		{"POST", "/v1/export?domain=web", 200}, {"POST", "/v1/export?domain=web&index=1&index=2&withhold=true", 200}, {"POST", "/v1/export?domain=web&since=2026-01-01T00:00:00Z", 200}, {"POST", "/v1/export", 400}, {"POST", "/v1/export?domain=no", 404},
		{"GET", "/logs/", 200}, {"GET", "/logs/" + w.db.Origin() + "/checkpoint", 200}, {"GET", "/logs/" + w.db.Origin() + "/tile/0/000.p/4", 200}, {"GET", "/logs/" + w.db.Origin() + "/tile/entries/000.p/4", 200}, {"GET", "/logs/x", 404}, {"GET", "/logs/?x=1", 400},
		{"POST", "/v1/domains/web/enroll", 200}, {"POST", "/v1/domains/web/enroll?x=1", 400}, {"POST", "/v1/domains/no/enroll", 404},
		{"POST", "/v1/domains/web/agent-stop?reason=why", 200}, {"POST", "/v1/domains/web/agent-stop", 400},
		{"POST", fmt.Sprint("/v1/erase?domain=db&reason=asked&record=", record), 200}, {"POST", "/v1/erase?domain=db", 400}, {"POST", "/v1/erase?domain=no&all=true&reason=x", 404},
		{"GET", "/v1/approvals", 200}, {"GET", "/v1/approvals?x=1", 400}, {"GET", "/v1/approvals/CHG-1", 200}, {"GET", "/v1/approvals/CHG-2", 404},
		{"POST", "/v1/approvals", 400}, {"POST", "/v1/revocations", 400}, // TestSubmissions has those that succeed
		{"POST", "/v1/domains/web/release", 400},
		{"POST", "/v1/backup?dir=/backup", 200}, {"POST", "/v1/backup", 400},
		{"POST", "/v1/shards/export?log=" + web + "&file=/archive", 200}, {"POST", "/v1/shards/export?log=" + web, 400}, {"POST", "/v1/shards/export?log=no&file=/archive", 404},
		{"POST", "/v1/shards/drop?log=" + web + "&archive=/archive&reason=old", 200}, {"POST", "/v1/shards/drop?log=" + web + "&archive=/archive", 400}, {"POST", "/v1/shards/drop?log=no&archive=/a&reason=x", 404},
		{"GET", "/v1/policies", 200}, {"GET", "/v1/policies?x=1", 400}, {"GET", "/v1/policies/" + worldDigest.String(), 200}, {"GET", "/v1/policies/" + dbUUID, 404}, {"GET", "/v1/policies/" + strings.Repeat("0", 64), 404},
		{"POST", "/v1/policies/apply", 400}, {"POST", "/v1/policies/replay", 400}, // TestApplied has those that succeed
		{"POST", "/v1/policies/rollback", 200}, {"POST", "/v1/policies/rollback?x=1", 400},
		{"POST", "/v1/keys/rotate", 200}, {"POST", "/v1/keys/rotate?x=1", 400},
		{"GET", "/v1/alerts", 200}, {"GET", "/v1/alerts?x=1", 400},
		{"POST", "/v1/alerts/ops/test", 200}, {"POST", "/v1/alerts/ops/test?x=1", 400}, {"POST", "/v1/alerts/no/test", 404},
	}
	body := `{"action":"pause","reason":"seen to"}`
	for target, code := range map[string]int{"/v1/domains/web/release": 200, "/v1/domains/no/release": 404} {
		r := httptest.NewRequestWithContext(access.With(t.Context(), operator), "POST", target, strings.NewReader(body))
		out := httptest.NewRecorder()
		w.handler.ServeHTTP(out, r)
		if err := c.check(find(t, table, "POST", target), out.Code, out.Header().Get("Content-Type"), out.Body.Bytes()); err != nil || out.Code != code {
			t.Errorf("POST %s: %d, want %d: %v %s", target, out.Code, code, err, out.Body)
		}
	}
	for _, q := range requests {
		rt := find(t, table, q.method, q.target)
		got := w.ask(t, operator, q.method, q.target)
		if got.Code != q.code {
			t.Errorf("%s %s: %d, want %d: %s", q.method, q.target, got.Code, q.code, got.Body)
			continue
		}
		if err := c.check(rt, got.Code, got.Header().Get("Content-Type"), got.Body.Bytes()); err != nil {
			t.Errorf("%s %s: %v", q.method, q.target, err)
		}
	}
	for i := range table {
		rt := &table[i]
		if bodies[rt.method+" "+rt.pattern] == 0 && !c.covered[fmt.Sprintf("%s %s 200", rt.method, docPattern(rt.pattern))] {
			t.Errorf("no success of %s %s is held against the description", rt.method, rt.pattern)
		}
		for who, code := range map[*access.Identity]int{nil: http.StatusUnauthorized, tenant: http.StatusForbidden} {
			if who.May(rt.least) {
				continue
			}
			got := w.ask(t, who, rt.method, strings.NewReplacer("{domain}", "web", "{log}", web, "{index}", "1", "{id}", "CHG-1", "{path...}", "").Replace(rt.pattern))
			if err := c.check(rt, got.Code, got.Header().Get("Content-Type"), got.Body.Bytes()); err != nil || got.Code != code {
				t.Errorf("%s %s: %d %v", rt.method, rt.pattern, got.Code, err)
			}
		}
	}
	// The negative control: what is not as described must be seen.
	rt := find(t, table, "GET", "/v1/logs")
	for _, bad := range []string{`{}`, `[{}]`, `[{"id":"a/b","origin":"x","shard":1,"size":1,"published":1,"cosigned":false,"verifier_key":"k","url":"/"}]`} {
		if c.check(rt, 200, "application/json", []byte(bad)) == nil {
			t.Errorf("%s passes as a list of logs", bad)
		}
	}
	if c.check(rt, 200, "text/plain", []byte("x")) == nil || c.check(rt, 418, client.ProblemType, []byte("{}")) == nil {
		t.Error("another content type and another status pass")
	}
}

// TestDescriptionIsServed reads it as clients do, and wants each reference in it
// to lead somewhere.
func TestDescriptionIsServed(t *testing.T) {
	w := newWorld(t)
	doc, err := onSocket(t, as(w.handler, tenant)).OpenAPI(t.Context())
	if err != nil || doc["openapi"] != "3.1.0" {
		t.Fatalf("%v: %v", doc["openapi"], err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				var at any = doc
				for _, p := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := at.(map[string]any)
					at = m[p]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(doc)
}
