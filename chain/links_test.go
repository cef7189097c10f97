package chain

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestLinks makes logs of one domain whose genesis quotes the one before as it
// is, not at all, or wrongly, and wants each break named.
func TestLinks(t *testing.T) {
	const uuid = "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001"
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer func() { shutdown(t, s, stop) }()
	begin := func(incarnation uint64, g *record.Genesis) *Log {
		t.Helper()
		g.Cause = "define"
		l, err := s.CreateLog(t.Context(), proof.VMOrigin(s.cfg.HostID, uuid, incarnation), g)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := begin(1, &record.Genesis{})
	p, _ := first.Checkpoint()
	forged := append([]byte(nil), p.Note...)
	forged[len(forged)-10] ^= 1
	quote := func(origin string, note []byte) *record.Genesis {
		return &record.Genesis{PreviousOrigin: origin, PreviousCheckpoint: note}
	}
	whole := begin(2, quote(first.Origin(), p.Note))
	for i, c := range []struct {
		genesis *record.Genesis
		state   LinkState
		problem string
	}{
		{quote(first.Origin(), p.Note), LinkWhole, ""},
		{&record.Genesis{}, LinkBroken, "quotes nothing, and"},
		{quote(first.Origin(), nil), LinkBroken, "quotes no checkpoint"},
		{quote(first.Origin(), forged), LinkBroken, "does not verify"},
		{quote(first.Origin(), []byte("x")), LinkBroken, "does not verify"},
		{quote(whole.Origin(), p.Note), LinkBroken, "does not stand before it"},
		{quote("other.example/vm/"+uuid+"/1/1", p.Note), LinkElsewhere, "verify it there"},
		{quote("no origin", p.Note), LinkBroken, "no name"},
	} {
		l := begin(uint64(10+i), c.genesis)
		links, err := s.Links(t.Context(), []*Log{first, l})
		if err != nil {
			t.Fatal(err)
		}
		if links[0].State != LinkFirst || links[1].State != c.state || !strings.Contains(links[1].Problem, c.problem) || (c.problem == "") != (links[1].Problem == "") {
			t.Errorf("%d: %s %q, want %s with %q", i, links[1].State, links[1].Problem, c.state, c.problem)
		}
	}
	// Alone, a later incarnation lacks the one before.
	if links, err := s.Links(t.Context(), []*Log{whole}); err != nil || links[0].State != LinkBroken {
		t.Errorf("%+v: %v", links, err)
	}
	// A checkpoint that the key has signed, of another history: what a host does
	// that forks.
	signer, err := s.cfg.Keys.VMSigner(first.Origin())
	if err != nil {
		t.Fatal(err)
	}
	fork := proof.Checkpoint{Origin: first.Origin(), Size: 1, Root: record.Hash{1}}
	note, err := fork.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	ahead := proof.Checkpoint{Origin: first.Origin(), Size: 99, Root: record.Hash{1}}
	longer, err := ahead.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range [][]byte{note, longer} {
		l := begin(uint64(50+i), quote(first.Origin(), n))
		if links, err := s.Links(t.Context(), []*Log{first, l}); err != nil || links[1].State != LinkBroken || !strings.Contains(links[1].Problem, "is not of that log") {
			t.Errorf("a fork: %+v: %v", links, err)
		}
	}
	// What is sealed behind the quote is told, and is no break.
	e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "late"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), Batch{Log: first, Entries: []Entry{e}}); err != nil {
		t.Fatal(err)
	}
	if links, err := s.Links(t.Context(), []*Log{first, whole}); err != nil || links[1].State != LinkWhole || !strings.Contains(links[1].Problem, "1 entries") {
		t.Errorf("behind the quote: %+v: %v", links, err)
	}
}
