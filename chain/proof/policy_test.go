package proof

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

// cosigners are witnesses with keys that depend on their names only.
func cosigners(t testing.TB, names ...string) map[string]*torchwood.CosignatureSigner {
	t.Helper()
	all := map[string]*torchwood.CosignatureSigner{}
	for _, n := range names {
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, n)
		s, err := torchwood.NewCosignatureSigner("w.example/"+n, ed25519.NewKeyFromSeed(seed))
		if err != nil {
			t.Fatal(err)
		}
		all[n] = s
	}
	return all
}

func logSigner(t testing.TB, origin string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

// TestPolicyQuorum decides many policies over every set of cosignatures, and
// wants torchwood to decide alike and the missing witnesses to be named.
func TestPolicyQuorum(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	all := cosigners(t, names...)
	log, vkey := logSigner(t, "kvm1.example/log/1")
	var head strings.Builder
	fmt.Fprintf(&head, "# who watches\n\nlog %s https://kvm1.example/\n", vkey)
	for _, n := range names {
		fmt.Fprintf(&head, "witness %s %s https://%s.example/\n", n, all[n].Verifier(), n)
	}
	c := Checkpoint{Origin: "kvm1.example/log/1", Size: 3, Root: record.Hash{1}}
	for _, tail := range []string{
		"quorum none", "quorum a", "group g all a b c d\nquorum g", "group g any a b\nquorum g", "group g 2 a b c\nquorum g",
		"group x all a b\ngroup y any c d\ngroup g 2 x y\nquorum g", "group x all a b\ngroup y any c d\ngroup g any x y\nquorum g", "group x 1 a\ngroup g all x b\nquorum g",
	} {
		text := []byte(head.String() + tail + "\n")
		ours, err := ParsePolicy(text)
		if err != nil {
			t.Fatalf("%s: %v", tail, err)
		}
		theirs, err := torchwood.ParsePolicy(text)
		if err != nil {
			t.Fatalf("%s: %v", tail, err)
		}
		if key, ok := ours.LogKey(c.Origin); !ok || key != vkey {
			t.Errorf("log key %q", key)
		}
		for set := range 1 << len(names) {
			signers := []note.Signer{log}
			for i, n := range names {
				if set&(1<<i) != 0 {
					signers = append(signers, all[n])
				}
			}
			msg, err := c.Sign(signers...)
			if err != nil {
				t.Fatal(err)
			}
			found, err := ours.Check(msg)
			if len(found) != len(signers)-1 {
				t.Errorf("%s: %d cosignatures found of %d", tail, len(found), len(signers)-1)
			}
			_, _, want := torchwood.VerifyCheckpoint(msg, theirs)
			if (err == nil) != (want == nil) {
				t.Errorf("%s with set %04b: we say %v, torchwood %v", tail, set, err, want)
			}
			var q *QuorumError
			if err != nil && (!errors.As(err, &q) || !errors.Is(err, record.ErrReject) || len(q.Missing) == 0) {
				t.Errorf("%s with set %04b: %v", tail, set, err)
			}
			for i, n := range names {
				if err != nil && set&(1<<i) != 0 && slices.ContainsFunc(q.Missing, func(m string) bool { return strings.HasPrefix(m, n+" ") }) {
					t.Errorf("%s with set %04b: %s is named as missing: %v", tail, set, n, err)
				}
			}
		}
	}
}

// TestPolicyTampered: a cosignature that does not verify is no missing one.
func TestPolicyTampered(t *testing.T) {
	all := cosigners(t, "a")
	log, _ := logSigner(t, "kvm1.example/log/1")
	p, err := ParsePolicy(fmt.Appendf(nil, "witness a %s\nquorum none\n", all["a"].Verifier()))
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: "kvm1.example/log/1", Size: 3, Root: record.Hash{1}}
	other := c
	other.Size = 4
	msg, err := other.Sign(all["a"])
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(msg), "\n\n")
	note, err := c.Sign(log)
	if err != nil {
		t.Fatal(err)
	}
	var q *QuorumError
	if _, err := p.Check(append(note, line...)); !errors.Is(err, record.ErrReject) || errors.As(err, &q) || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("a cosignature of another checkpoint: %v", err)
	}
}

func TestPolicyRefuses(t *testing.T) {
	all := cosigners(t, "a", "b")
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = 'a'
	same, err := torchwood.NewCosignatureSigner("w.example/other", ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	_, log := logSigner(t, "kvm1.example/log/1")
	a, b := "witness a "+all["a"].Verifier().String()+"\n", "witness b "+all["b"].Verifier().String()+"\n"
	for name, c := range map[string]struct{ text, words string }{
		"empty":             {"", "no quorum line"},
		"no quorum":         {a, "no quorum line"},
		"two quorums":       {"quorum none\nquorum none\n", "line 2: there is a second"},
		"unknown word":      {"wittness a b\nquorum none\n", `"wittness" is none of`},
		"forward":           {"group g all a\n" + a + "quorum g\n", "line 1"},
		"unknown quorum":    {a + "quorum b\n", "does not stand above"},
		"name twice":        {a + strings.Replace(b, "witness b", "witness a", 1) + "quorum a\n", `the name "a" is taken`},
		"key twice":         {a + strings.Replace(a, "witness a", "witness b", 1) + "quorum a\n", "have the same key"},
		"key, other name":   {a + "witness b " + same.Verifier().String() + "\nquorum a\n", "have the same key"},
		"log key":           {"witness a " + log + "\nquorum a\n", "type 0x04"},
		"witness as log":    {"log " + all["a"].Verifier().String() + "\nquorum none\n", "no verifier key of a log"},
		"log twice":         {"log " + log + "\nlog " + log + "\nquorum none\n", "twice"},
		"threshold zero":    {a + "group g 0 a\nquorum g\n", "number from 1 to 1"},
		"threshold high":    {a + "group g 2 a\nquorum g\n", "number from 1 to 1"},
		"threshold sign":    {a + "group g +1 a\nquorum g\n", "number from 1 to 1"},
		"member twice":      {a + "group g 2 a a\nquorum g\n", "twice"},
		"named none":        {strings.Replace(a, "witness a", "witness none", 1) + "quorum none\n", "taken"},
		"comment behind it": {a + "quorum a # all\n", "quorum NAME|none"},
		"long":              {strings.Repeat("#\n", MaxPolicy), "limit"},
	} {
		if p, err := ParsePolicy([]byte(c.text)); p != nil || !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An auditor of several hosts has one file; no log may come under two keys.
	_, second := logSigner(t, "kvm2.example/log/1")
	_, again := logSigner(t, "kvm1.example/log/1")
	p, err := ParsePolicy([]byte("log " + log + "\nlog " + second + "\nlog " + again + "\nquorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := p.LogKey("kvm2.example/log/1"); !ok || key != second {
		t.Errorf("key of the second host %q", key)
	}
	if key, ok := p.LogKey("kvm1.example/log/1"); ok {
		t.Errorf("two keys for one log, and %q is taken", key)
	}
}

// FuzzPolicy: an error wraps record.ErrReject and comes with nothing; what is
// accepted decides every set without a panic, and no witness at all only
// satisfies a policy that needs none.
func FuzzPolicy(f *testing.F) {
	all := cosigners(f, "a", "b")
	f.Add(fmt.Sprintf("witness a %s\nwitness b %s x\ngroup g 1 a b\nquorum g\n", all["a"].Verifier(), all["b"].Verifier()))
	f.Add("quorum none\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			if p != nil || !errors.Is(err, record.ErrReject) {
				t.Fatalf("%v %v", p, err)
			}
			return
		}
		if err := p.Reached(nil); (err == nil) != p.None() {
			t.Fatalf("without any witness: %v", err)
		}
		var ids []string
		for _, k := range p.Keys() {
			ids = append(ids, k.ID())
		}
		if err := p.Reached(ids); err != nil {
			t.Fatalf("with all witnesses: %v", err)
		}
	})
}
