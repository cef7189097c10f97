package bpf

import (
	"bytes"
	"testing"
)

// What is packed are the objects that the sources gave.
func TestPacked(t *testing.T) {
	for name, c := range map[string]struct{ packed, want []byte }{"probe": {packedProbe, _ProbeBytes}, "old": {packedOld, _OldBytes}} {
		got, err := unpack(c.packed)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, want the %d of the object (%v): run go generate ./...", name, len(got), len(c.want), err)
		}
	}
	for _, old := range []bool{false, true} {
		if s, err := Programs(old); err != nil || len(s.Programs) == 0 {
			t.Errorf("old %v: %v", old, err)
		}
	}
}
