package chain

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestForgedWithKeys forges bundles with the keys of the host itself, as whoever took it over
// would: nothing is signed wrongly, and each forgery must be named.
func TestForgedWithKeys(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	event, _, outcome := story(t, s, l)
	whole := exported(t, s, l, Selection{Range: &proof.Range{First: 1, Last: outcome}})
	read := func() *proof.Bundle {
		b, err := proof.ReadBundle(bytes.NewReader(whole), int64(len(whole)), proof.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sign := func(signer note.Signer, err error, old []byte, root byte) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c, err := proof.ParseCheckpoint(old)
		if err != nil {
			t.Fatal(err)
		}
		c.Root[0] ^= root
		msg, err := c.Sign(signer)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	hostSigner, herr := s.cfg.Keys.HostSigner(s.HostLog().Origin())
	vmSigner, verr := s.cfg.Keys.VMSigner(l.Origin())
	under := func(s *proof.Sealed, note []byte) {
		p, err := proof.ParseInclusion(s.Proof)
		if err != nil {
			t.Fatal(err)
		}
		p.Note = note
		s.Proof = p.Format()
	}
	at := func(b *proof.Bundle) *proof.Entry {
		for i := range b.Entries {
			if b.Entries[i].Index == event {
				return &b.Entries[i]
			}
		}
		t.Fatal("no event")
		return nil
	}
	// Two witnesses have cosigned, and the policy wants both.
	policy := "log " + s.HostLog().VerifierKey() + "\n"
	cosigned := read().HostCheckpoint
	cosign := func(msg []byte) []byte {
		for i := range 2 {
			w, err := torchwood.NewCosignatureSigner("witness.example/w"+string(rune('1'+i)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32)))
			if err != nil {
				t.Fatal(err)
			}
			n, err := note.Open(msg, note.VerifierList(s.HostLog().Verifier()))
			if err != nil {
				t.Fatal(err)
			}
			if msg, err = note.Sign(n, w); err != nil {
				t.Fatal(err)
			}
		}
		return msg
	}
	empty := func(signer note.Signer, err error, origin string) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		msg, err := proof.Checkpoint{Origin: origin, Root: record.Root(nil)}.Sign(signer)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	for i, name := range []string{"w1", "w2"} {
		w, err := torchwood.NewCosignatureSigner("witness.example/"+name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		policy += "witness " + name + " " + w.Verifier().String() + "\n"
		n, err := note.Open(cosigned, note.VerifierList(s.HostLog().Verifier()))
		if err != nil {
			t.Fatal(err)
		}
		if cosigned, err = note.Sign(n, w); err != nil {
			t.Fatal(err)
		}
	}
	p, err := proof.ParsePolicy([]byte(policy + "group both all w1 w2\nquorum both\n"))
	if err != nil {
		t.Fatal(err)
	}
	witnessed := func(b *proof.Bundle, msg []byte) {
		b.HostCheckpoint = msg
		under(&b.Quote, msg)
		under(&b.Certificate, msg)
	}
	for name, c := range map[string]struct {
		forge  func(b *proof.Bundle)
		policy *proof.Policy
		words  string // none: it must verify
	}{
		"nothing": {func(b *proof.Bundle) {}, nil, ""},
		"equivocate: another VM checkpoint than the one quoted": {func(b *proof.Bundle) {
			b.VMCheckpoint = sign(vmSigner, verr, b.VMCheckpoint, 1)
			for i := range b.Entries {
				under(&b.Entries[i].Sealed, b.VMCheckpoint)
			}
		}, nil, "(vm.checkpoint): it is not the checkpoint that the host log quotes"},
		"fork: another host checkpoint of the same size": {func(b *proof.Bundle) {
			witnessed(b, sign(hostSigner, herr, b.HostCheckpoint, 1))
		}, nil, "(vm-checkpoint.leaf): leaf and proof do not fit the checkpoint"},
		// Nothing is in an empty log, so nothing could be held against it: a host that
		// signed one, and had it cosigned when it began, could prove anything for ever.
		"an empty host checkpoint": {func(b *proof.Bundle) {
			witnessed(b, empty(hostSigner, herr, s.HostLog().Origin()))
		}, nil, "(host.checkpoint): it is of an empty log"},
		"an empty host checkpoint that is cosigned": {func(b *proof.Bundle) {
			witnessed(b, cosign(empty(hostSigner, herr, s.HostLog().Origin())))
		}, p, "(host.checkpoint): it is of an empty log"},
		"a history made up below an empty host checkpoint": {func(b *proof.Bundle) {
			witnessed(b, empty(hostSigner, herr, s.HostLog().Origin()))
			b.VMCheckpoint = empty(vmSigner, verr, l.Origin())
			b.Range = nil
			quote := &record.VMCheckpoint{Origin: l.Origin(), Note: b.VMCheckpoint}
			payload, err := record.Encode(quote)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := record.ParseLeaf(b.Quote.Leaf)
			if err != nil {
				t.Fatal(err)
			}
			salt := record.Salt{1}
			leaf.Commitment = record.Commit(&salt, payload)
			b.Quote.Leaf, b.Quote.Opening = leaf.AppendBinary(nil), append(salt[:], payload...)
			var entries []proof.Entry
			for _, e := range b.Entries {
				under(&e.Sealed, b.VMCheckpoint)
				if e.Index == outcome {
					if leaf, err = record.ParseLeaf(e.Leaf); err != nil {
						t.Fatal(err)
					}
					if payload, err = record.Encode(&record.Outcome{Result: "made up"}); err != nil {
						t.Fatal(err)
					}
					leaf.Commitment = record.Commit(&salt, payload)
					e.Leaf, e.Opening = leaf.AppendBinary(nil), append(salt[:], payload...)
				}
				if e.Index == 0 || e.Index == outcome {
					entries = append(entries, e)
				}
			}
			b.Entries = entries
		}, nil, "(vm.checkpoint): it is of an empty log"},
		"change a salt": {func(b *proof.Bundle) {
			at(b).Opening[0] ^= 1
		}, nil, "salt and payload are not what the leaf commits to"},
		"change a leaf": {func(b *proof.Bundle) {
			at(b).Leaf[30] ^= 1
		}, nil, "leaf and proof do not fit the checkpoint"},
		"change what the agent signed": {func(b *proof.Bundle) {
			at(b).Leaf[103] ^= 1
		}, nil, "not what the agent signed in its frame"},
		"witnesses":         {func(b *proof.Bundle) { witnessed(b, cosigned) }, p, ""},
		"cut all witnesses": {func(b *proof.Bundle) {}, p, `the quorum "both" is not reached: no cosignature of w1 (witness.example/w1+`},
		"cut a witness": {func(b *proof.Bundle) {
			witnessed(b, cosigned[:bytes.LastIndex(cosigned, []byte("— witness.example/w2"))])
		}, p, `the quorum "both" is not reached: no cosignature of w2 (witness.example/w2+`},
		"cosignatures of another checkpoint": {func(b *proof.Bundle) {
			lines := cosigned[bytes.Index(cosigned, []byte("— witness.example/w1")):]
			witnessed(b, append(sign(hostSigner, herr, b.HostCheckpoint, 1), lines...))
		}, p, "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			b := read()
			c.forge(b)
			r, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{Frame: testFrame, Policy: c.policy})
			if c.words == "" {
				if err != nil || !r.Valid {
					t.Fatal(err)
				}
				return
			}
			if err == nil || r.Valid || len(r.Proved) != 0 {
				t.Fatal("the forgery verifies")
			}
			for _, f := range r.Failures {
				if strings.Contains(f.String(), c.words) {
					return
				}
			}
			t.Errorf("not named; failures: %v", r.Failures)
		})
	}
}
