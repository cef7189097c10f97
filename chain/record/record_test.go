package record

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func TestLeafRefuses(t *testing.T) {
	good := (&Leaf{Origin: OriginGuest, Header: Header{Class: ClassFileRename}}).AppendBinary(nil)
	if _, err := ParseLeaf(good); err != nil {
		t.Fatal(err)
	}
	change := func(at int, b byte) []byte {
		c := bytes.Clone(good)
		c[at] = b
		return c
	}
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:LeafSize-1], "long": append(bytes.Clone(good), 0),
		"magic": change(0, 'Q'), "version": change(3, '2'), "no origin": change(4, 0), "unknown origin": change(4, 5),
		"reserved": change(6, 1), "header version": change(64, 2), "header reserved": change(65, 1),
	} {
		l, err := ParseLeaf(b)
		if !errors.Is(err, ErrReject) || l != (Leaf{}) {
			t.Errorf("%s: %v, leaf %+v", name, err, l)
		}
	}
}

func TestClassNames(t *testing.T) {
	seen := map[string]Class{}
	for _, c := range Classes() {
		name := c.String()
		if other, twice := seen[name]; twice {
			t.Errorf("%#04x and %#04x are both named %s", uint16(c), uint16(other), name)
		}
		seen[name] = c
		if p, err := ParseClass(name); err != nil || p != c {
			t.Errorf("ParseClass(%s) = %#04x, %v", name, uint16(p), err)
		}
		if !c.Known() || NewPayload(c) == nil {
			t.Errorf("%s has no payload", name)
		}
	}
	if _, err := ParseClass("file.sing"); !errors.Is(err, ErrReject) {
		t.Errorf("unknown name: %v", err)
	}
	if c := Class(0x7fff); c.Known() || c.String() != "class(0x7fff)" {
		t.Errorf("unknown class is %s", c)
	}
	for _, c := range []Class{ClassPolicyVerdict, ClassVMPause, ClassAgentFrame, ClassGenesis, ClassAgentEnrolled, ClassHostStart, 0} {
		if c.FromGuest() {
			t.Errorf("a guest may write %s", c)
		}
	}
	for _, c := range []Class{ClassProcessExec, ClassNetworkConnect, ClassAgentDropped, ClassAgentHooks} {
		if !c.FromGuest() {
			t.Errorf("a guest may not write %s", c)
		}
	}
}

func TestDecodeLimitsGuests(t *testing.T) {
	large := make([]byte, MaxPayload+1)
	if m, err := Decode(ClassFileCreate, large); !errors.Is(err, ErrReject) || m != nil {
		t.Errorf("large payload of a guest: %v, %v", m, err)
	}
	g := &Genesis{DomainXml: bytes.Repeat([]byte{'x'}, 2*MaxPayload)}
	b, err := Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := Decode(ClassGenesis, b); err != nil || !bytes.Equal(m.(*Genesis).DomainXml, g.DomainXml) {
		t.Errorf("large genesis: %v", err)
	}
}

func TestParseHash(t *testing.T) {
	h := Hash{1, 2, 3}
	if got, err := ParseHash(h.String()); err != nil || got != h {
		t.Errorf("%s comes back as %s: %v", h, got, err)
	}
	for _, s := range []string{"", "00", h.String() + "00", "z" + h.String()[1:]} {
		if got, err := ParseHash(s); !errors.Is(err, ErrReject) || !got.IsZero() {
			t.Errorf("ParseHash(%q) = %s, %v", s, got, err)
		}
	}
}

// TestCommitmentBinds changes every input of the commitment and the record
// hash: none may come out the same.
func TestCommitmentBinds(t *testing.T) {
	h := Header{Class: ClassFileCreate, Lane: 1, Session: 2, Sequence: 3, LaneSequence: 4, Time: 5}
	salt, payload := Salt{1}, []byte("payload")
	c := Commit(&salt, payload)
	other := Salt{2}
	if Commit(&other, payload) == c || Commit(&salt, payload[:6]) == c {
		t.Error("commitments collide")
	}
	seen := map[Hash]bool{RecordHash(h, c): true, RecordHash(h, Hash{}): true}
	for _, x := range []Header{
		{ClassFileDelete, 1, 2, 3, 4, 5}, {ClassFileCreate, 9, 2, 3, 4, 5}, {ClassFileCreate, 1, 9, 3, 4, 5},
		{ClassFileCreate, 1, 2, 9, 4, 5}, {ClassFileCreate, 1, 2, 3, 9, 5}, {ClassFileCreate, 1, 2, 3, 4, 9},
	} {
		seen[RecordHash(x, c)] = true
	}
	if len(seen) != 8 {
		t.Errorf("record hashes collide: %v", slices.Collect(maps.Keys(seen)))
	}
	seed := Seed{7}
	if seed.Salt(1) == seed.Salt(2) {
		t.Error("two records of a frame have the same salt")
	}
}

// TestTree compares roots and paths with x/mod's for all small sizes.
func TestTree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	var hashes []Hash
	for n := int64(0); n < 300; n++ {
		want, err := tlog.TreeHash(n, read)
		if err != nil {
			t.Fatal(err)
		}
		if got := Root(hashes); got != Hash(want) {
			t.Fatalf("root of %d hashes is %s, want %s", n, got, Hash(want))
		}
		if n > 0 {
			checkPath(t, hashes, rng.IntN(int(n)), read)
			checkPath(t, hashes, int(n-1), read)
		}
		h := Hash{byte(n), byte(n >> 8), 1}
		more, err := tlog.StoredHashesForRecordHash(n, tlog.Hash(h), read)
		if err != nil {
			t.Fatal(err)
		}
		hashes, stored = append(hashes, h), append(stored, more...)
	}
}

func checkPath(t *testing.T, hashes []Hash, i int, read tlog.HashReader) {
	t.Helper()
	n := uint64(len(hashes))
	want, err := tlog.ProveRecord(int64(n), int64(i), read)
	if err != nil {
		t.Fatal(err)
	}
	path := Path(hashes, i)
	if len(path) != len(want) {
		t.Fatalf("path of %d of %d has %d hashes, want %d", i, n, len(path), len(want))
	}
	for j := range path {
		if path[j] != Hash(want[j]) {
			t.Fatalf("path of %d of %d differs at %d", i, n, j)
		}
	}
	root := Root(hashes)
	if got, ok := RootFromPath(hashes[i], uint64(i), n, path); !ok || got != root {
		t.Fatalf("path of %d of %d leads to %s (%v)", i, n, got, ok)
	}
	// A path that is too short, too long, or for another place, must not lead
	// to the root.
	wrong := [][]Hash{append(slices.Clone(path), Hash{9})}
	if len(path) > 0 {
		wrong = append(wrong, path[:len(path)-1])
	}
	for _, p := range wrong {
		if got, ok := RootFromPath(hashes[i], uint64(i), n, p); ok && got == root {
			t.Fatalf("a path of %d hashes is accepted for %d of %d", len(p), i, n)
		}
	}
	if _, ok := RootFromPath(hashes[i], n, n, path); ok {
		t.Fatalf("a path is accepted for place %d of %d", n, n)
	}
	if n > 1 {
		if got, ok := RootFromPath(hashes[i], (uint64(i)+1)%n, n, path); ok && got == root {
			t.Fatalf("the path of %d is accepted for its neighbour, of %d", i, n)
		}
	}
}
