package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// TestWindow asks what a log tells of a time, and exports it: the bundle must
// prove the same, offline.
func TestWindow(t *testing.T) {
	w := newWorld(t)
	s, l := w.service.Store, w.web[1]
	seal := func(class record.Class, m record.Message) int64 {
		t.Helper()
		e, err := s.Draft(record.OriginHost, class, m)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}})
		if err != nil {
			t.Fatal(err)
		}
		return sealed.Mono
	}
	beat := func() int64 {
		return seal(record.ClassTick, &record.Event{Vm: &record.VM{State: "running", Detail: proof.AgentHeard}})
	}
	at := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
	begin := beat()
	touch(t, s, l, "/etc/motd")
	end := beat()
	seal(record.ClassAgentHeartbeatLost, &record.AgentState{Silent: 1e10})
	late := beat()
	c := onSocket(t, as(w.handler, tenant))

	calm, err := c.Window(t.Context(), l.Origin(), time.Unix(0, begin+1), time.Unix(0, end-1))
	if err != nil || !calm.Covered || calm.Within != 1 || calm.First != 4 || calm.Last != 6 || len(calm.Gaps) != 0 {
		t.Fatalf("%+v: %v", calm, err)
	}
	blind, err := c.Window(t.Context(), l.Origin(), time.Unix(0, end), time.Unix(0, late))
	if err != nil || blind.Covered || len(blind.Gaps) != 1 || !strings.Contains(blind.Gaps[0].Why, "not heard") || blind.Gaps[0].To != at(late) {
		t.Errorf("%+v: %v", blind, err)
	}
	ahead, err := c.Window(t.Context(), l.Origin(), time.Unix(0, end), time.Unix(0, late).Add(time.Hour))
	if err != nil || ahead.Covered || !strings.Contains(ahead.Gaps[len(ahead.Gaps)-1].Why, "nothing is sealed behind it yet") {
		t.Errorf("%+v: %v", ahead, err)
	}
	early, err := c.Window(t.Context(), l.Origin(), time.Unix(0, begin).Add(-time.Hour), time.Unix(0, end))
	if err != nil || early.Covered || !strings.Contains(early.Gaps[0].Why, "no entry stands before it") {
		t.Errorf("%+v: %v", early, err)
	}
	for covered, until := range map[bool]int64{true: end - 1, false: late} {
		var zip bytes.Buffer
		if err := c.Export(t.Context(), client.ExportQuery{Domain: "web", Since: time.Unix(0, begin+1), Until: time.Unix(0, until)}, &zip); err != nil {
			t.Fatal(err)
		}
		b, err := proof.ReadBundle(bytes.NewReader(zip.Bytes()), int64(zip.Len()), proof.Limits{})
		if err != nil || b.Range == nil || b.Range.First != 4 {
			t.Fatalf("%+v: %v", b.Range, err)
		}
		r, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{})
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join(r.Proved, "\n")
		if strings.Contains(said, "nothing else happened") != covered || strings.Contains(said, "Not covered from") == covered {
			t.Errorf("covered %v, the verifier says:\n%s", covered, said)
		}
	}
	for target, want := range map[string]string{
		"/v1/logs/" + client.LogID(l.Origin()) + "/window?since=now":                                "want a time",
		"/v1/logs/" + client.LogID(l.Origin()) + "/window?since=" + at(end) + "&until=" + at(begin): "before it begins",
		"/v1/logs/" + client.LogID(s.HostLog().Origin()) + "/window":                                "this is a host log",
	} {
		if got := w.ask(t, operator, "GET", target); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", target, got.Code, got.Body, want)
		}
	}
	var all client.Window
	if got := w.ask(t, tenant, "GET", "/v1/logs/"+client.LogID(l.Origin())+"/window"); json.Unmarshal(got.Body.Bytes(), &all) != nil || all.First != 0 || all.Last != l.Size()-1 || all.Within != l.Size() {
		t.Errorf("the whole log: %s", fmt.Sprint(got.Body))
	}
}
