package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// approver notes what was handed in.
type approver struct{ statement, signatures, submitter string }

func (a *approver) take(statement, signatures []byte, submitter string) (*client.Approval, error) {
	a.statement, a.signatures, a.submitter = string(statement), string(signatures), submitter
	if a.statement != "good" {
		return nil, fmt.Errorf("read approval: %w", record.ErrReject)
	}
	return a.Show("CHG-1")
}

func (a *approver) Approve(_ context.Context, statement, signatures []byte, submitter string) (*client.Approval, error) {
	return a.take(statement, signatures, submitter)
}

func (a *approver) Revoke(_ context.Context, statement, signatures []byte, submitter string) (*client.Approval, error) {
	return a.take(statement, signatures, submitter)
}

func (a *approver) List() ([]client.Approval, error) {
	one, err := a.Show("CHG-1")
	return []client.Approval{*one}, err
}

func (a *approver) Show(id string) (*client.Approval, error) {
	if id != "CHG-1" {
		return nil, fmt.Errorf("approval %q: %w", id, ErrNotFound)
	}
	uses := uint64(3)
	return &client.Approval{ID: id, Group: "security-team", State: "revoked", Policies: []string{"etc"}, NotBefore: "2026-11-23T20:00:00Z", NotAfter: "2026-11-23T22:00:00Z",
		MaxUses: 5, RequestedBy: "bob", Reason: "r", Signers: []string{"alice"}, Submitter: "root (operator, uid 0)", Taken: "2026-11-23T20:00:00Z",
		VMs:        []client.ApprovalVM{{UUID: webUUID, Name: "web", Log: "o", Uses: &uses}, {UUID: dbUUID}},
		Revoked:    &client.Revoked{At: "2026-11-23T21:00:00Z", Reason: "r", Signers: []string{"alice"}, Submitter: "s"},
		Submission: &client.Submission{Statement: "s", Signatures: []string{"-----BEGIN"}}}, nil
}

// TestSubmissions hands in approvals and revocations, as they should be and not, and
// holds the answers against the description.
func TestSubmissions(t *testing.T) {
	w := newWorld(t)
	a := &approver{}
	w.service.Approvals = a
	c := newChecker(t)
	table := w.service.routes()
	good, err := json.Marshal(client.Submission{Statement: "good", Signatures: []string{"one", "two"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/approvals", "/v1/revocations"} {
		for _, q := range []struct {
			body string
			code int
		}{
			{string(good), http.StatusOK}, {"", http.StatusBadRequest}, {"{", http.StatusBadRequest}, {string(good) + "{}", http.StatusBadRequest},
			{`{"statement":"good","signature":"x"}`, http.StatusBadRequest}, {`{"statement":"bad"}`, http.StatusBadRequest},
			{strings.Repeat(" ", maxSubmission+1), http.StatusBadRequest},
		} {
			r := httptest.NewRequestWithContext(access.With(t.Context(), operator), http.MethodPost, path, strings.NewReader(q.body))
			out := httptest.NewRecorder()
			w.handler.ServeHTTP(out, r)
			if out.Code != q.code {
				t.Errorf("%s with %.60q: %d, want %d: %s", path, q.body, out.Code, q.code, out.Body)
			}
			if err := c.check(find(t, table, http.MethodPost, path), out.Code, out.Header().Get("Content-Type"), out.Body.Bytes()); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	cl := onSocket(t, as(w.handler, operator))
	got, err := cl.Approve(t.Context(), client.Submission{Statement: "good", Signatures: []string{"one", "two"}})
	if err != nil || got.ID != "CHG-1" || a.signatures != "one\ntwo\n" || a.submitter != operator.String() {
		t.Errorf("%v %v %+v", got, err, a)
	}
	if _, err := cl.Revoke(t.Context(), client.Submission{Statement: "bad"}); err == nil || !strings.Contains(err.Error(), "read approval") {
		t.Errorf("a refusal: %v", err)
	}
	if all, err := cl.Approvals(t.Context()); err != nil || len(all) != 1 || *all[0].VMs[0].Uses != 3 {
		t.Errorf("%v %v", all, err)
	}
	if _, err := cl.Approval(t.Context(), "CHG-2"); err == nil {
		t.Error("an approval that is not there is shown")
	}
}
