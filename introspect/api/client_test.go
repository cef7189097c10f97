package api

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// TestClient calls every method of the client, and verifies what it says.
func TestClient(t *testing.T) {
	w := newWorld(t)
	c := onSocket(t, as(w.handler, operator))
	ctx := t.Context()
	l := w.web[0]
	domains, err := c.Domains(ctx)
	if err != nil || len(domains) != 2 || domains[0].UUID != webUUID {
		t.Errorf("domains %+v: %v", domains, err)
	}
	if d, err := c.Domain(ctx, "web"); err != nil || d.UUID != webUUID {
		t.Errorf("domain %+v: %v", d, err)
	}
	k, err := c.Chain(ctx, "web")
	if err != nil || !k.Whole || len(k.Links) != 2 || k.Links[0].State != "first" || k.Links[1].State != "whole" || k.Links[1].Previous.Log != l.Origin() || k.Links[1].Previous.Size != 20 {
		t.Errorf("chain %+v: %v", k, err)
	}
	logs, err := c.Logs(ctx)
	if err != nil || len(logs) != 4 {
		t.Errorf("logs %+v: %v", logs, err)
	}
	info, err := c.Log(ctx, l.Origin())
	if err != nil || info.Size != 20 || info.ID != client.LogID(l.Origin()) {
		t.Fatalf("log %+v: %v", info, err)
	}
	v, err := note.NewVerifier(info.VerifierKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := proof.OpenCheckpoint([]byte(info.Checkpoint), v)
	if err != nil || signed.Size != info.Published {
		t.Fatalf("%+v: %v", signed, err)
	}
	for index := range uint64(20) {
		e, err := c.Entry(ctx, info.ID, index, true)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Inclusion(ctx, info.ID, index, 0)
		if err != nil || p.Checkpoint != info.Checkpoint {
			t.Fatal(p, err)
		}
		if err := p.Check(e.Leaf, info.VerifierKey); err != nil {
			t.Error(err)
		}
		for name, change := range map[string]func(leaf []byte, p *client.InclusionProof, key *string){
			"another leaf":  func(leaf []byte, _ *client.InclusionProof, _ *string) { leaf[20] ^= 1 },
			"another place": func(_ []byte, p *client.InclusionProof, _ *string) { p.Index++ },
			"another path":  func(_ []byte, p *client.InclusionProof, _ *string) { p.Path[0] = p.Root },
			"another root":  func(_ []byte, p *client.InclusionProof, _ *string) { p.Root = p.Path[0] },
			"another key":   func(_ []byte, _ *client.InclusionProof, key *string) { *key = w.service.Store.HostLog().VerifierKey() },
			"a checkpoint that lies": func(_ []byte, p *client.InclusionProof, _ *string) {
				p.Checkpoint = strings.Replace(p.Checkpoint, "\n", "\n1", 1)
			},
			"no checkpoint": func(_ []byte, p *client.InclusionProof, _ *string) { p.Checkpoint = "" },
		} {
			leaf, bad, key := bytes.Clone(e.Leaf), *p, info.VerifierKey
			bad.Path = slices.Clone(p.Path)
			change(leaf, &bad, &key)
			if err := bad.Check(leaf, key); err == nil || !strings.Contains(err.Error(), "is not proved") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := proof.VerifyInclusion(record.LeafHash(e.Leaf), index, parse(t, p.Path), signed); err != nil {
			t.Error(err)
		}
	}
	for from := uint64(1); from <= 20; from++ {
		for to := from; to <= 20; to++ {
			p, err := c.Consistency(ctx, l.Origin(), from, to)
			if err != nil {
				t.Fatal(err)
			}
			older, newer := proof.Checkpoint{Origin: p.Log, Size: p.From, Root: root(t, p.FromRoot)}, proof.Checkpoint{Origin: p.Log, Size: p.To, Root: root(t, p.ToRoot)}
			if err := proof.VerifyConsistency(older, newer, parse(t, p.Path)); err != nil {
				t.Error(err)
			}
			if to == 20 && newer.Root != signed.Root {
				t.Errorf("the root at 20 is %s, signed is %s", newer.Root, signed.Root)
			}
		}
	}
	if b, err := c.Resource(ctx, info.ID, "tile/entries/000.p/20"); err != nil || len(b) != 20*(2+record.LeafSize) {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	if b, err := c.Resource(ctx, info.ID, "checkpoint"); err != nil || string(b) != info.Checkpoint {
		t.Errorf("%q: %v", b, err)
	}
	if _, err := c.Resource(ctx, info.ID, "tile/0/999"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a tile that is not there: %v", err)
	}
	for _, q := range []client.ExportQuery{{Domain: "web", To: client.AllEntries}, {Log: info.ID, Indexes: []uint64{3, 5}}, {Log: l.Origin(), From: 2, To: 4, Withhold: true}} {
		var zip bytes.Buffer
		if err := c.Export(ctx, q, &zip); err != nil {
			t.Fatal(err)
		}
		b, err := proof.ReadBundle(bytes.NewReader(zip.Bytes()), int64(zip.Len()), proof.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if q.Log != "" && b.VMOrigin != l.Origin() || len(q.Indexes) > 0 && b.Range != nil || len(q.Indexes) == 0 && b.Range == nil {
			t.Errorf("%+v is of %s, range %v", q, b.VMOrigin, b.Range)
		}
		for _, e := range b.Entries {
			if e.Role == proof.RoleChosen && (e.Opening == nil) != q.Withhold {
				t.Errorf("%+v: entry %d has its payload: %v", q, e.Index, e.Opening != nil)
			}
		}
	}
	if s, err := c.Status(ctx); err != nil || s.Host != "kvm1.example" {
		t.Errorf("status %+v: %v", s, err)
	}
	if e, err := c.Enroll(ctx, "web"); err != nil || e.UUID != webUUID {
		t.Errorf("enroll %+v: %v", e, err)
	}
	if a, err := c.StopAgent(ctx, "web", "replaced"); err != nil || a.Status != client.AnswerDone {
		t.Errorf("stop %+v: %v", a, err)
	}
	if r, err := c.Release(ctx, "web", client.ReleaseRequest{Action: "pause", Reason: "seen to"}); err != nil || len(r.Holds) != 1 || r.Holds[0].Verdict != 3 {
		t.Errorf("release %+v: %v", r, err)
	}
	if e, err := c.RotateKeys(ctx); err != nil || e.Number != 1 {
		t.Errorf("rotate %+v: %v", e, err)
	}
}

func parse(t *testing.T, path []string) (out []record.Hash) {
	t.Helper()
	for _, s := range path {
		out = append(out, root(t, s))
	}
	return out
}

func root(t *testing.T, s string) record.Hash {
	t.Helper()
	h, err := record.ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestDial refuses what would send a token in the clear or elsewhere.
func TestDial(t *testing.T) {
	for _, u := range []string{"", "kvm1:9478", "http://kvm1:9478", "https://", "https://user@kvm1", "https://kvm1/x", "https://kvm1?x=1", "unix:///run/x"} {
		if _, err := client.Dial(client.Remote{URL: u}); err == nil || !strings.Contains(err.Error(), "want https://") {
			t.Errorf("%q: %v", u, err)
		}
	}
	if _, err := client.Dial(client.Remote{URL: "https://kvm1", Token: "a\r\nb"}); err == nil {
		t.Error("a token with a line end is taken")
	}
	if _, err := client.Dial(client.Remote{URL: "https://kvm1.example:9478/", Token: "abc"}); err != nil {
		t.Error(err)
	}
}
