package bpf

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf"
)

// What is packed are the objects that the sources gave: the same code, of the
// same programs with the same types, and no numbers of lines.
func TestPacked(t *testing.T) {
	for name, c := range map[string]struct {
		packed []byte
		whole  func() (*ebpf.CollectionSpec, error)
	}{"probe": {packedProbe, LoadProbe}, "old": {packedOld, LoadOld}} {
		b, err := unpack(c.packed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.whole()
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Programs) != len(want.Programs) || len(got.Maps) != len(want.Maps) {
			t.Errorf("%s: %d programs and %d maps, want %d and %d", name, len(got.Programs), len(got.Maps), len(want.Programs), len(want.Maps))
		}
		for p, w := range want.Programs {
			g := got.Programs[p]
			if g == nil || g.SectionName != w.SectionName || len(g.Instructions) != len(w.Instructions) {
				t.Errorf("%s: program %s is not that of the object: run go generate ./...", name, p)
				continue
			}
			for i, x := range w.Instructions {
				y := g.Instructions[i]
				if y.OpCode != x.OpCode || y.Constant != x.Constant || y.Offset != x.Offset || y.Dst != x.Dst || y.Src != x.Src || y.Reference() != x.Reference() {
					t.Errorf("%s: program %s: instruction %d is %v, want %v: run go generate ./...", name, p, i, y, x)
					break
				}
				if y.Source() != nil {
					t.Fatalf("%s: program %s has lines", name, p)
				}
			}
		}
	}
	for _, old := range []bool{false, true} {
		if s, err := Programs(old); err != nil || len(s.Programs) == 0 {
			t.Errorf("old %v: %v", old, err)
		}
	}
}
