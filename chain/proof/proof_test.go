package proof

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

func TestOrigins(t *testing.T) {
	const uuid = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"
	for s, want := range map[string]Origin{
		HostOrigin("kvm1.example"):        {HostID: "kvm1.example", Shard: 1},
		VMOrigin("kvm1.example", uuid, 7): {HostID: "kvm1.example", Domain: uuid, Incarnation: 7, Shard: 1},
		"h/log/4294967295":                {HostID: "h", Shard: 4294967295},
		"A_b-c.d/vm/" + uuid + "/1/2":     {HostID: "A_b-c.d", Domain: uuid, Incarnation: 1, Shard: 2},
	} {
		o, err := ParseOrigin(s)
		if err != nil || o != want || o.String() != s || o.IsHost() != (want.Domain == "") {
			t.Errorf("%s: %+v, %v", s, o, err)
		}
	}
	for _, s := range []string{
		"", "h", "h/log", "h/log/", "h/log/0", "h/log/01", "h/log/-1", "h/log/+1", "h/log/1/", "h/log/4294967296", "/log/1", "h h/log/1", "h+/log/1",
		"h/vm/" + uuid + "/1", "h/vm/" + uuid + "/0/1", "h/vm/" + uuid + "/1/0", "h/vm/" + strings.ToUpper(uuid) + "/1/1", "h/vm/x/1/1",
		"h/other/1", "h/vm/" + uuid + "/9223372036854775808/1", ".h/log/1", "h./log/1", strings.Repeat("h", 254) + "/log/1", strings.Repeat("h", 5000),
		"h/vm/6a2f41a3cc54c-4f54-9d3b-0a6b6a1f0001/1/1",
	} {
		if o, err := ParseOrigin(s); !errors.Is(err, record.ErrReject) || o != (Origin{}) {
			t.Errorf("%q: %+v, %v", s, o, err)
		}
	}
}

// key makes the key with the given number, and a signer and verifier of it.
func key(t testing.TB, origin string, n byte) (note.Signer, note.Verifier) {
	t.Helper()
	priv := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
	v, err := NewVerifier(origin, priv.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return testSigner{v, priv}, v
}

type testSigner struct {
	v note.Verifier
	k ed25519.PrivateKey
}

func (s testSigner) Name() string                    { return s.v.Name() }
func (s testSigner) KeyHash() uint32                 { return s.v.KeyHash() }
func (s testSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.k, msg), nil }

func TestCheckpoints(t *testing.T) {
	origin := HostOrigin("kvm1.example")
	signer, verifier := key(t, origin, 1)
	_, stranger := key(t, origin, 2)
	witness, _ := key(t, "witness.example/w1", 3)
	c := Checkpoint{Origin: origin, Size: 5, Root: record.Hash{1, 2}}
	msg, err := c.Sign(signer, witness)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(msg, verifier); err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := ParseCheckpoint(msg); err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	otherOrigin, err := Checkpoint{Origin: HostOrigin("kvm2.example"), Size: 5}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	extended, err := note.Sign(&note.Note{Text: c.Text() + "more\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	onlyWitness, err := c.Sign(witness)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]struct {
		msg []byte
		v   note.Verifier
	}{
		"another key":     {msg, stranger},
		"another origin":  {otherOrigin, verifier},
		"extension lines": {extended, verifier},
		"only a witness":  {onlyWitness, verifier},
		"changed size":    {bytes.Replace(msg, []byte("\n5\n"), []byte("\n6\n"), 1), verifier},
		"unsigned":        {[]byte(c.Text()), verifier},
		"empty":           {nil, verifier},
		"huge":            {append(bytes.Repeat([]byte("x\n"), maxNote), msg...), verifier},
	} {
		if got, err := OpenCheckpoint(m.msg, m.v); !errors.Is(err, record.ErrReject) || got != (Checkpoint{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// log is a small log with its nodes.
type log struct {
	leaves [][]byte
	nodes  []tlog.Hash
}

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.nodes[x]
	}
	return out, nil
}

func newLog(t testing.TB, n int) *log {
	t.Helper()
	l := &log{}
	for i := range n {
		leaf := (&record.Leaf{Origin: record.OriginHost, Index: uint64(i)}).AppendBinary(nil)
		h, err := tlog.StoredHashes(int64(i), leaf, l)
		if err != nil {
			t.Fatal(err)
		}
		l.leaves, l.nodes = append(l.leaves, leaf), append(l.nodes, h...)
	}
	return l
}

func (l *log) checkpoint(t testing.TB, origin string, n int64) Checkpoint {
	t.Helper()
	h, err := tlog.TreeHash(n, l)
	if err != nil {
		t.Fatal(err)
	}
	return Checkpoint{Origin: origin, Size: uint64(n), Root: record.Hash(h)}
}

func hashes(p []tlog.Hash) []record.Hash {
	out := make([]record.Hash, len(p))
	for i := range p {
		out[i] = record.Hash(p[i])
	}
	return out
}

func TestInclusionAndConsistency(t *testing.T) {
	origin := HostOrigin("kvm1.example")
	signer, verifier := key(t, origin, 1)
	const n = 37
	l := newLog(t, n)
	c := l.checkpoint(t, origin, n)
	msg, err := c.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(n) {
		path, err := tlog.ProveRecord(n, i, l)
		if err != nil {
			t.Fatal(err)
		}
		p := Inclusion{Index: uint64(i), Path: hashes(path), Note: msg}
		parsed, err := ParseInclusion(p.Format())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.Verify(l.leaves[i], verifier); err != nil || got != c {
			t.Fatalf("leaf %d: %+v, %v", i, got, err)
		}
		if _, err := parsed.Verify(l.leaves[(i+1)%n], verifier); !errors.Is(err, record.ErrReject) {
			t.Fatalf("leaf %d with the proof of %d: %v", (i+1)%n, i, err)
		}
		parsed.Index++
		if _, err := parsed.Verify(l.leaves[i], verifier); !errors.Is(err, record.ErrReject) {
			t.Fatalf("leaf %d at place %d: %v", i, i+1, err)
		}
		if !bytes.HasPrefix(Spicy(p.Format()), []byte("index ")) {
			t.Fatal("a spicy signature begins with its index")
		}
	}
	for older := int64(1); older <= n; older++ {
		path, err := tlog.ProveTree(n, older, l)
		if err != nil {
			t.Fatal(err)
		}
		o := l.checkpoint(t, origin, older)
		if err := VerifyConsistency(o, c, hashes(path)); err != nil {
			t.Fatalf("from %d: %v", older, err)
		}
		forged := o
		forged.Root[3] ^= 1
		if err := VerifyConsistency(forged, c, hashes(path)); !errors.Is(err, record.ErrReject) {
			t.Fatalf("from a forged %d: %v", older, err)
		}
		elsewhere := o
		elsewhere.Origin = HostOrigin("kvm2.example")
		if err := VerifyConsistency(elsewhere, c, hashes(path)); !errors.Is(err, record.ErrReject) {
			t.Fatalf("from another log: %v", err)
		}
	}
	if err := VerifyConsistency(c, l.checkpoint(t, origin, 5), nil); !errors.Is(err, record.ErrReject) {
		t.Fatalf("backwards: %v", err)
	}
}

func TestParseInclusionRefuses(t *testing.T) {
	good := string((&Inclusion{Index: 7, Path: []record.Hash{{1}, {2}}, Note: []byte("note\n\n")}).Format())
	if _, err := ParseInclusion([]byte(good)); err != nil {
		t.Fatal(err)
	}
	line := (tlog.Hash{1}).String() + "\n"
	for name, s := range map[string]string{
		"empty": "", "version": strings.Replace(good, "@v1", "@v2", 1), "no index": strings.Replace(good, "index ", "idx ", 1),
		"negative": strings.Replace(good, "index 7", "index -7", 1), "leading zero": strings.Replace(good, "index 7", "index 07", 1),
		"extra": strings.Replace(good, "index", "extra AA==\nindex", 1), "short hash": strings.Replace(good, line, "AAAA\n", 1),
		"two spellings": strings.Replace(good, line, strings.Replace(line, "AA=\n", "AB=\n", 1), 1),
		"no end":        proofMagic + "index 7\n" + line, "too high": proofMagic + "index 7\n" + strings.Repeat(line, 64) + "\nnote",
		"huge": good + strings.Repeat("x", maxProofBytes),
	} {
		if p, err := ParseInclusion([]byte(s)); !errors.Is(err, record.ErrReject) || p.Path != nil || p.Note != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
