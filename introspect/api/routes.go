package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// route is one line of the table of routes.
type route struct {
	method  string
	pattern string
	least   access.Role // who may call it
	// payloads says that it gives payloads: what it gives is disclosed first.
	payloads bool
	limit    time.Duration // of the whole request; 0: it ends by itself
	query    []string      // the parameters that it knows
	handle   func(*call) error
}

// How long a request may take.
const (
	quick = 30 * time.Second
	slow  = 5 * time.Minute
	hours = 12 * time.Hour // for what grows with the ledger
)

// maxQuery bounds the text of a query.
const maxQuery = 16 << 10

// Parameters of several routes.
var (
	queryParameters   = []string{"domain", "log", "class", "path", "exe", "name", "sha256", "address", "pid", "start", "user", "since", "until", "order", "limit", "after", "payload"}
	lineageParameters = []string{"domain", "path", "pid", "start", "address", "direction", "depth", "nodes", "events", "since", "until"}
	streamParameters  = []string{"domain", "log", "class", "last", "new", "follow", "after", "payload"}
	exportParameters  = []string{"domain", "log", "index", "from", "to", "since", "until", "withhold", "policies"}
)

// routes is the one table of what is served, to whom.
func (s *Service) routes() []route {
	return []route{
		{"GET", "/v1/openapi.json", access.Tenant, false, quick, nil, openAPI},
		{"GET", "/v1/status", access.Auditor, false, quick, nil, s.status},

		{"GET", "/v1/domains", access.Tenant, false, quick, nil, s.domains},
		{"GET", "/v1/domains/{domain}", access.Tenant, false, quick, nil, s.domain},
		{"GET", "/v1/domains/{domain}/chain", access.Tenant, false, slow, nil, s.chain},

		{"GET", "/v1/logs", access.Tenant, false, quick, nil, s.logs},
		{"GET", "/v1/logs/{log}", access.Tenant, false, quick, nil, s.log},
		{"GET", "/v1/logs/{log}/entries/{index}", access.Tenant, true, quick, []string{"payload"}, s.entry},
		{"GET", "/v1/logs/{log}/proof/inclusion", access.Tenant, false, quick, []string{"index", "size"}, s.inclusion},
		{"GET", "/v1/logs/{log}/proof/consistency", access.Tenant, false, quick, []string{"from", "to"}, s.consistency},
		{"GET", "/v1/logs/{log}/window", access.Tenant, false, slow, []string{"since", "until"}, s.window},

		{"GET", "/v1/query", access.Tenant, true, slow, queryParameters, s.query},
		{"GET", "/v1/lineage", access.Tenant, true, slow, lineageParameters, s.lineage},
		{"GET", "/v1/stream", access.Tenant, true, 0, streamParameters, s.stream},
		{"POST", "/v1/export", access.Tenant, true, slow, exportParameters, s.export},

		{"GET", "/logs/{path...}", access.Tenant, true, quick, nil, s.tiles},

		{"POST", "/v1/domains/{domain}/enroll", access.Operator, false, slow, nil, s.enroll},
		{"POST", "/v1/domains/{domain}/agent-stop", access.Operator, false, slow, []string{"reason"}, s.stopAgent},
		{"POST", "/v1/domains/{domain}/release", access.Operator, false, slow, nil, s.release},
		{"POST", "/v1/keys/rotate", access.Operator, false, slow, nil, s.rotate},
		{"POST", "/v1/erase", access.Operator, false, hours, []string{"domain", "log", "record", "from", "to", "all", "reason"}, s.erase},
		{"POST", "/v1/shards/export", access.Operator, true, hours, []string{"log", "file", "withhold"}, s.exportShard},
		{"POST", "/v1/shards/drop", access.Operator, false, hours, []string{"log", "archive", "reason", "requester"}, s.dropShard},
		{"GET", "/v1/approvals", access.Operator, false, quick, nil, s.approvals},
		{"GET", "/v1/approvals/{id}", access.Operator, false, quick, nil, s.approval},
		{"POST", "/v1/approvals", access.Operator, false, quick, nil, s.approve},
		{"POST", "/v1/revocations", access.Operator, false, quick, nil, s.revoke},
		{"GET", "/v1/policies", access.Auditor, false, quick, nil, s.policies},
		{"GET", "/v1/policies/{digest}", access.Auditor, false, slow, nil, s.policyText},
		{"POST", "/v1/policies/apply", access.Operator, false, hours, []string{"dry_run", "since", "max_actions"}, s.applyPolicies},
		{"POST", "/v1/policies/replay", access.Operator, true, hours, []string{"domain", "since"}, s.replayPolicies},
		{"POST", "/v1/policies/rollback", access.Operator, false, slow, nil, s.rollBack},
		{"GET", "/v1/alerts", access.Auditor, false, quick, nil, s.alerts},
		{"POST", "/v1/alerts/{channel}/test", access.Operator, false, slow, nil, s.testAlert},
		{"POST", "/v1/backup", access.Operator, false, hours, []string{"dir", "payload_keys"}, s.backup},
	}
}

// call is one request on its way.
type call struct {
	s   *Service
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context
	id  *access.Identity
	v   url.Values // parameters that the route knows
	// what names the request in disclosures, without words of its own: they
	// may name people, and the host log is not erased.
	what string
}

// mux serves a table.
func (s *Service) mux(table []route) http.Handler {
	m := http.NewServeMux()
	for i := range table {
		if slices.ContainsFunc(table[:i], func(r route) bool { return r.pattern == table[i].pattern }) {
			continue
		}
		methods := map[string]*route{}
		for j := range table {
			if table[j].pattern == table[i].pattern {
				methods[table[j].method] = &table[j]
			}
		}
		m.HandleFunc(table[i].pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, methods) })
	}
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, nil) })
	m.HandleFunc("/logs", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, nil) }) // or the mux redirects
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux answers with a redirection where a path has a second
		// spelling. There are none here.
		if r.URL.Path == "" || r.URL.Path[0] != '/' || strings.Contains(r.URL.Path, "//") || slices.ContainsFunc(strings.Split(r.URL.Path, "/"), func(p string) bool { return p == "." || p == ".." }) {
			s.serve(w, r, nil)
			return
		}
		m.ServeHTTP(w, r)
	})
}

// serve checks a request against the routes of its path, and has it handled.
// methods is empty where there is no such path.
func (s *Service) serve(w http.ResponseWriter, r *http.Request, methods map[string]*route) {
	w.Header().Set("Cache-Control", cacheNever)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	c := &call{s: s, w: w, r: r, ctx: r.Context(), id: access.From(r.Context())}
	if !c.id.May(access.Tenant) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeProblem(w, &client.Problem{Status: http.StatusUnauthorized, Detail: "nobody is known to send this request", Hint: "send a token, or use a client certificate"})
		return
	}
	rt := methods[r.Method]
	if r.Method == http.MethodHead && methods[http.MethodGet] != nil && !methods[http.MethodGet].payloads {
		rt = methods[http.MethodGet]
	}
	switch {
	case len(methods) == 0:
		c.problem(fmt.Errorf("%s: %w", r.URL.Path, ErrNotFound))
		return
	case rt == nil:
		w.Header().Set("Allow", allow(methods))
		writeProblem(w, &client.Problem{Status: http.StatusMethodNotAllowed, Detail: fmt.Sprintf("%s is not served for %s", r.Method, r.URL.Path), Hint: "allowed: " + allow(methods)})
		return
	case !c.id.May(rt.least):
		writeProblem(w, &client.Problem{Status: http.StatusForbidden, Detail: fmt.Sprintf("%s %s is for role %s; yours is %s", r.Method, r.URL.Path, rt.least, c.id.Role)})
		return
	}
	if err := c.parse(rt); err != nil {
		c.problem(err)
		return
	}
	if rt.limit > 0 {
		ctx, cancel := context.WithTimeoutCause(c.ctx, rt.limit, errTooLong)
		defer cancel()
		c.ctx = ctx
		c.deadline(rt.limit + writeTimeout)
	}
	if err := rt.handle(c); err != nil {
		c.problem(err)
	}
}

// errTooLong ends a request that takes longer than its route allows.
var errTooLong = fmt.Errorf("it takes too long; ask for less at once: %w", record.ErrRetry)

// allow lists the methods of a path.
func allow(methods map[string]*route) string {
	var all []string
	for m, rt := range methods {
		all = append(all, m)
		if m == http.MethodGet && !rt.payloads {
			all = append(all, http.MethodHead)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// parse checks what a request brings: parameters that the route knows, each
// once unless several are meant, and no body where none is meant.
func (c *call) parse(rt *route) error {
	if most := bodies[rt.method+" "+rt.pattern]; most == 0 && c.r.ContentLength != 0 {
		return fmt.Errorf("the request has a body, and this route takes none: %w", record.ErrReject)
	} else if most > 0 && (c.r.ContentLength <= 0 || c.r.ContentLength > most) {
		return fmt.Errorf("the body of the request has %d bytes, want 1 to %d: %w", c.r.ContentLength, most, record.ErrReject)
	}
	if len(c.r.URL.RawQuery) > maxQuery {
		return fmt.Errorf("the query has %d bytes, the limit is %d: %w", len(c.r.URL.RawQuery), maxQuery, record.ErrReject)
	}
	var err error
	if c.v, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return fmt.Errorf("the query cannot be read: %w: %w", err, record.ErrReject)
	}
	for name, values := range c.v {
		if !slices.Contains(rt.query, name) {
			known := "none"
			if len(rt.query) > 0 {
				known = strings.Join(rt.query, ", ")
			}
			return fmt.Errorf("there is no parameter %q; known are: %s: %w", clip(name), known, record.ErrReject)
		}
		if len(values) > 1 && name != "class" && name != "index" {
			return fmt.Errorf("parameter %q is given %d times: %w", name, len(values), record.ErrReject)
		}
	}
	c.what = clip(c.r.Method + " " + c.r.URL.Path)
	return nil
}

// maxWhat bounds what is said of a request in entries and errors.
const maxWhat = 1024

func clip(s string) string {
	if len(s) <= maxWhat {
		return s
	}
	return strings.ToValidUTF8(s[:maxWhat], "") + "..."
}

// deadline ends the connection of a client that does not read, best effort: a
// writer without deadlines has none.
func (c *call) deadline(d time.Duration) {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(d))
}

// answer writes v as JSON.
func (c *call) answer(v any, err error) error {
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(c.w).Encode(v); err != nil {
		c.s.Log.DebugContext(c.ctx, "answer not delivered", "path", c.r.URL.Path, "error", err)
	}
	return nil
}
