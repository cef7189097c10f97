package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
