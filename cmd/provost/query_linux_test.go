package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// served is a ledger with its index behind a socket, as the daemon serves them.
// Its one domain, web, has been written to by a guest that means no good.
func served(t *testing.T) (socket string) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(index.Config{Store: s, Dir: filepath.Join(dir, "index")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for _, err := range []error{x.Close(), s.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	l, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", 1), &record.Genesis{Cause: "define"})
	if err != nil {
		t.Fatal(err)
	}
	sh := &record.Process{Pid: 7, Start: 70, Ppid: 1, ParentStart: 1, Executable: []byte("/bin/sh"), Credentials: &record.Credentials{Uid: 33}}
	b := chain.Batch{Log: l}
	for _, e := range []struct {
		class record.Class
		event *record.Event
	}{
		{record.ClassNetworkAccept, &record.Event{Process: sh, Network: &record.Network{Family: 4, Protocol: "tcp", Direction: "ingress",
			SourceIp: []byte{198, 51, 100, 9}, SourcePort: 5, DestinationIp: []byte{10, 0, 0, 5}, DestinationPort: 80}}},
		{record.ClassFileModify, &record.Event{Process: sh, File: &record.File{Path: []byte("/srv/www/index.html")}}},
		{record.ClassFileModify, &record.Event{Process: sh, File: &record.File{Path: []byte("/srv/www/\x1b[2J\u009b\u202e\"x")}}},
	} {
		d, err := s.Draft(record.OriginHost, e.class, e.event)
		if err != nil {
			t.Fatal(err)
		}
		b.Entries = append(b.Entries, d)
	}
	if _, err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	www := map[string][]byte{"a.policy.hcl": []byte(servedPolicy)}
	c := &api.Service{Store: s, Index: x, Discloser: &access.Sealer{Store: s}, Name: func(string) string { return "web" },
		Policies: func(context.Context) (*client.Policies, error) {
			return &client.Policies{Bundle: &client.Bundle{Digest: record.BundleDigest(www).String()}}, nil
		},
		PolicyText: func(_ context.Context, digest record.Hash) (map[string][]byte, error) {
			if digest != record.BundleDigest(www) {
				return nil, fmt.Errorf("policy bundle %s is not kept on this host: %w", digest, api.ErrNotFound)
			}
			return www, nil
		},
		Find: func(name string) (*chain.Log, error) {
			if name == "web" {
				return l, nil
			}
			return nil, fmt.Errorf("find domain %q: %w", name, api.ErrNotFound)
		}}
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	handler, who := c.Handler(), &access.Identity{Name: "root", Role: access.Operator, How: "uid 0"}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(access.With(r.Context(), who)))
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(listener) }) // ends with Close, which is its error
	t.Cleanup(func() {
		srv.Close()
		serving.Wait()
	})
	return socket
}

// TestQueryAndLineage asks a ledger as people do.
func TestQueryAndLineage(t *testing.T) {
	socket := served(t)
	for _, c := range []struct {
		args string
		code int
		want []string // in stdout or stderr
		not  string
	}{
		{"query --domain web --path /srv/www/", exitOK, []string{`"/srv/www/\x1b[2J\u009b\u202e\"x"`, "/srv/www/index.html"}, "\x1b"},
		{"query --path /srv/www/index.html --limit 1", exitOK, []string{"file.modify", "web"}, "x1b"},
		{"query --address 198.51.100.0/24 --since 1h", exitOK, []string{"network.accept"}, "file.modify"},
		{"query --user 33 --limit 1", exitOK, []string{"there may be more: --after "}, "index.html"},
		{"query --domain nobody", exitFailed, []string{"not found"}, "web"},
		{"query --class file.nope", exitFailed, []string{"no class matches"}, "web"},
		{"domain chain web", exitOK, []string{"INCARNATION", "first"}, "BROKEN"},
		{"domain chain nobody", exitFailed, []string{"not found"}, "web"},
		{"lineage --domain web /srv/www/index.html", exitOK, []string{"what led to /srv/www/index.html\n", "└─ /bin/sh(7) uid 33: file.modify", "198.51.100.9: network.accept"}, "x1b"},
		{"lineage --domain web 7 --direction forward", exitOK, []string{`"/srv/www/\x1b[2J\u009b\u202e\"x": file.modify`}, "\x1b"},
		{"lineage 198.51.100.9 --direction forward --format dot", exitOK, []string{"digraph lineage", "network.accept"}, "\x1b"},
		{"lineage --domain web /srv/www/index.html --format prov", exitOK, []string{"wasGeneratedBy", "urn:provost:lineage:"}, "\x1b"},
		{"lineage --domain web /nowhere", exitFailed, []string{"no entry tells of /nowhere"}, "web"},
	} {
		code, out, errs := call(t, append(strings.Fields(c.args), "--socket", socket)...)
		for _, w := range c.want {
			if code != c.code || !strings.Contains(out+errs, w) {
				t.Errorf("provost %s: exit %d, want %d with %q\n%s%s", c.args, code, c.code, w, out, errs)
			}
		}
		if strings.Contains(out, c.not) {
			t.Errorf("provost %s shows %q:\n%s", c.args, c.not, out)
		}
	}
	for _, args := range []string{"query --json --domain web", "tail web --output json", "lineage --json --domain web 7 --direction forward", "lineage --domain web 7 --direction forward --format prov",
		"lineage --domain web 7 --direction forward --format dot"} {
		code, out, errs := call(t, append(strings.Fields(args), "--socket", socket)...)
		if code != exitOK || strings.ContainsAny(out, "\x1b\u009b\u202e") || !strings.Contains(out, "/srv/www/") {
			t.Errorf("provost %s: exit %d, a terminal is told what to do by a guest: %q %s", args, code, out, errs)
		}
	}
	_, out, _ := call(t, "query", "--json", "--domain", "web", "--socket", socket)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("no JSON: %s", l)
		}
	}
	if len(lines) != 5 || !strings.Contains(lines[4], `"end":`) {
		t.Errorf("%d lines, the last %s", len(lines), lines[len(lines)-1])
	}
	if _, out, _ = call(t, "lineage", "--json", "--domain", "web", "7", "--socket", socket); !json.Valid([]byte(out)) || !strings.Contains(out, `"start":`) {
		t.Errorf("no JSON: %s", out)
	}
}
