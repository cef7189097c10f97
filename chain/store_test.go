package chain

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

func TestLifeOfAStore(t *testing.T) {
	ctx := context.Background()
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	if got := s.HostLog().Size(); got != 2 {
		t.Fatalf("a new host log has %d leaves, want genesis and key certificate", got)
	}
	l := mustCreateLog(t, s, 1)
	const frames, each = 40, 17
	for f := range frames {
		sealed := mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 7, uint64(f*each), each)})
		if sealed.First != uint64(1+f*each) || sealed.Count != each || sealed.LastHash != l.LastHash() {
			t.Fatalf("frame %d was sealed as %+v", f, sealed)
		}
	}
	if err := s.CheckpointNow(ctx, l); err != nil {
		t.Fatal(err)
	}
	p, ok := l.Checkpoint()
	if !ok || p.Size != 1+frames*each {
		t.Fatalf("checkpoint %+v, want size %d", p, 1+frames*each)
	}
	if _, err := proof.OpenCheckpoint(p.Note, l.Verifier()); err != nil {
		t.Fatal(err)
	}
	// The host log quotes it, and its own checkpoint covers the quote.
	quote, err := s.HostLog().Item(2)
	if err != nil {
		t.Fatal(err)
	}
	m, err := quote.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if q, ok := m.(*record.VMCheckpoint); !ok || q.Origin != l.Origin() || q.Size != p.Size || string(q.Note) != string(p.Note) {
		t.Fatalf("host log entry 2 is %v", m)
	}
	if hp, _ := s.HostLog().Checkpoint(); hp.Size != 3 {
		t.Fatalf("host checkpoint has size %d, want 3", hp.Size)
	}
	id, root := s.ID(), l.LastHash()
	shutdown(t, s, stop)

	s = mustOpen(t, cfg)
	stop = run(t, s)
	defer shutdown(t, s, stop)
	l, ok = s.LogByOrigin(l.Origin())
	if !ok || s.ID() != id || l.LastHash() != root || l.Size() != 1+frames*each {
		t.Fatalf("after reopening: log %v size %d", ok, l.Size())
	}
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "after")}})
	item, err := l.Item(l.Size() - 1)
	if err != nil {
		t.Fatal(err)
	}
	if item.Leaf.Prev != root || item.Leaf.Header.Session != s.RunID() || item.Leaf.Header.Sequence != 0 || item.Leaf.Header.Lane != record.NoLane {
		t.Fatalf("leaf %+v", item.Leaf)
	}
}

func TestOpenAndCreateRefuse(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(t, fs)
	if _, err := Open(cfg); !errors.Is(err, record.ErrReject) {
		t.Fatalf("open of a missing store: %v", err)
	}
	s := mustCreate(t, cfg)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(cfg); !errors.Is(err, record.ErrReject) {
		t.Fatalf("create over a store: %v", err)
	}
	other := cfg
	other.Dir = "/other"
	if _, err := Create(other); !errors.Is(err, record.ErrReject) {
		t.Fatalf("create over an anchor: %v", err)
	}
	other = cfg
	other.HostID = "kvm2.example"
	if _, err := Open(other); !errors.Is(err, record.ErrReject) {
		t.Fatalf("open as another host: %v", err)
	}
	other = cfg
	other.Keys = testKeys(t)
	if _, err := Open(other); !errors.Is(err, record.ErrFatal) {
		t.Fatalf("open with other keys: %v", err)
	}
	if err := fs.Remove("/anchor"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, record.ErrFatal) {
		t.Fatalf("open without its anchor: %v", err)
	}
	inside := cfg
	inside.Anchor = "/store/anchor"
	if _, err := Open(inside); !errors.Is(err, record.ErrReject) {
		t.Fatalf("anchor in the store: %v", err)
	}
}

func TestAppendRefuses(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	ctx := context.Background()
	forged := guestEntries(t, 1, 0, 1)
	forged[0].Header.Class = record.ClassPolicyVerdict
	unsalted := guestEntries(t, 1, 0, 1)
	unsalted[0].Salt, unsalted[0].Seed = record.Salt{}, record.Seed{}
	twice := guestEntries(t, 1, 0, 1)
	twice[0].Salt, twice[0].Seed = record.Salt{1}, record.Seed{1}
	full := hostEntry(t, s, "x")
	full.Payload = make([]byte, MaxBatchBytes+1)
	why := errors.New("not now")
	for name, c := range map[string]struct {
		batch Batch
		want  error
	}{
		"no log":          {Batch{Entries: []Entry{hostEntry(t, s, "x")}}, record.ErrReject},
		"no entries":      {Batch{Log: l}, record.ErrReject},
		"forged verdict":  {Batch{Log: l, Entries: forged}, record.ErrReject},
		"no salt":         {Batch{Log: l, Entries: unsalted}, record.ErrReject},
		"salt and seed":   {Batch{Log: l, Entries: twice}, record.ErrReject},
		"no origin":       {Batch{Log: l, Entries: []Entry{{}}}, record.ErrReject},
		"too large":       {Batch{Log: l, Entries: []Entry{full}}, record.ErrReject},
		"empty meta key":  {Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}, Meta: []MetaWrite{{}}}, record.ErrReject},
		"unnamed":         {Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}, Position: &FollowerPosition{}}, record.ErrReject},
		"check":           {Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}, Check: func(Head) error { return why }}, why},
		"too many":        {Batch{Log: l, Entries: guestEntries(t, 1, 0, MaxBatchEntries+1)}, record.ErrReject},
		"check with meta": {Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}, Meta: []MetaWrite{{Key: "k", Value: []byte("v")}}, Check: func(Head) error { return why }}, why},
	} {
		if _, err := s.Append(ctx, c.batch); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if l.Size() != 1 {
		t.Fatalf("refused batches left %d leaves, want genesis only", l.Size())
	}
	if _, ok, err := s.Meta("k"); ok || err != nil {
		t.Fatalf("a refused batch left its meta row (%v)", err)
	}
	if _, err := s.CreateLog(ctx, l.Origin(), &record.Genesis{}); !errors.Is(err, record.ErrReject) {
		t.Fatalf("same log twice: %v", err)
	}
}
