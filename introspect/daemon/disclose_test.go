package daemon

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// logOf makes a VM log with a few entries.
func (v *served) logOf(uuid string) *chain.Log {
	v.t.Helper()
	l, err := v.store.CreateLog(v.t.Context(), proof.VMOrigin("test.host", uuid, 1), &record.Genesis{Cause: "define", DomainUuid: uuid})
	if err != nil {
		v.t.Fatal(err)
	}
	b := chain.Batch{Log: l}
	for range 3 {
		e, err := v.store.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "changed " + uuid})
		if err != nil {
			v.t.Fatal(err)
		}
		b.Entries = append(b.Entries, e)
	}
	if _, err := v.store.Append(v.t.Context(), b); err != nil {
		v.t.Fatal(err)
	}
	return l
}

// disclosures are those of the host log from an entry on.
func (v *served) disclosures(from uint64) (all []*record.Disclosed) {
	v.t.Helper()
	for i := from; i < v.store.HostLog().Size(); i++ {
		item, err := v.store.HostLog().Item(i)
		if err != nil {
			v.t.Fatal(err)
		}
		if item.Leaf.Header.Class != record.ClassAccessDisclosed {
			continue
		}
		m, err := item.Decode()
		if err != nil {
			v.t.Fatal(err)
		}
		all = append(all, m.(*record.Disclosed))
	}
	return all
}

// remoteClient is a client of the TLS listener.
func (v *served) remoteClient(token string) *client.Client {
	v.t.Helper()
	c, err := client.Dial(client.Remote{URL: "https://" + v.remote, Token: token, TLS: &tls.Config{RootCAs: v.roots}})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(c.Close)
	return c
}

// TestReadersAreSealed: a tenant reads its log over the network by every route
// that gives payloads. Each time the host log has it before the answer is here,
// and the people of the host find it.
func TestReadersAreSealed(t *testing.T) {
	const own, foreign = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
	v := serve(t, "requests_per_second = 1000")
	l, other := v.logOf(own), v.logOf(foreign)
	if err := v.index.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	acme := v.remoteClient(v.token("acme", access.Tenant, own))
	read := map[string]func() error{
		"entry": func() error {
			e, err := acme.Entry(t.Context(), client.LogID(l.Origin()), 2, true)
			if err == nil && len(e.Payload) == 0 {
				t.Error("an entry comes without its payload")
			}
			return err
		},
		"query": func() error {
			for e, err := range acme.Query(t.Context(), client.Query{Domain: own}, nil) {
				if err != nil || e.Log != l.Origin() {
					t.Errorf("found is %+v: %v", e, err)
				}
			}
			return nil
		},
		"stream": func() error {
			for e, err := range acme.Stream(t.Context(), client.StreamQuery{}) {
				if err != nil || e.Log != l.Origin() {
					t.Errorf("streamed is %+v: %v", e, err)
				}
			}
			return nil
		},
		"export": func() error {
			return acme.Export(t.Context(), client.ExportQuery{Domain: own, To: client.AllEntries}, &bytes.Buffer{})
		},
	}
	for name, f := range read {
		before := v.store.HostLog().Size()
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all := v.disclosures(before)
		if len(all) == 0 {
			t.Errorf("%s: nothing is sealed", name)
		}
		for _, d := range all {
			if name == "stream" && d.Last == access.Open && d.Origin == "" {
				d.Origin = l.Origin() // what it sees, from now on; what it was given follows
			}
			if d.Name != "acme" || d.Role != "tenant" || !strings.HasPrefix(d.How, "token ") || d.Address != "127.0.0.1" || d.Origin != l.Origin() || !strings.Contains(d.What, "/v1/") {
				t.Errorf("%s: sealed is %+v", name, d)
			}
		}
	}

	// What is not the tenant's is not there, and costs no disclosure.
	before := v.store.HostLog().Size()
	status, there := v.get("/v1/logs/"+client.LogID(other.Origin())+"/entries/2", v.token("acme2", access.Tenant, own))
	gone, nowhere := v.get("/v1/logs/"+client.LogID(strings.Replace(other.Origin(), "9999", "8888", 1))+"/entries/2", v.token("acme3", access.Tenant, own))
	if status != http.StatusNotFound || gone != status || strings.Replace(there, "9999", "8888", 1) != nowhere {
		t.Errorf("a foreign log: %d %s, one that is not there: %d %s", status, there, gone, nowhere)
	}
	if all := v.disclosures(before); len(all) != 0 {
		t.Errorf("sealed for nothing: %+v", all)
	}

	// The people of the host see all of it, and reading that is no disclosure.
	if err := v.index.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	host := client.New(v.cfg.API.Socket)
	defer host.Close()
	before = v.store.HostLog().Size()
	n := 0
	for e, err := range host.Query(t.Context(), client.Query{Classes: []string{"access.disclosed"}}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if leaf, err := record.ParseLeaf(e.Leaf); err != nil || leaf.Header.Class != record.ClassAccessDisclosed || len(e.Payload) == 0 {
			t.Errorf("found is %+v: %v", e, err)
		}
		n++
	}
	if want := len(v.disclosures(0)); n != want || n < len(read) {
		t.Errorf("%d disclosures are found of %d", n, want)
	}
	if all := v.disclosures(before); len(all) != 0 {
		t.Errorf("reading disclosures is one: %+v", all)
	}
	// And those of the socket are sealed as well.
	for _, err := range host.Query(t.Context(), client.Query{Log: l.Origin()}, nil) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if all := v.disclosures(before); len(all) != 1 || all[0].Role != "operator" || !strings.HasPrefix(all[0].How, "uid ") || all[0].Address != "" || all[0].Count != 4 {
		t.Errorf("for the host's own reader is sealed %+v", all)
	}

	// A ledger that takes nothing gives nothing.
	v.halt()
	for _, path := range []string{"/v1/logs/" + client.LogID(l.Origin()) + "/entries/2", "/v1/query?domain=" + own, "/v1/stream?follow=false"} {
		if status, body := v.get(path, v.token("late", access.Tenant, own)); status != http.StatusServiceUnavailable || strings.Contains(body, "payload\":") {
			t.Errorf("%s without its disclosure: %d %s", path, status, body)
		}
	}
	if _, refused := v.sealer.Sealed(); refused != 3 {
		t.Errorf("%d refusals are counted", refused)
	}
}

// TestBackupIsAskedForHere: the daemon writes it where it is told, as root.
func TestBackupIsAskedForHere(t *testing.T) {
	v := serve(t, "")
	dir := filepath.Join(t.TempDir(), "backup")
	if _, err := v.remoteClient(v.token("boss", access.Operator)).Backup(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), "on this host") {
		t.Errorf("over the network: %v", err)
	}
	host := client.New(v.cfg.API.Socket)
	defer host.Close()
	if _, err := host.Backup(t.Context(), dir, ""); err != nil {
		t.Errorf("over the socket: %v", err)
	}
}
