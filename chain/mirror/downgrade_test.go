package mirror_test

import (
	"crypto/ed25519"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// told is a liar's log with one VM log and its mirror.
func told(t *testing.T, lie func(l *liar)) (files, string) {
	t.Helper()
	l := newLiar(t)
	lie(l)
	l.log.sign()
	vkey, err := proof.VerifierKey(proof.HostOrigin(hostID), l.keys.HostPublic())
	l.must(err)
	return l.published(everything), vkey
}

// without takes what begins with a prefix out of a mirror.
func (m files) without(prefix string) files {
	c := m.clone()
	for name := range c {
		if strings.HasPrefix(name, prefix) {
			delete(c, name)
		}
	}
	return c
}

// TestDowngrades serves less than there is, so that less is looked at: a mirror
// must not be able to choose that.
func TestDowngrades(t *testing.T) {
	host, one := proof.HostOrigin(hostID), proof.VMOrigin(hostID, domain(1), 1)
	m, vkey := told(t, func(l *liar) { l.certify().vm(1, 1, nil).change("a").sign().quote() })
	moved := files{}
	for name, f := range m {
		if rest, ok := strings.CutPrefix(name, "logs/"+host+"/"); ok {
			moved[rest] = f
		}
	}
	blind := m.without("logs/" + host + "/tile/openings/")

	t.Run("the host log by itself", func(t *testing.T) {
		r, err := verify(t, moved, vkey, mirror.Options{})
		named(t, r, err, mirror.KindLog, host, "it quotes 1 VM logs, and this is the place of one log")
		r, err = verify(t, moved, vkey, mirror.Options{OneLog: true})
		if err != nil || !strings.Contains(strings.Join(r.Unclaimed, "\n"), "Anything of the 1 VM logs that it quotes") {
			t.Errorf("asked for: %v %+v", err, r)
		}
		r, err = verify(t, moved, vkey, mirror.Options{OneLog: true, Logs: []string{one}})
		named(t, r, err, mirror.KindLog, one, "it was asked for, and this is the place of one log")
	})
	t.Run("a host log without payloads", func(t *testing.T) {
		r, err := verify(t, blind, vkey, mirror.Options{WithoutPayloads: true})
		named(t, r, err, mirror.KindGap, host, "which say what VM logs there are")
		for name := range moved {
			if strings.HasPrefix(name, "tile/openings/") {
				delete(moved, name)
			}
		}
		r, err = verify(t, moved, vkey, mirror.Options{WithoutPayloads: true})
		named(t, r, err, mirror.KindLog, host, "this is the place of one log")
		r, err = verify(t, moved, vkey, mirror.Options{WithoutPayloads: true, OneLog: true})
		if err != nil || !strings.Contains(strings.Join(r.Unclaimed, "\n"), "Anything of payloads") {
			t.Errorf("asked for: %v %+v", err, r)
		}
	})
}

// TestBarePruning takes entries out of a mirror without payloads that its entry of
// pruning cannot have meant.
func TestBarePruning(t *testing.T) {
	const unit = 65536
	one := proof.VMOrigin(hostID, domain(1), 1)
	m, vkey := told(t, func(l *liar) {
		b := l.certify().vm(1, 1, nil)
		for len(b.leaves) < unit+9 {
			b.change("a")
		}
		b.add(record.ClassPruned, b.prunes(unit))
		for len(b.leaves) < 2*unit+9 {
			b.change("b")
		}
		b.sign().quote()
	})
	m = m.without("logs/" + one + "/tile/openings/")
	for n := 1; n < 256; n++ { // the genesis stays
		delete(m, "logs/"+one+"/"+path("entries", uint64(n), 256))
	}
	if r, err := verify(t, m, vkey, mirror.Options{WithoutPayloads: true}); err != nil {
		t.Fatal(err, r.Failures)
	}
	for n := 300; n < 400; n++ {
		delete(m, "logs/"+one+"/"+path("entries", uint64(n), 256))
	}
	r, err := verify(t, m, vkey, mirror.Options{WithoutPayloads: true})
	named(t, r, err, mirror.KindGap, one, "no entry of it says that they were pruned")
}

// TestEmptyQuotes has a host quote a checkpoint of no entries, so that nothing
// behind it would be compared.
func TestEmptyQuotes(t *testing.T) {
	host, one, two := proof.HostOrigin(hostID), proof.VMOrigin(hostID, domain(1), 1), proof.VMOrigin(hostID, domain(1), 2)
	m, vkey := told(t, func(l *liar) {
		b := l.certify().vm(1, 1, nil)
		empty := *b
		empty.leaves, empty.hashes, empty.openings = nil, nil, nil
		empty.sign().quote()
		b.fork().change("for the host log").sign().quote()
		b.change("for the tenant").sign()
	})
	r, err := verify(t, m, vkey, mirror.Options{})
	named(t, r, err, mirror.KindSize, host, "it quotes "+one+" at no entries")
	found := false
	for _, f := range r.Failures {
		found = found || f.Kind == mirror.KindFork && f.Log == one
	}
	if !found {
		t.Errorf("the fork behind it is not named: %v", r.Failures)
	}
	m, vkey = told(t, func(l *liar) {
		b := l.certify().vm(1, 1, nil)
		empty := *b
		empty.leaves, empty.hashes, empty.openings = nil, nil, nil
		empty.sign()
		b.change("a").sign().quote()
		l.vm(1, 2, func(g *record.Genesis) { g.PreviousOrigin, g.PreviousCheckpoint = b.origin, empty.note }).sign().quote()
	})
	r, err = verify(t, m, vkey, mirror.Options{})
	named(t, r, err, mirror.KindGap, two, "the genesis quotes "+one+" at no entries")
}

// TestEmptyLog has a host show the checkpoint that it had signed, and may have had
// cosigned, before its log began: nothing is in it, so nothing could be wrong.
func TestEmptyLog(t *testing.T) {
	host := proof.HostOrigin(hostID)
	var empty []byte
	m, vkey := told(t, func(l *liar) {
		b := *l.log
		b.leaves, b.hashes, b.openings = nil, nil, nil
		empty = b.sign().note
		l.certify().vm(1, 1, nil).change("a").sign().quote()
	})
	r, err := verify(t, m, vkey, mirror.Options{Seen: empty})
	named(t, r, err, mirror.KindSize, host, "the checkpoint seen before is of an empty log")
	m = m.without("logs/" + host + "/tile/")
	m["logs/"+host+"/checkpoint"].Data = empty
	for _, o := range []mirror.Options{{}, {OneLog: true}} {
		r, err := verify(t, m, vkey, o)
		named(t, r, err, mirror.KindSize, host, "its checkpoint is of an empty log")
	}
}

// TestManyKeys has a host enroll a key after the other and retire none, so that each
// frame would be tried with all of them.
func TestManyKeys(t *testing.T) {
	one := proof.VMOrigin(hostID, domain(1), 1)
	m, vkey := told(t, func(l *liar) {
		b := l.certify().vm(1, 1, nil)
		for session := range 200 {
			b.enroll(byte(session+1), nil)
		}
		b.frame(ed25519.NewKeyFromSeed(make([]byte, 32)), 201, 1, 0, nil) // of none of them
		b.sign().quote()
	})
	var tried atomic.Int32
	r, err := mirror.Verify(t.Context(), mirror.Files{FS: fstest.MapFS(m)}, vkey, mirror.Options{Frame: func(statement, signature, key []byte) (proof.Frame, error) {
		tried.Add(1)
		return frame(statement, signature, key)
	}})
	named(t, r, err, mirror.KindSignature, one, "no enrolled key verifies")
	if n := tried.Load(); n > 32 { // ahead, and in its turn
		t.Errorf("%d keys are tried on one frame", n)
	}
}

// TestReplayedFrames seals frames of an agent a second time, behind an entry which
// says that something is missing.
func TestReplayedFrames(t *testing.T) {
	one := proof.VMOrigin(hostID, domain(1), 1)
	for name, again := range map[string]func(b *book, k ed25519.PrivateKey){
		"the newest": func(b *book, k ed25519.PrivateKey) { b.frame(k, 1, 2, 2, nil) },
		"an older":   func(b *book, k ed25519.PrivateKey) { b.frame(k, 1, 1, 0, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			m, vkey := told(t, func(l *liar) {
				b := l.certify().vm(1, 1, nil)
				k := b.enroll(1, nil)
				b.frame(k, 1, 1, 0, nil)
				b.frame(k, 1, 2, 2, nil)
				b.add(record.ClassAgentSequenceGap, &record.AgentState{Reason: "frames are missing"})
				again(b, k)
				b.sign().quote()
			})
			r, err := verify(t, m, vkey, mirror.Options{})
			named(t, r, err, mirror.KindEntry, one, "of session 1 goes back")
		})
	}
}
