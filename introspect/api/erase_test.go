package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// guestRecords seals n records of a guest with the text in their paths and
// returns where the first one stands.
func guestRecords(t *testing.T, s *chain.Store, l *chain.Log, text string, n int) uint64 {
	t.Helper()
	seed := record.Seed{1, byte(l.Size())}
	b := chain.Batch{Log: l}
	for i := range n {
		p, err := record.Encode(&record.Event{File: &record.File{Path: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		seq := l.Size() + uint64(i)
		salt := seed.Salt(seq)
		b.Entries = append(b.Entries, chain.Entry{
			Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1, Sequence: seq, LaneSequence: seq},
			Payload: p, Seed: seed, Commitment: record.Commit(&salt, p),
		})
	}
	sealed, err := s.Append(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.First
}

// TestErase erases one record, those of a time, and all; and refuses what does
// not say clearly which.
func TestErase(t *testing.T) {
	s, l := tileStore(t, 5)
	srv := httptest.NewServer(as(serviceOf(s, l).Handler(), operator))
	defer srv.Close()
	first := guestRecords(t, s, l, "/home/ann/letter", 4)
	post := func(v url.Values) (int, client.Erasure, string) {
		t.Helper()
		res, body := fetch(t, http.MethodPost, srv.URL+"/v1/erase?"+v.Encode())
		var e client.Erasure
		if res.StatusCode == http.StatusOK {
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
		}
		return res.StatusCode, e, body
	}
	one := url.Values{"domain": {"web"}, "record": {"5"}, "reason": {"asked by the tenant"}}
	for name, v := range map[string]url.Values{
		"no choice":         {"domain": {"web"}, "reason": {"r"}},
		"two choices":       {"domain": {"web"}, "record": {"5"}, "all": {"true"}, "reason": {"r"}},
		"no reason":         {"domain": {"web"}, "record": {"5"}},
		"behind the end":    {"domain": {"web"}, "record": {"500"}, "reason": {"r"}},
		"a host's entry":    {"domain": {"web"}, "record": {"2"}, "reason": {"r"}},
		"no time":           {"domain": {"web"}, "from": {"yesterday"}, "reason": {"r"}},
		"a time backwards":  {"domain": {"web"}, "from": {"2026-01-02T00:00:00Z"}, "to": {"2026-01-01T00:00:00Z"}, "reason": {"r"}},
		"a time without":    {"domain": {"web"}, "to": {"2001-01-01T00:00:00Z"}, "reason": {"r"}},
		"of the host's log": {"log": {s.HostLog().Origin()}, "all": {"true"}, "reason": {"r"}},
	} {
		if code, _, body := post(v); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if first != 5 {
		t.Fatalf("the records begin at %d", first)
	}
	code, e, body := post(one)
	if code != http.StatusOK || len(e.Logs) != 1 || e.Logs[0].Records != 1 || e.Logs[0].Log != l.Origin() {
		t.Fatalf("one record: %d %s", code, body)
	}
	item, err := l.Item(e.Logs[0].Entry)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := item.Decode(); err != nil || m.(*record.Erased).Reason != "asked by the tenant" || m.(*record.Erased).Authority == "" {
		t.Errorf("what was sealed of it: %v %v", m, err)
	}
	if code, _, body = post(one); code != http.StatusBadRequest || !strings.Contains(body, "erased before") {
		t.Errorf("the same again: %d %s", code, body)
	}
	if code, e, body = post(url.Values{"domain": {"web"}, "from": {"2001-01-01T00:00:00Z"}, "reason": {"r"}}); code != http.StatusOK || e.Logs[0].Records != 3 {
		t.Errorf("those of a time: %d %s", code, body)
	}
	guestRecords(t, s, l, "/home/ann/letter", 2)
	if code, e, body = post(url.Values{"log": {l.Origin()}, "all": {"true"}, "reason": {"r"}}); code != http.StatusOK || e.Logs[0].Records != 2 {
		t.Errorf("all of a log: %d %s", code, body)
	}
}
