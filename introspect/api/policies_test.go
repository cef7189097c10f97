package api

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
)

// TestApplied holds the answers of the routes that take a bundle against the
// description.
func TestApplied(t *testing.T) {
	w := newWorld(t)
	c := newChecker(t)
	table := w.service.routes()
	for target, code := range map[string]int{"/v1/policies/apply": 200, "/v1/policies/apply?dry_run=true": 200, "/v1/policies/apply?dry_run=x": 400,
		"/v1/policies/apply?max_actions=1": 400, "/v1/policies/apply?max_actions=1&since=2026-11-01T00:00:00Z": 200,
		"/v1/policies/replay": 400, "/v1/policies/replay?since=2026-11-01T00:00:00Z": 200, "/v1/policies/replay?since=2026-11-01T00:00:00Z&domain=web": 200, "/v1/policies/replay?since=2026-11-01T00:00:00Z&domain=no": 404} {
		r := httptest.NewRequestWithContext(access.With(t.Context(), operator), http.MethodPost, target, strings.NewReader("files"))
		got := httptest.NewRecorder()
		w.handler.ServeHTTP(got, r)
		if got.Code != code || code == 200 && !strings.Contains(got.Body.String(), `"files"`) && !strings.Contains(got.Body.String(), `"wanted":1`) {
			t.Errorf("%s: %d %s", target, got.Code, got.Body)
		}
		if err := c.check(find(t, table, http.MethodPost, target), got.Code, got.Header().Get("Content-Type"), got.Body.Bytes()); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestExportedPolicies exports a log under two bundles, of which one is kept: auditors get
// its text, and tenants do not, whatever they ask for.
func TestExportedPolicies(t *testing.T) {
	w := newWorld(t)
	l := w.web[1]
	for _, digest := range []record.Hash{worldDigest, {1}} {
		e, err := w.service.Store.Draft(record.OriginHost, record.ClassPolicyLoaded, &record.BundleActivation{Name: "b", Digest: digest[:]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.service.Store.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		who    *access.Identity
		target string
		code   int
		want   map[record.Hash]string // why it lacks; empty: it is there
	}{
		"auditor":           {auditor, "/v1/export?domain=web", 200, map[record.Hash]string{worldDigest: "", {1}: proof.LacksKept}},
		"auditor, without":  {auditor, "/v1/export?domain=web&policies=false", 200, map[record.Hash]string{worldDigest: proof.LacksWithheld, {1}: proof.LacksWithheld}},
		"auditor, withheld": {auditor, "/v1/export?domain=web&withhold=true", 200, map[record.Hash]string{}},
		"tenant":            {tenant, "/v1/export?domain=web", 200, map[record.Hash]string{worldDigest: proof.LacksWithheld, {1}: proof.LacksWithheld}},
		"tenant, asking":    {tenant, "/v1/export?domain=web&policies=true", 400, nil},
		"text for tenants":  {tenant, "/v1/policies/" + worldDigest.String(), 403, nil},
	} {
		method := http.MethodPost
		if strings.HasPrefix(c.target, "/v1/policies") {
			method = http.MethodGet
		}
		got := w.ask(t, c.who, method, c.target)
		if got.Code != c.code {
			t.Errorf("%s: %d, want %d: %s", name, got.Code, c.code, got.Body)
		}
		if strings.Contains(got.Body.String(), "db-team") != (name == "auditor") {
			t.Errorf("%s: the text of a list is given: %t", name, name != "auditor")
		}
		if c.code != 200 {
			continue
		}
		b, err := proof.ReadBundle(bytes.NewReader(got.Body.Bytes()), int64(got.Body.Len()), proof.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		have := map[record.Hash]string{}
		for _, p := range b.Policies {
			have[p.Digest] = p.Lacks
		}
		if !maps.Equal(have, c.want) {
			t.Errorf("%s: policies %v, want %v", name, have, c.want)
		}
		if r, err := proof.Verify(b, w.service.Store.HostLog().VerifierKey(), proof.Options{}); err != nil || len(r.Policies) != len(c.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestPolicyTextOfAClient has the client compare what comes with the digest.
func TestPolicyTextOfAClient(t *testing.T) {
	w := newWorld(t)
	c := onSocket(t, as(w.handler, auditor))
	if files, err := c.PolicyText(t.Context(), worldDigest); err != nil || len(files) != 2 || string(files["lists/l.txt"]) != "db-team\n" {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := c.PolicyText(t.Context(), record.Hash{1}); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("one that is not kept: %v", err)
	}
	w.service.PolicyText = func(context.Context, record.Hash) (map[string][]byte, error) {
		return map[string][]byte{"a.policy.hcl": nil}, nil
	}
	if files, err := c.PolicyText(t.Context(), worldDigest); !errors.Is(err, record.ErrReject) || files != nil {
		t.Errorf("another text: %v, %v", files, err)
	}
}
