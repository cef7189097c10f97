package mirror

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

// FuzzBundles holds the parsers of entry bundles and opening bundles to this: either
// the bundle is refused as *missing, or every one of its entries has a hash and a
// leaf, and every fault and every opened payload names one of them. Nothing is
// accepted with bytes left over.
func FuzzBundles(f *testing.F) {
	leaf := (&record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: record.ClassVMCheckpoint}}).AppendBinary(nil)
	entry := append(binary.BigEndian.AppendUint16(nil, uint16(len(leaf))), leaf...)
	payload := append(binary.BigEndian.AppendUint32(nil, 33), make([]byte, 33)...)
	f.Add(entry, payload, uint8(1), false)
	f.Add(append(slices.Clone(entry), entry...), make([]byte, 8), uint8(2), true)
	f.Add([]byte{0, 0}, []byte{0xff, 0xff, 0xff, 0xff}, uint8(1), false)
	f.Fuzz(func(t *testing.T, entries, openings []byte, width uint8, whole bool) {
		c := &logCheck{v: &verification{r: &Report{}}, ours: true}
		b := &bundle{width: int(width) + 1}
		var none *missing
		if err := c.leaves(t.Context(), b, entries, whole); err != nil {
			if !errors.As(err, &none) {
				t.Fatal(err)
			}
			return
		}
		if len(b.hashes) != b.width || len(b.leaves) != b.width {
			t.Fatalf("%d hashes and %d leaves of %d entries", len(b.hashes), len(b.leaves), b.width)
		}
		end := 0
		for range b.width {
			end += 2 + int(binary.BigEndian.Uint16(entries[end:]))
		}
		if !whole && end != len(entries) {
			t.Fatalf("%d bytes are left over", len(entries)-end)
		}
		err := c.openings(b, openings, whole)
		if err != nil && !errors.As(err, &none) {
			t.Fatal(err)
		}
		for _, f := range b.faults {
			if f.at < 0 || f.at >= b.width {
				t.Fatalf("a fault of entry %d of %d", f.at, b.width)
			}
		}
		if !slices.IsSortedFunc(b.opened, func(a, b opened) int { return a.at - b.at }) || b.match > b.width {
			t.Fatalf("opened %v, %d match", b.opened, b.match)
		}
	})
}

// FuzzBundlePath compares names with those that torchwood makes.
func FuzzBundlePath(f *testing.F) {
	f.Add(uint64(0), uint8(0))
	f.Add(uint64(1234567), uint8(17))
	f.Fuzz(func(t *testing.T, n uint64, width uint8) {
		n %= 1 << 50
		w := int(width) + 1
		want := torchwood.TilePath(tlog.Tile{H: torchwood.TileHeight, L: -1, N: int64(n), W: w})
		if got := Path("entries", n, w); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		if got := Path("openings", n, w); got != strings.Replace(want, "entries", "openings", 1) {
			t.Fatal(got)
		}
	})
}

// TestFrontier compares roots with those of chain/record at every size, with leaves and
// with whole subtrees pushed.
func TestFrontier(t *testing.T) {
	var hashes []record.Hash
	one, many := frontier{}, frontier{}
	if one.root() != record.Root(nil) {
		t.Fatal("the empty tree")
	}
	for i := range 2000 {
		hashes = append(hashes, record.LeafHash([]byte{byte(i), byte(i >> 8)}))
		one.push(hashes[i], 0)
		if one.root() != record.Root(hashes) {
			t.Fatalf("size %d", i+1)
		}
		if n := len(hashes); n%bundleWidth == 0 {
			many.push(perfect(slices.Clone(hashes[n-bundleWidth:])), 8)
			if many.root() != one.root() || many.size != one.size {
				t.Fatalf("size %d by bundles", n)
			}
		}
	}
}
