package proof

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// grown is a made-up log that grows into a bundle. NewTree is given bundles that were
// verified, so nothing here has a proof.
type grown struct {
	t    *testing.T
	b    *Bundle
	wall int64
}

const treeUUID = "11111111-2222-4333-8444-555555555555"

func grow(t *testing.T, origin string, wall int64) *grown {
	return &grown{t: t, wall: wall, b: &Bundle{VMOrigin: origin}}
}

func (g *grown) add(c record.Class, m record.Message) record.Hash {
	g.t.Helper()
	payload, err := record.Encode(m)
	if err != nil {
		g.t.Fatal(err)
	}
	g.wall += 1e9
	leaf := record.Leaf{Index: uint64(len(g.b.Entries)), Wall: g.wall, Mono: g.wall, Origin: record.OriginHost, Header: record.Header{Class: c}}
	raw := leaf.AppendBinary(nil)
	g.b.Entries = append(g.b.Entries, Entry{Index: leaf.Index, Sealed: Sealed{Leaf: raw, Opening: append(make([]byte, len(record.Salt{})), payload...)}})
	return record.LeafHash(raw)
}

func (g *grown) root() record.Hash {
	var all []record.Hash
	for _, e := range g.b.Entries {
		all = append(all, record.LeafHash(e.Leaf))
	}
	return record.Root(all)
}

func id(b byte) []byte { return bytes.Repeat([]byte{b}, 16) }

// journey is a migration from one host to another, each part of which change may spoil.
type journey struct {
	departed, arrived record.Handover
	stays             bool // the source does not tell of a departure
	epoch             record.Epoch
	root              record.Hash // that the note which came along has
	wrongKey          bool
}

func travel(t *testing.T, change func(*journey)) *Tree {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	from, to := VMOrigin("a.host", treeUUID, 3), VMOrigin("b.host", treeUUID, 1)
	src := grow(t, from, 0)
	src.add(record.ClassGenesis, &record.Genesis{Origin: from, Cause: "define"})
	opened := src.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(1), Cause: "start"})
	acked := src.add(record.ClassVMChange, &record.Event{})
	j := journey{root: src.root(),
		departed: record.Handover{What: "departed", Origin: from, Epoch: id(1), Index: 2, Hash: acked[:], Key: id(9), Session: 5, Frame: 7},
		arrived:  record.Handover{What: "arrived", Origin: from, Epoch: id(1), Index: 2, Hash: acked[:], Key: id(9), Session: 5, Frame: 7},
		epoch:    record.Epoch{Epoch: id(2), Cause: "arrival", Parent: id(1), ParentOrigin: from, ParentIndex: 1, ParentHash: opened[:]},
	}
	if change != nil {
		change(&j)
	}
	if !j.stays {
		src.add(record.ClassVMHandover, &j.departed)
	}
	src.add(record.ClassClosed, &record.Closed{})
	public := key.Public().(ed25519.PublicKey)
	certificate, err := record.Encode(&record.KeyCertificate{PublicKey: public})
	if err != nil {
		t.Fatal(err)
	}
	src.b.Certificate = Sealed{Opening: append(make([]byte, len(record.Salt{})), certificate...)}
	if j.wrongKey {
		if _, key, err = ed25519.GenerateKey(nil); err != nil {
			t.Fatal(err)
		}
	}
	v, err := NewVerifier(from, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	n, err := Checkpoint{Origin: from, Size: 3, Root: j.root}.Sign(testSigner{v, key})
	if err != nil {
		t.Fatal(err)
	}
	dst := grow(t, to, 3e9)
	dst.add(record.ClassGenesis, &record.Genesis{Origin: to, Cause: "arrival", Source: &record.Handover{Origin: from, Epoch: id(1), Note: n}})
	dst.add(record.ClassVMEpoch, &j.epoch)
	dst.add(record.ClassAgentArrived, &j.arrived)
	dst.add(record.ClassAgentFrame, &record.Frame{Statement: []byte{8}})
	return NewTree([]*Bundle{dst.b, src.b}, Options{Frame: func(statement, _, key []byte) (Frame, error) {
		return Frame{Session: 5, Number: uint64(statement[0])}, nil
	}})
}

// TestTreeOfAMigration holds that memory which moves is one history over two logs, and
// that each part of that which does not fit is found.
func TestTreeOfAMigration(t *testing.T) {
	whole := travel(t, nil)
	if len(whole.Failures) != 0 || len(whole.Domains) != 1 || len(whole.Domains[0].Epochs) != 2 || len(whole.Domains[0].Moves) != 1 {
		t.Fatalf("%+v", whole)
	}
	if m := whole.Domains[0].Moves[0]; m.State != "whole" || m.Left != 7 || m.First != 8 || m.Session != 5 {
		t.Errorf("move %+v", m)
	}
	var text strings.Builder
	if err := whole.WriteText(&text); err != nil || !strings.Contains(text.String(), "move a.host/vm/"+treeUUID+"/3/1 -> b.host/vm/"+treeUUID+"/1/1: whole") {
		t.Errorf("drawn as\n%s", text.String())
	}
	for name, c := range map[string]struct {
		change func(*journey)
		want   string
	}{
		"another acknowledgement": {func(j *journey) { j.arrived.Hash = id(0) }, "the agent holds an acknowledgement"},
		"more than was sealed":    {func(j *journey) { j.departed.Frame = 6 }, "frame 6 is the newest"},
		"another key":             {func(j *journey) { j.departed.Key = id(8) }, "left with key"},
		"frames missing":          {func(j *journey) { j.arrived.Frame, j.departed.Frame = 5, 7 }, "frames between are missing"},
		"another leaf":            {func(j *journey) { j.epoch.ParentHash = id(0) }, "it names"},
		"another root":            {func(j *journey) { j.root = record.Hash{1} }, "two histories"},
		"another signer":          {func(j *journey) { j.wrongKey = true }, "not signed with a key of that log"},
		"another end":             {func(j *journey) { j.departed.Hash = id(0) }, "the departure names"},
	} {
		tree := travel(t, c.change)
		if len(tree.Failures) == 0 || !strings.Contains(strings.Join(tree.Failures, "\n"), c.want) {
			t.Errorf("%s: failures %q, want one with %q", name, tree.Failures, c.want)
		}
	}
}

// TestMoveWithoutProof: what could not be held against the log that memory left is not whole.
func TestMoveWithoutProof(t *testing.T) {
	if m := travel(t, func(j *journey) { j.stays = true }).Domains[0].Moves[0]; m.State != "unproved" {
		t.Errorf("no departure: %s", m.State)
	}
	if m := travel(t, func(j *journey) { j.epoch.ParentHash = id(0) }).Domains[0].Moves[0]; m.State != "broken" {
		t.Errorf("another leaf: %s", m.State)
	}
}

// TestBranchesStandInTheirParents: a leaf that is as named proves nothing where it stands in
// another log, or in another epoch, than the parent that is named with it.
func TestBranchesStandInTheirParents(t *testing.T) {
	for name, c := range map[string]struct {
		parent byte
		log    string
		index  uint64
		want   string
	}{
		"as it is":      {1, "", 2, ""},
		"later epoch":   {1, "", 4, "stands in a later epoch"},
		"before it":     {2, "", 2, "begins behind that"},
		"another log":   {1, "other", 1, "no log that its parent"},
		"not presumed":  {1, "none", 0, "no log that its parent"},
		"the later one": {2, "", 4, ""},
	} {
		a, other := grow(t, VMOrigin("a.host", treeUUID, 1), 0), grow(t, VMOrigin("a.host", treeUUID, 2), 0)
		a.add(record.ClassGenesis, &record.Genesis{Cause: "define"})
		a.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(1), Cause: "start"})
		a.add(record.ClassVMChange, &record.Event{})
		a.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(2), Cause: "start"})
		a.add(record.ClassVMChange, &record.Event{})
		other.add(record.ClassGenesis, &record.Genesis{Cause: "define"})
		other.add(record.ClassVMChange, &record.Event{})
		from := a.b
		if c.log != "" {
			from = other.b
		}
		h := record.LeafHash(from.Entries[c.index].Leaf)
		e := &record.Epoch{Epoch: id(3), Cause: "restore", Parent: id(c.parent), ParentOrigin: from.VMOrigin, ParentIndex: c.index, ParentHash: h[:]}
		if c.log == "none" {
			e.ParentOrigin, e.ParentHash = "", nil
		}
		a.add(record.ClassVMEpoch, e)
		got := strings.Join(NewTree([]*Bundle{a.b, other.b}, Options{}).Failures, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: failures %q, want %q", name, got, c.want)
		}
	}
}

// TestTreeTellsOfCopies draws forks, and tells of a UUID that lives twice and of a key
// of two domains.
func TestTreeTellsOfCopies(t *testing.T) {
	a, b := grow(t, VMOrigin("a.host", treeUUID, 1), 0), grow(t, VMOrigin("b.host", treeUUID, 1), 1)
	other := grow(t, VMOrigin("a.host", strings.Replace(treeUUID, "1", "7", 1), 1), 0)
	for i, g := range []*grown{a, b, other} {
		g.add(record.ClassGenesis, &record.Genesis{Cause: "define"})
		g.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(byte(0x10 + i)), Cause: "start"})
		g.add(record.ClassAgentEnrolled, &record.Enrolled{Key: id(1), Session: 1})
	}
	h := record.LeafHash(a.b.Entries[2].Leaf)
	for i := range 2 {
		e := &record.Epoch{Epoch: id(byte(0x20 + i)), Cause: "restore", Parent: id(0x10), ParentOrigin: a.b.VMOrigin, ParentIndex: 2, ParentHash: h[:], Image: "the save", ImageUses: uint64(i + 1)}
		if i == 1 {
			e.Abandoned = id(0x20)
		}
		a.add(record.ClassVMEpoch, e)
	}
	tree := NewTree([]*Bundle{a.b, b.b, other.b}, Options{})
	told := strings.Join(tree.Told, "\n")
	if len(tree.Domains) != 2 || !strings.Contains(told, "one is a clone") || !strings.Contains(told, "memory was copied") {
		t.Errorf("told: %s", told)
	}
	var text strings.Builder
	if err := tree.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	first, second := strings.Index(text.String(), "      20202020 restore"), strings.Index(text.String(), "  21212121 restore")
	if first < 0 || second < first || !strings.Contains(text.String(), "use 2") || !strings.Contains(text.String(), "20202020 is abandoned") {
		t.Errorf("drawn as\n%s", text.String())
	}
	a.b.Entries[4].Opening = nil // withheld
	if n := len(NewTree([]*Bundle{a.b}, Options{}).Domains[0].Epochs); n != 2 {
		t.Errorf("%d epochs where one is withheld, want 2", n)
	}
	ring := grow(t, VMOrigin("a.host", treeUUID, 1), 0)
	ring.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(1), Parent: id(2), Cause: "start"})
	ring.add(record.ClassVMEpoch, &record.Epoch{Epoch: id(2), Parent: id(1), Cause: "start"})
	text.Reset()
	if err := NewTree([]*Bundle{ring.b}, Options{}).WriteText(&text); err != nil || strings.Count(text.String(), " start ") != 2 {
		t.Errorf("a ring is drawn as\n%s", text.String())
	}
}
