package chain

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// testFrame reads the statements of testAgent. The real ones are the business
// of guestagent/wire, which this package stands below.
func testFrame(statement, signature, key []byte) (proof.Frame, error) {
	if !ed25519.Verify(key, statement, signature) {
		return proof.Frame{}, errors.New("signature does not match")
	}
	var f proof.Frame
	return f, json.Unmarshal(statement, &f)
}

// testAgent signs frames for one log.
type testAgent struct {
	t       testing.TB
	s       *Store
	l       *Log
	key     ed25519.PrivateKey
	session uint64
	epoch   [16]byte
	next    uint64
	frames  uint64
}

func newTestAgent(t testing.TB, s *Store, l *Log, session uint64) *testAgent {
	t.Helper()
	a := &testAgent{t: t, s: s, l: l, key: agentKey(session), session: session}
	e, err := s.Draft(record.OriginHost, record.ClassAgentEnrolled, &record.Enrolled{Key: a.public(), Session: session})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}})
	return a
}

func agentKey(session uint64) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(session)}, ed25519.SeedSize))
}

func (a *testAgent) public() ed25519.PublicKey { return a.key.Public().(ed25519.PublicKey) }

// frame seals n records with the statement over them and returns the index of
// the first.
func (a *testAgent) frame(n int) uint64 {
	a.t.Helper()
	entries := guestEntries(a.t, a.session, a.next, n)
	a.frames++
	f := proof.Frame{Epoch: a.epoch, Session: a.session, Number: a.frames, First: a.next, Count: uint32(n)}
	domain, err := hex.DecodeString(strings.ReplaceAll(a.l.Name().Domain, "-", ""))
	if err != nil {
		a.t.Fatal(err)
	}
	copy(f.Domain[:], domain)
	hashes := make([]record.Hash, n)
	for i := range entries {
		hashes[i] = record.RecordHash(entries[i].Header, entries[i].Commitment)
	}
	f.Root = record.Root(hashes)
	statement, err := json.Marshal(f)
	if err != nil {
		a.t.Fatal(err)
	}
	e, err := a.s.Draft(record.OriginHost, record.ClassAgentFrame, &record.Frame{Statement: statement, Signature: ed25519.Sign(a.key, statement), Count: uint32(n)})
	if err != nil {
		a.t.Fatal(err)
	}
	a.next += uint64(n)
	return mustAppend(a.t, a.s, Batch{Log: a.l, Entries: append(entries, e)}).First
}

// storyPolicies is the text of the bundle that decides in story.
var storyPolicies = map[string][]byte{
	"etc.policy.hcl": []byte("policy \"etc\" {}\n"), "lists/hosts.txt": []byte("192.0.2.1\n"),
}

// giveText gives the text of storyPolicies for an export.
func giveText(_ context.Context, digest record.Hash) (map[string][]byte, string, error) {
	if digest != record.BundleDigest(storyPolicies) {
		return nil, proof.LacksKept, nil
	}
	return maps.Clone(storyPolicies), "", nil
}

// story fills a log with two agents, a verdict and its outcome, and returns
// the indexes of an event, the verdict on it and the outcome.
func story(t testing.TB, s *Store, l *Log) (event, verdict, outcome uint64) {
	t.Helper()
	newTestAgent(t, s, l, 1).frame(5)
	a := newTestAgent(t, s, l, 2)
	a.frame(1)
	event = a.frame(7) + 3
	cause, err := l.LeafHash(event)
	if err != nil {
		t.Fatal(err)
	}
	digest := record.BundleDigest(storyPolicies)
	e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{Policy: "etc", Severity: "high", Mode: "enforce", BundleDigest: digest[:], CauseIndex: event, CauseHash: cause[:], CauseClass: "file.modify"})
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}})
	verdict = sealed.First
	if e, err = s.Draft(record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{VerdictIndex: verdict, VerdictHash: sealed.LastHash[:], Kind: "pause", Result: "done", StateBefore: "running", StateAfter: "paused"}); err != nil {
		t.Fatal(err)
	}
	outcome = mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}}).First
	a.frame(300)
	return event, verdict, outcome
}

func verifyZip(t testing.TB, archive []byte, key string) (*proof.Report, error) {
	t.Helper()
	b, err := proof.ReadBundle(bytes.NewReader(archive), int64(len(archive)), proof.Limits{})
	if err != nil {
		return nil, err
	}
	return proof.Verify(b, key, proof.Options{Frame: testFrame})
}

func exported(t testing.TB, s *Store, l *Log, sel Selection) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Export(context.Background(), s, l, sel, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestExport(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	event, verdict, outcome := story(t, s, l)
	key := s.HostLog().VerifierKey()
	all := &proof.Range{First: 0, Last: l.Size() - 1}
	for name, c := range map[string]struct {
		sel      Selection
		entries  int
		signed   int
		withheld int
	}{
		"one event":  {Selection{Indexes: []uint64{event}}, 4, 1, 0}, // genesis, enrolment, event, frame
		"outcome":    {Selection{Indexes: []uint64{outcome}}, 6, 1, 0},
		"verdict":    {Selection{Indexes: []uint64{verdict, verdict}}, 5, 1, 0},
		"everything": {Selection{Range: all}, int(l.Size()), 5 + 1 + 7 + 300, 0},
		"range":      {Selection{Range: &proof.Range{First: event - 1, Last: event}}, 5, 2, 0},
		"withheld":   {Selection{Indexes: []uint64{event}, Withhold: true}, 4, 1, 1},
		// But for the genesis, two enrolments and four frames.
		"everything withheld": {Selection{Range: all, Withhold: true}, int(l.Size()), 5 + 1 + 7 + 300, int(l.Size()) - 7},
		// The cause of a verdict is a guest's, and nothing needs its payload.
		"cause withheld": {Selection{Indexes: []uint64{verdict}, Withhold: true}, 5, 1, 2},
		"links withheld": {Selection{Indexes: []uint64{outcome}, Withhold: true}, 6, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			archive := exported(t, s, l, c.sel)
			r, err := verifyZip(t, archive, key)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Valid || len(r.Entries) != c.entries || r.Signed != c.signed || r.Withheld != c.withheld {
				t.Fatalf("report %+v, want %d entries, %d signed, %d withheld", r, c.entries, c.signed, c.withheld)
			}
			if again := exported(t, s, l, c.sel); !bytes.Equal(again, archive) {
				t.Fatal("the same selection gives other bytes")
			}
			var text strings.Builder
			if err := r.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "VALID\n") {
				t.Fatalf("%v %s", err, text.String())
			}
		})
	}
	for name, sel := range map[string]Selection{
		"nothing":      {},
		"beyond":       {Indexes: []uint64{l.Size()}},
		"range beyond": {Range: &proof.Range{First: 1, Last: l.Size()}},
	} {
		if err := Export(context.Background(), s, l, sel, &bytes.Buffer{}); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Export(context.Background(), s, s.HostLog(), Selection{Indexes: []uint64{0}}, &bytes.Buffer{}); !errors.Is(err, record.ErrReject) {
		t.Errorf("host log: %v", err)
	}
}

// TestTamperedBundle changes single bytes: whatever is changed, the bundle
// does not verify, and a change inside a member is reported under its name.
func TestTamperedBundle(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	_, _, outcome := story(t, s, l)
	key := s.HostLog().VerifierKey()
	archive := exported(t, s, l, Selection{Indexes: []uint64{outcome}})
	owner := memberOf(t, archive)
	step := 7
	if *long {
		step = 1
	} else {
		t.Logf("short run: every %dth byte is changed, in one way; -long changes each", step)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for at := rng.IntN(step); at < len(archive); at += step {
		bad := bytes.Clone(archive)
		bad[at] ^= byte(1 + rng.IntN(255))
		r, err := verifyZip(t, bad, key)
		if err == nil {
			t.Fatalf("byte %d (%s) changed, and the bundle verifies", at, owner(at))
		}
		name := owner(at)
		if name == "" {
			continue // headers and directory: reported, under whatever name is left
		}
		named := strings.Contains(err.Error(), name)
		if r != nil {
			for _, f := range r.Failures {
				named = named || f.File == name
			}
		}
		if !named {
			t.Fatalf("byte %d of %s changed, reported as: %v", at, name, err)
		}
	}
	if _, err := verifyZip(t, archive, strings.Replace(key, "kvm1", "kvm2", 1)); err == nil {
		t.Fatal("verifies with a key that is none")
	}
	other, err := proof.VerifierKey(s.HostLog().Origin(), s.cfg.Keys.VMPublic())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyZip(t, archive, other); err == nil {
		t.Fatal("verifies with another key")
	}
}

// memberOf returns which member the byte at an offset belongs to.
func memberOf(t *testing.T, archive []byte) func(int) string {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	return func(at int) string {
		for _, f := range z.File {
			start, err := f.DataOffset()
			if err != nil {
				t.Fatal(err)
			}
			if int64(at) >= start && int64(at) < start+int64(f.CompressedSize64) {
				return f.Name
			}
		}
		return ""
	}
}
