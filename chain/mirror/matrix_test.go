package mirror_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

func TestMirrorVerifies(t *testing.T) {
	h := newHost(t, newKeys(t))
	history(h)
	r, err := verify(t, h.mirrored(), h.HostLog().VerifierKey(), mirror.Options{})
	if err != nil {
		t.Fatal(err, r.Failures)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"VALID\n", "certifies 2 keys of VM logs", "3 VM logs with", "312 entries of guests are signed by enrolled agents in 4 frames", "The genesis of 1 logs quotes the log before it"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
	if r.Logs[0].Origin != h.HostLog().Origin() || r.Entries != r.Logs[0].Size+r.Logs[1].Size+r.Logs[2].Size+r.Logs[3].Size || len(r.Logs) != 4 || r.Checkpoint == "" {
		t.Errorf("%+v", r)
	}
}

// named wants a verification to have failed, and one of its failures to be of
// this kind, of this log and in these words.
func named(t *testing.T, r *mirror.Report, err error, kind mirror.Kind, log, words string) {
	t.Helper()
	var invalid *mirror.InvalidError
	if !errors.As(err, &invalid) || !errors.Is(err, record.ErrReject) || r == nil || r.Valid || len(r.Proved) != 0 || r.Checkpoint != "" {
		t.Fatalf("it verifies, or the report claims something: %v, %+v", err, r)
	}
	if !slices.ContainsFunc(r.Failures, func(f mirror.Failure) bool {
		return f.Kind == kind && f.Log == log && strings.Contains(f.String(), words)
	}) {
		t.Errorf("not named as %s of %s %q; failures: %v", kind, log, words, r.Failures)
	}
}

// TestTamperMatrix changes the mirror of an honest ledger. Each change must be
// named: what, in which log, at which entry.
func TestTamperMatrix(t *testing.T) {
	h := newHost(t, newKeys(t))
	web, again, db := history(h)
	hostLog, vkey := h.HostLog(), h.HostLog().VerifierKey()
	old := h.mirrored()
	h.append(web, h.draft(record.ClassVMChange, &record.Event{Reason: "the last"}))
	h.checkpoint(web)
	seen, _ := hostLog.Checkpoint()
	m := h.mirrored()
	if r, err := verify(t, m, vkey, mirror.Options{Seen: seen.Note}); err != nil {
		t.Fatal(err, r.Failures)
	}
	frameAt := indexOf(t, web, record.ClassAgentFrame)
	swap := func(a, b []byte) {
		x := bytes.Clone(a)
		copy(a, b)
		copy(b, x)
	}
	last := func(l *chain.Log) int { return int(l.Size()-1) % 256 }
	for name, c := range map[string]struct {
		tamper func(m files)
		kind   mirror.Kind
		log    *chain.Log
		words  string
	}{
		"truncate the tail of a VM log": {func(m files) {
			f := m.at(t, db, "tile/entries/002")
			f.Data = f.Data[:len(f.Data)-3*138]
		}, mirror.KindGap, db, fmt.Sprintf("entries %d to %d are missing: their bundle ends before them", db.Size()-3, db.Size()-1)},
		"truncate it with its checkpoint": {func(m files) {
			m.at(t, web, "checkpoint").Data = old.at(t, web, "checkpoint").Data
		}, mirror.KindSize, web, fmt.Sprintf("its checkpoint has %d entries, entry %d of the host log quotes it at %d: entries were cut off, or an old checkpoint is replayed", web.Size()-1, hostLog.Size()-1, web.Size())},
		"truncate the host log": {func(m files) {
			m.at(t, hostLog, "checkpoint").Data = old.at(t, hostLog, "checkpoint").Data
		}, mirror.KindSize, hostLog, fmt.Sprintf("one with %d was seen before: it was rolled back, or an old checkpoint is replayed", hostLog.Size())},
		"drop a VM log": {func(m files) {
			for k := range m {
				if strings.HasPrefix(k, "logs/"+again.Origin()+"/") {
					delete(m, k)
				}
			}
		}, mirror.KindLog, again, "it is missing: entry "},
		"drop the host log": {func(m files) {
			delete(m, "logs/"+hostLog.Origin()+"/checkpoint")
		}, mirror.KindLog, hostLog, "it is not there"},
		"drop a bundle": {func(m files) {
			delete(m, "logs/"+db.Origin()+"/tile/entries/001")
		}, mirror.KindGap, db, "entries 256 to 511 are missing: there is no logs/" + db.Origin() + "/tile/entries/001"},
		"drop payloads": {func(m files) {
			delete(m, "logs/"+db.Origin()+"/tile/openings/001")
		}, mirror.KindGap, db, "the payloads of entries 256 to 511 are missing"},
		"reorder": {func(m files) {
			b := m.at(t, db, "tile/entries/001").Data
			swap(leaf(b, 7), leaf(b, 8))
		}, mirror.KindEntry, db, "entry 263 of " + db.Origin() + ": the leaf says that it is entry 264: entries were put in another order, or are missing"},
		"reorder and renumber": {func(m files) {
			b := m.at(t, db, "tile/entries/001").Data
			swap(leaf(b, 7), leaf(b, 8))
			swap(leaf(b, 7)[8:16], leaf(b, 8)[8:16])
		}, mirror.KindEntry, db, "entry 264 of " + db.Origin() + ": it follows a leaf with hash"},
		"change a leaf": {func(m files) {
			leaf(m.at(t, db, "tile/entries/001").Data, 9)[30] ^= 1
		}, mirror.KindEntry, db, "entry 266 of " + db.Origin() + ": it follows a leaf with hash"},
		"change the last leaf": {func(m files) {
			leaf(m.at(t, db, "tile/entries/002").Data, last(db))[30] ^= 1
		}, mirror.KindEntry, db, "its signed checkpoint has root"},
		"swap payloads": {func(m files) {
			f := m.at(t, db, "tile/openings/001")
			all := openings(f.Data)
			all[3], all[4] = all[4], all[3]
			f.Data = join(all)
		}, mirror.KindEntry, db, "entry 259 of " + db.Origin() + ": salt and payload are not what the leaf commits to"},
		"change a salt": {func(m files) {
			f := m.at(t, db, "tile/openings/001")
			openings(f.Data)[5][0] ^= 1
		}, mirror.KindEntry, db, "entry 261 of " + db.Origin() + ": salt and payload are not what the leaf commits to"},
		"hide a frame's payload": {func(m files) {
			f := m.at(t, web, "tile/openings/000")
			all := openings(f.Data)
			all[frameAt] = nil
			f.Data = join(all)
		}, mirror.KindGap, web, fmt.Sprintf("entry %d of %s: the payload of this agent.frame was not given", frameAt, web.Origin())},
		"drop a frame": {func(m files) {
			f := m.at(t, web, "tile/entries/000")
			f.Data = slices.Delete(f.Data, frameAt*138, (frameAt+1)*138)
		}, mirror.KindGap, web, "entries 255 to 255 are missing: their bundle ends before them"},
		"replay the checkpoint of another log": {func(m files) {
			m.at(t, web, "checkpoint").Data = m.at(t, db, "checkpoint").Data
		}, mirror.KindSignature, web, "is not signed with the key in force"},
		"serve one log for another": {func(m files) {
			m.at(t, again, "tile/entries/000").Data = m.at(t, db, "tile/entries/000").Data[:again.Size()*138]
			m.at(t, again, "tile/openings/000").Data = join(openings(m.at(t, db, "tile/openings/000").Data)[:again.Size()])
		}, mirror.KindFork, again, "there are two histories of it"},
		"something behind the entries": {func(m files) {
			f := m.at(t, db, "tile/entries/002")
			f.Data = append(f.Data, 0)
		}, mirror.KindGap, db, "goes on with 1 bytes that are no entry"},
		"no note": {func(m files) {
			m.at(t, db, "checkpoint").Data = []byte("nothing\n")
		}, mirror.KindSignature, db, "its checkpoint: "},
		"huge": {func(m files) {
			m.at(t, db, "tile/entries/000").Data = make([]byte, 40<<10)
		}, mirror.KindGap, db, "larger than it can be"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := m.clone()
			c.tamper(bad)
			r, err := verify(t, bad, vkey, mirror.Options{Seen: seen.Note})
			named(t, r, err, c.kind, c.log.Origin(), c.words)
		})
	}
	// Another key than the log's, and one that is none.
	other, err := proof.VerifierKey(hostLog.Origin(), ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify(t, m, other, mirror.Options{})
	named(t, r, err, mirror.KindSignature, hostLog.Origin(), "its checkpoint: ")
	if _, err := verify(t, m, "nonsense", mirror.Options{}); !errors.Is(err, record.ErrReject) || errors.As(err, new(*mirror.InvalidError)) {
		t.Error(err)
	}
}

// indexOf returns the first entry of a class.
func indexOf(t *testing.T, l *chain.Log, c record.Class) int {
	t.Helper()
	for item, err := range l.Read(t.Context(), 0, l.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		if item.Leaf.Header.Class == c {
			return int(item.Index)
		}
	}
	t.Fatalf("no %s", c)
	return 0
}

// TestFlips changes single bytes of a mirror: none of them may be without
// consequence.
func TestFlips(t *testing.T) {
	h := newHost(t, newKeys(t))
	history(h)
	m, vkey := h.mirrored(), h.HostLog().VerifierKey()
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		bad := m.clone()
		name := names[rng.IntN(len(names))]
		at := rng.IntN(len(bad[name].Data))
		bad[name].Data[at] ^= byte(1 + rng.IntN(255))
		if r, err := verify(t, bad, vkey, mirror.Options{}); !errors.As(err, new(*mirror.InvalidError)) || r.Valid {
			t.Errorf("byte %d of %s changed: %v", at, name, err)
		}
	}
}

// TestWitnesses cuts witnesses away.
func TestWitnesses(t *testing.T) {
	h := newHost(t, newKeys(t))
	history(h)
	m, hostLog := h.mirrored(), h.HostLog()
	policy := "log " + hostLog.VerifierKey() + "\n"
	f := m.at(t, hostLog, "checkpoint")
	bare := bytes.Clone(f.Data)
	for i, name := range []string{"w1", "w2"} {
		w, err := torchwood.NewCosignatureSigner("witness.example/"+name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		f.Data = cosign(t, f.Data, w)
		policy += "witness " + name + " " + w.Verifier().String() + "\n"
	}
	p, err := proof.ParsePolicy([]byte(policy + "group both all w1 w2\nquorum both\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify(t, m, hostLog.VerifierKey(), mirror.Options{Policy: p})
	if err != nil || len(r.Cosigned) != 2 {
		t.Fatal(err, r)
	}
	whole := f.Data
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for name, c := range map[string]struct {
		note  []byte
		words string
	}{
		"one":  {bytes.Join(lines[:len(lines)-2], nil), `the quorum "both" is not reached: no cosignature of w2 (witness.example/w2+`},
		"both": {bare, `no cosignature of w1 (witness.example/w1+`},
		"bent": {bytes.Replace(whole, lines[len(lines)-2][len(lines[len(lines)-2])-20:], []byte("AAAAAAAAAAAAAAAAA==\n"), 1), "the cosignature of key witness.example/w2"},
	} {
		f.Data = c.note
		r, err := verify(t, m, hostLog.VerifierKey(), mirror.Options{Policy: p})
		t.Run(name, func(t *testing.T) { named(t, r, err, mirror.KindQuorum, hostLog.Origin(), c.words) })
	}
	f.Data = whole
	none, err := proof.ParsePolicy([]byte("log " + strings.Replace(hostLog.VerifierKey(), "kvm1", "kvm1", 1) + "\nquorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := verify(t, m, hostLog.VerifierKey(), mirror.Options{Policy: none}); err != nil || !strings.Contains(strings.Join(r.Proved, "\n"), "asks for no witness") {
		t.Error(err, r)
	}
}

// cosign adds a witness's line to a note.
func cosign(t *testing.T, msg []byte, w *torchwood.CosignatureSigner) []byte {
	t.Helper()
	text, _, _ := bytes.Cut(msg, []byte("\n\n"))
	sig, err := w.Sign(append(text, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	k, err := proof.NewWitnessKey("w", w.Verifier().String())
	if err != nil {
		t.Fatal(err)
	}
	h := w.KeyHash()
	raw := append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)
	c, err := k.Verify(msg, fmt.Appendf(nil, "— %s %s\n", w.Name(), base64(raw)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := proof.AddCosignatures(msg, c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
