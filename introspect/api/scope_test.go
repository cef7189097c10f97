package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// TestForeignIsAbsent asks for what a tenant may not see and for what is not
// there: the answers must be the same but for the name that was asked for.
func TestForeignIsAbsent(t *testing.T) {
	w := newWorld(t)
	db, host := client.LogID(w.db.Origin()), client.LogID(w.service.Store.HostLog().Origin())
	const absentUUID = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0009"
	absent := strings.Replace(db, dbUUID, absentUUID, 1)
	for _, c := range []struct{ method, foreign, missing string }{
		{"GET", "/v1/domains/db", "/v1/domains/no"},
		{"GET", "/v1/domains/" + dbUUID, "/v1/domains/" + absentUUID},
		{"GET", "/v1/domains/db/chain", "/v1/domains/no/chain"},
		{"GET", "/v1/logs/" + db, "/v1/logs/" + absent},
		{"GET", "/v1/logs/" + host, "/v1/logs/" + absent},
		{"GET", "/v1/logs/" + db + "/entries/0", "/v1/logs/" + absent + "/entries/0"},
		{"GET", "/v1/logs/" + db + "/entries/99999", "/v1/logs/" + absent + "/entries/99999"},
		{"GET", "/v1/logs/" + db + "/entries/x", "/v1/logs/" + absent + "/entries/x"},
		{"GET", "/v1/logs/" + db + "/proof/inclusion?index=0", "/v1/logs/" + absent + "/proof/inclusion?index=0"},
		{"GET", "/v1/logs/" + db + "/proof/consistency?from=1", "/v1/logs/" + absent + "/proof/consistency?from=1"},
		{"GET", "/v1/logs/" + db + "/window", "/v1/logs/" + absent + "/window"},
		{"GET", "/v1/query?domain=db", "/v1/query?domain=no"},
		{"GET", "/v1/query?log=" + db, "/v1/query?log=" + absent},
		{"GET", "/v1/query?log=" + w.db.Origin(), "/v1/query?log=" + client.OriginOf(absent)},
		{"GET", "/v1/lineage?domain=db&path=/etc/passwd", "/v1/lineage?domain=no&path=/etc/passwd"},
		{"GET", "/v1/stream?follow=false&domain=db", "/v1/stream?follow=false&domain=no"},
		{"GET", "/v1/stream?follow=false&log=" + db, "/v1/stream?follow=false&log=" + absent},
		{"POST", "/v1/export?domain=db", "/v1/export?domain=no"},
		{"POST", "/v1/export?log=" + db, "/v1/export?log=" + absent},
		{"GET", "/logs/" + w.db.Origin() + "/checkpoint", "/logs/" + client.OriginOf(absent) + "/checkpoint"},
		{"GET", "/logs/" + w.db.Origin() + "/tile/0/000.p/1", "/logs/" + client.OriginOf(absent) + "/tile/0/000.p/1"},
		{"GET", "/logs/" + w.db.Origin() + "/tile/0/000", "/logs/" + client.OriginOf(absent) + "/tile/0/000"},
		{"GET", "/logs/" + w.service.Store.HostLog().Origin() + "/checkpoint", "/logs/" + client.OriginOf(absent) + "/checkpoint"},
	} {
		foreign, missing := w.ask(t, tenant, c.method, c.foreign), w.ask(t, tenant, c.method, c.missing)
		plain := func(body string) string {
			return strings.NewReplacer(dbUUID, "X", absentUUID, "X", `\"db\"`, "X", `\"no\"`, "X", host, "L", db, "L", absent, "L",
				strings.Replace(db, dbUUID, "X", 1), "L", w.service.Store.HostLog().Origin(), "L").Replace(body)
		}
		if foreign.Code != http.StatusNotFound || missing.Code != foreign.Code || plain(foreign.Body.String()) != plain(missing.Body.String()) {
			t.Errorf("%s %s: %d %s\n%s: %d %s", c.method, c.foreign, foreign.Code, foreign.Body, c.missing, missing.Code, missing.Body)
		}
		for name := range foreign.Header() {
			if foreign.Header().Get(name) != missing.Header().Get(name) {
				t.Errorf("%s: header %s tells them apart", c.foreign, name)
			}
		}
		// The negative control: it is there for others.
		if code := w.ask(t, operator, c.method, c.foreign).Code; code == http.StatusNotFound && !strings.Contains(c.foreign, "99999") && !strings.HasSuffix(c.foreign, "tile/0/000") {
			t.Errorf("%s is not there for an operator either", c.foreign)
		}
	}
	if given := w.given.take(); len(given) == 0 {
		t.Error("what the operator read was not disclosed")
	}
}

// TestTenantSeesItsOwn asks every list and search as a tenant.
func TestTenantSeesItsOwn(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{"/v1/domains", "/v1/logs", "/logs/", "/v1/query", "/v1/query?path=/etc/passwd", "/v1/stream?follow=false",
		"/v1/query?class=log.*", "/v1/stream?follow=false&last=1000", "/v1/lineage?domain=web&path=/etc/passwd&direction=both"} {
		own := w.ask(t, tenant, "GET", target)
		if own.Code != http.StatusOK || !strings.Contains(own.Body.String(), webUUID) || strings.Contains(own.Body.String(), dbUUID) || strings.Contains(own.Body.String(), "kvm1.example/log/") {
			t.Errorf("%s as a tenant: %d %s", target, own.Code, own.Body)
		}
		if all := w.ask(t, auditor, "GET", target); !strings.Contains(target, "lineage") && !strings.Contains(all.Body.String(), dbUUID) {
			t.Errorf("%s as an auditor lacks db: %s", target, all.Body)
		}
		none := w.ask(t, stranger, "GET", target)
		if strings.Contains(none.Body.String(), webUUID) || strings.Contains(none.Body.String(), "leaf") {
			t.Errorf("%s as one who has no domain: %s", target, none.Body)
		}
	}
	if got := w.ask(t, tenant, "GET", "/v1/lineage?address=192.0.2.1"); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "name the domain") {
		t.Errorf("a tenant's lineage over all domains: %d %s", got.Code, got.Body)
	}
	for _, d := range w.given.take() {
		if d.Origin == "" && !strings.Contains(d.What, "/v1/stream") && !strings.Contains(d.What, "/v1/lineage") {
			t.Errorf("a disclosure without a log: %+v", d)
		}
	}
}

// TestTokensTellNothing compares what two hosts answer whose other domains
// differ in how much they did: a tenant must not read that.
func TestTokensTellNothing(t *testing.T) {
	next := func(busy int) (client.QueryEnd, string) {
		w := newWorld(t)
		for range busy {
			touch(t, w.service.Store, w.db, "/var/lib/db")
		}
		touch(t, w.service.Store, w.web[1], "/etc/shadow")
		var end client.QueryEnd
		body := w.ask(t, tenant, "GET", "/v1/query?limit=1").Body.String()
		lines := strings.Split(strings.TrimSpace(body), "\n")
		var l client.QueryLine
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &l); err != nil || l.End == nil {
			t.Fatalf("%s: %v", body, err)
		}
		end = *l.End
		return end, body
	}
	calm, _ := next(0)
	busy, _ := next(200)
	if calm.Next == "" || len(calm.Next) != len(busy.Next) || calm.Examined != busy.Examined || calm.Behind > 1 || busy.Behind > 1 {
		t.Errorf("a calm host: %+v, a busy one: %+v", calm, busy)
	}
	w := newWorld(t)
	for _, forged := range []string{"1-7", "AAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("A", 21), "%20", calm.Next + "A"} {
		if got := w.ask(t, tenant, "GET", "/v1/query?after="+forged); got.Code != http.StatusBadRequest {
			t.Errorf("after=%s: %d %s", forged, got.Code, got.Body)
		}
		if got := w.ask(t, tenant, "GET", "/v1/stream?follow=false&after="+forged); got.Code != http.StatusBadRequest {
			t.Errorf("stream after=%s: %d %s", forged, got.Code, got.Body)
		}
	}
	if got := w.ask(t, tenant, "GET", "/v1/stream?follow=false&after="+w.service.token(tokenQuery, 1, 0)); got.Code != http.StatusBadRequest {
		t.Errorf("a token of another kind: %d", got.Code)
	}
}

// TestNothingUndisclosed reads payloads by every route where no disclosure can
// be sealed: none may come.
func TestNothingUndisclosed(t *testing.T) {
	w := newWorld(t)
	id := client.LogID(w.web[1].Origin())
	targets := map[string]string{
		"/v1/logs/" + id + "/entries/1":               "GET",
		"/v1/query?path=/etc/passwd":                  "GET",
		"/v1/lineage?domain=web&path=/etc/passwd":     "GET",
		"/v1/stream?follow=false":                     "GET",
		"/v1/export?domain=web":                       "POST",
		TilesPath(w.web[1]) + "tile/openings/000.p/2": "GET",
		"/v1/query?payload=false":                     "GET",
		"/v1/query?class=file.*&payload=false":        "GET",
		"/v1/stream?follow=false&payload=false":       "GET",
		"/v1/logs/" + id + "/entries/1?payload=false": "GET",
	}
	for _, seal := range []bool{false, true} {
		w.given.mu.Lock()
		if w.given.err = errSealing; seal {
			w.given.err = nil
		}
		w.given.mu.Unlock()
		for target, method := range targets {
			w.given.take()
			got := w.ask(t, auditor, method, target)
			given := w.given.take()
			switch leaves := strings.Contains(target, "payload=false"); {
			case leaves && (got.Code != http.StatusOK || strings.Contains(got.Body.String(), "payload") || len(given) > 0):
				t.Errorf("%s, sealing %v: %d %s %+v", target, seal, got.Code, got.Body, given)
			case !leaves && !seal && (got.Code != http.StatusServiceUnavailable || strings.Contains(got.Body.String(), `"payload"`) || !strings.Contains(got.Body.String(), "disclosure")):
				t.Errorf("%s: %d %s", target, got.Code, got.Body)
			case !leaves && seal && (got.Code != http.StatusOK || len(given) == 0):
				t.Errorf("%s: %d, %d disclosures", target, got.Code, len(given))
			}
		}
	}
	w.service.Discloser = nil
	if got := w.ask(t, operator, "GET", "/v1/logs/"+id+"/entries/1"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("without a discloser: %d", got.Code)
	}
}

// TestDisclosuresAreExact reads some entries and wants them sealed by log,
// range and number, in the host log, before the answer.
func TestDisclosuresAreExact(t *testing.T) {
	w := newWorld(t)
	c := onSocket(t, as(w.handler, auditor))
	w.given.take()
	n := 0
	for e, err := range c.Query(t.Context(), client.Query{Path: "/etc/passwd"}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		leaf, _, err := e.Open()
		if err != nil || record.Commit((*record.Salt)(e.Salt), e.Payload) != leaf.Commitment {
			t.Errorf("entry %d does not open: %v", leaf.Index, err)
		}
		n++
	}
	got := openings(w.given.take())
	want := []string{w.web[1].Origin() + " 1-3 3", w.db.Origin() + " 1-3 3"}
	if n != 6 || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%d entries, disclosed %q, want %q", n, got, want)
	}
	host := w.service.Store.HostLog()
	item, err := host.Item(host.Size() - 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if d, ok := m.(*record.Disclosed); !ok || err != nil || d.Name != auditor.Name || d.Count != 3 || d.What != "GET /v1/query" {
		t.Errorf("the host log ends with %+v: %v", m, err)
	}
	// Reading disclosures does not make more of them.
	size := host.Size()
	for range 3 {
		if got := w.ask(t, auditor, "GET", "/v1/query?class=access.disclosed"); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "payload") {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
	}
	if host.Size() != size {
		t.Errorf("reading disclosures made the host log grow from %d to %d entries", size, host.Size())
	}
}

// TestRoles calls every route with each role.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	for _, rt := range w.service.routes() {
		target := strings.NewReplacer("{domain}", "web", "{log}", client.LogID(w.web[1].Origin()), "{index}", "1", "{path...}", "").Replace(rt.pattern)
		if rt.pattern == "/v1/stream" {
			target += "?follow=false"
		}
		for _, who := range []*access.Identity{nil, {Name: "x"}, tenant, auditor, operator} {
			got := w.ask(t, who, rt.method, target).Code
			switch {
			case !who.May(access.Tenant):
				if got != http.StatusUnauthorized {
					t.Errorf("%s %s as nobody: %d", rt.method, target, got)
				}
			case (got == http.StatusForbidden) == who.May(rt.least):
				t.Errorf("%s %s as %s: %d", rt.method, target, who.Role, got)
			}
		}
	}
}

// TestFiltersDisclose asks what stands in payloads without having them sent: the
// answer tells it all the same, one letter of a path after the other, and so does
// an answer that there is nothing.
func TestFiltersDisclose(t *testing.T) {
	w := newWorld(t)
	touch(t, w.service.Store, w.web[1], "/home/alice/diagnosis")
	for _, c := range []struct{ target, want string }{
		{"/v1/query?domain=web&path=/home/a*/*&payload=false", w.web[1].Origin() + " 4-4 1"},
		{"/v1/query?log=" + client.LogID(w.web[1].Origin()) + "&path=/home/b*/*&payload=false", w.web[1].Origin() + " 0-18446744073709551615 0"},
		{"/v1/query?path=/home/b*/*", " 0-18446744073709551615 0"},
		{"/v1/query?exe=/usr/bin/emacs&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?name=x&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?sha256=" + strings.Repeat("00", 32) + "&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?address=192.0.2.0/24&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?pid=4711&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?user=1000&payload=false", " 0-18446744073709551615 0"},
		{"/v1/query?user=alice&payload=false", " 0-18446744073709551615 0"},
		{"/v1/lineage?domain=web&path=/home/bob", " 0-18446744073709551615 0"},
	} {
		w.given.take()
		w.ask(t, auditor, "GET", c.target)
		if got := openings(w.given.take()); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: disclosed %q, want %q", c.target, got, c.want)
		}
		w.given.mu.Lock()
		w.given.err = errSealing
		w.given.mu.Unlock()
		if got := w.ask(t, auditor, "GET", c.target); got.Code != http.StatusServiceUnavailable {
			t.Errorf("%s where nothing can be sealed: %d %s", c.target, got.Code, got.Body)
		}
		w.given.mu.Lock()
		w.given.err = nil
		w.given.mu.Unlock()
	}
}

// TestExportDisclosesWhatComesAlong exports a verdict: the payload of its cause,
// which was not chosen, is given as well, and that of the genesis always.
func TestExportDisclosesWhatComesAlong(t *testing.T) {
	w := newWorld(t)
	l := w.web[1]
	cause, err := l.LeafHash(2)
	if err != nil {
		t.Fatal(err)
	}
	e, err := w.service.Store.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{Policy: "etc", Severity: "high", Mode: "enforce", CauseIndex: 2, CauseHash: cause[:], CauseClass: "file.modify"})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := w.service.Store.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string][]string{
		fmt.Sprintf("/v1/export?domain=web&index=%d", sealed.First):               {"0-2 2", fmt.Sprintf("%d-%d 1", sealed.First, sealed.First)},
		fmt.Sprintf("/v1/export?domain=web&index=%d&withhold=true", sealed.First): {"0-0 1"},
		"/v1/export?domain=web&from=1&to=2":                                       {"0-0 1", "1-2 2"},
		"/v1/export?domain=web&from=0&to=2":                                       {"0-2 3"},
	} {
		w.given.take()
		if got := w.ask(t, auditor, "POST", target); got.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", target, got.Code, got.Body)
		}
		got := openings(w.given.take())
		for i := range want {
			want[i] = l.Origin() + " " + want[i]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: disclosed %q, want %q", target, got, want)
		}
	}
}

// TestNamesAreNoUUIDs gives one domain the UUID of another for a name: who names
// the UUID must not be led to it, least of all who erases.
func TestNamesAreNoUUIDs(t *testing.T) {
	w := newWorld(t)
	find := w.service.Find
	w.service.Find = func(name string) (*chain.Log, error) {
		if name == webUUID {
			return w.db, nil
		}
		return find(name)
	}
	if got := w.ask(t, tenant, "GET", "/v1/domains/"+webUUID); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), webUUID) {
		t.Errorf("its own domain by its UUID: %d %s", got.Code, got.Body)
	}
	c := &call{s: w.service, id: operator}
	if uuid, _, err := c.domainLogs(strings.ToUpper(webUUID)); err != nil || uuid != webUUID {
		t.Errorf("an operator is led to %s: %v", uuid, err)
	}
}

// TestReasonsStayHere has the ledger refuse a disclosure: why is the host's affair.
func TestReasonsStayHere(t *testing.T) {
	w := newWorld(t)
	w.given.mu.Lock()
	w.given.err = errSealing
	w.given.mu.Unlock()
	for target, method := range map[string]string{
		"/v1/logs/" + client.LogID(w.web[1].Origin()) + "/entries/1": "GET",
		"/v1/query": "GET", "/v1/stream": "GET", "/v1/export?domain=web": "POST",
		TilesPath(w.web[1]) + "tile/openings/000.p/2": "GET",
	} {
		got := w.ask(t, tenant, method, target)
		if got.Code != http.StatusServiceUnavailable || strings.Contains(got.Body.String(), errSealing.Error()) {
			t.Errorf("%s as a tenant: %d %s", target, got.Code, got.Body)
		}
		if got := w.ask(t, operator, method, target); !strings.Contains(got.Body.String(), errSealing.Error()) {
			t.Errorf("%s as an operator: %d %s", target, got.Code, got.Body)
		}
	}
}
