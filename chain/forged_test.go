package chain

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

var rewrite = flag.Bool("rewrite", false, "write proof/testdata anew: only for a new version of the bundle format")

// TestForgedBundle forges bundles that are well-formed archives: what was done
// to them shows in the evidence only. Each forgery must be named.
func TestForgedBundle(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	event, verdict, outcome := story(t, s, l)
	older := exported(t, s, l, Selection{Indexes: []uint64{event}})
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "later")}})
	another := mustCreateLog(t, s, 2)
	story(t, s, another)
	key := s.HostLog().VerifierKey()
	if *rewrite {
		writeVector(t, exported(t, s, l, Selection{Indexes: []uint64{outcome}, Policies: giveText}), key)
	}
	read := func(archive []byte) *proof.Bundle {
		b, err := proof.ReadBundle(bytes.NewReader(archive), int64(len(archive)), proof.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := exported(t, s, l, Selection{Range: &proof.Range{First: 1, Last: outcome}, Policies: giveText})
	at := func(b *proof.Bundle, index uint64) *proof.Entry {
		return &b.Entries[slices.IndexFunc(b.Entries, func(e proof.Entry) bool { return e.Index == index })]
	}
	drop := func(b *proof.Bundle, index uint64) {
		b.Entries = slices.DeleteFunc(b.Entries, func(e proof.Entry) bool { return e.Index == index })
	}
	noKey, err := proof.VerifierKey(s.HostLog().Origin(), s.cfg.Keys.VMPublic())
	if err != nil {
		t.Fatal(err)
	}
	noOld, noNew := read(older), read(exported(t, s, another, Selection{Indexes: []uint64{event}}))
	for name, c := range map[string]struct {
		forge func(b *proof.Bundle)
		words string // of some failure
	}{
		"change a policy": {func(b *proof.Bundle) { b.Policies[0].Files["etc.policy.hcl"] = []byte("policy \"etd\" {}\n") }, "was changed: its digest is"},
		"drop a list":     {func(b *proof.Bundle) { delete(b.Policies[0].Files, "lists/hosts.txt") }, "was changed: its digest is"},
		"rename a policy": {func(b *proof.Bundle) {
			p := b.Policies[0].Files
			p["x.policy.hcl"] = p["etc.policy.hcl"]
			delete(p, "etc.policy.hcl")
		}, "was changed: its digest is"},
		"add other policies": {func(b *proof.Bundle) {
			p := map[string][]byte{"x.policy.hcl": {}}
			b.Policies = []proof.PolicyText{{Digest: record.BundleDigest(p), Files: p}}
		}, "no entry of the evidence names this policy bundle"},
		"policies that lack": {func(b *proof.Bundle) {
			b.Policies = []proof.PolicyText{{Digest: record.Hash{1}, Lacks: proof.LacksKept}}
		}, "no entry of the evidence names this policy bundle"},
		"drop an event":        {func(b *proof.Bundle) { drop(b, event) }, "missing"},
		"drop the tail":        {func(b *proof.Bundle) { drop(b, outcome) }, "missing"},
		"drop an unlinked one": {func(b *proof.Bundle) { drop(b, 2) }, "missing"},
		"narrow the range":     {func(b *proof.Bundle) { b.Range.Last = b.Range.First - 1 }, "is not in a log"},
		"drop the genesis":     {func(b *proof.Bundle) { drop(b, 0) }, "genesis"},
		"drop the enrolments": {func(b *proof.Bundle) {
			b.Entries = slices.DeleteFunc(b.Entries, func(e proof.Entry) bool {
				l, err := record.ParseLeaf(e.Leaf)
				return err == nil && l.Header.Class == record.ClassAgentEnrolled
			})
			b.Range = nil
		}, "enrolment"},
		"drop the frame":     {func(b *proof.Bundle) { drop(b, at(b, event).Frame.Index) }, "frame"},
		"no place in frame":  {func(b *proof.Bundle) { at(b, event).Frame = nil }, "without a place"},
		"another place":      {func(b *proof.Bundle) { at(b, event).Frame.Path = at(b, event-1).Frame.Path }, "not what the agent signed"},
		"place for the host": {func(b *proof.Bundle) { at(b, verdict).Frame = at(b, event).Frame }, "its origin is policy"},
		"swap payloads": {func(b *proof.Bundle) {
			x, y := at(b, event), at(b, event-1)
			x.Opening, y.Opening = y.Opening, x.Opening
		}, "commits to"},
		"swap entries": {func(b *proof.Bundle) {
			x, y := at(b, event), at(b, event-1)
			x.Sealed, y.Sealed = y.Sealed, x.Sealed
		}, "says that it is entry"},
		"empty payload":    {func(b *proof.Bundle) { at(b, verdict).Opening = []byte{} }, "want a salt"},
		"hide the frame":   {func(b *proof.Bundle) { at(b, at(b, event).Frame.Index).Opening = nil }, "cannot be read"},
		"proof of another": {func(b *proof.Bundle) { at(b, event).Proof = at(b, verdict).Proof }, "for entry"},
		"replay checkpoints": {func(b *proof.Bundle) {
			b.HostCheckpoint, b.VMCheckpoint, b.Quote = noOld.HostCheckpoint, noOld.VMCheckpoint, noOld.Quote
		}, "another checkpoint"},
		"VM checkpoint alone": {func(b *proof.Bundle) { b.VMCheckpoint = noOld.VMCheckpoint }, "not the checkpoint that the host log quotes"},
		"checkpoint of another log": {func(b *proof.Bundle) {
			b.VMCheckpoint, b.Quote, b.HostCheckpoint = noNew.VMCheckpoint, noNew.Quote, noNew.HostCheckpoint
		}, "not of"},
		"another domain's origin": {func(b *proof.Bundle) { b.VMOrigin = noNew.VMOrigin }, "it quotes a checkpoint of"},
		"another host":            {func(b *proof.Bundle) { b.VMOrigin = strings.Replace(b.VMOrigin, "kvm1", "kvm2", 1) }, "another host"},
		"no origin":               {func(b *proof.Bundle) { b.VMOrigin = "x" }, "not the origin of a VM log"},
		"certificate of a quote":  {func(b *proof.Bundle) { b.Certificate = b.Quote }, "want log.key_certificate"},
		"quote of a certificate":  {func(b *proof.Bundle) { b.Quote = b.Certificate }, "want log.vm_checkpoint"},
		"other key file":          {func(b *proof.Bundle) { b.VMKey = b.HostKey }, "not the key that the host log certifies"},
		"other host key file":     {func(b *proof.Bundle) { b.HostKey = noKey }, "(host.vkey): it is not the key given"},
		"host signs for VM":       {func(b *proof.Bundle) { b.VMCheckpoint = b.HostCheckpoint }, "not the checkpoint"},
		"no entries":              {func(b *proof.Bundle) { b.Entries, b.Range = nil, nil }, "no entries"},
		"unsigned checkpoint": {func(b *proof.Bundle) {
			b.HostCheckpoint = b.HostCheckpoint[:bytes.Index(b.HostCheckpoint, []byte("\n\n"))+2]
		}, "checkpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			b := read(whole)
			c.forge(b)
			var forged bytes.Buffer
			if err := proof.WriteBundle(&forged, b); err != nil {
				t.Fatal(err)
			}
			r, err := verifyZip(t, forged.Bytes(), key)
			if err == nil {
				t.Fatal("the forgery verifies")
			}
			if r == nil || r.Valid || len(r.Proved) != 0 {
				t.Fatalf("report %+v for %v", r, err)
			}
			for _, f := range r.Failures {
				if strings.Contains(f.String(), c.words) {
					return
				}
			}
			t.Errorf("not named; failures: %v", r.Failures)
		})
	}
	if r, err := verifyZip(t, whole, key); err != nil || !r.Valid {
		t.Fatalf("what was forged does not verify unforged: %v", err)
	}
	if _, err := proof.Verify(read(whole), key, proof.Options{}); err == nil {
		t.Fatal("verifies without looking at the agent's signatures")
	}
}

// writeVector keeps a bundle for the tests of package proof.
func writeVector(t *testing.T, archive []byte, key string) {
	t.Helper()
	for name, data := range map[string][]byte{"evidence.zip": archive, "host.vkey": []byte(key + "\n")} {
		if err := os.WriteFile(filepath.Join("proof", "testdata", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
