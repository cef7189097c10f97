package probe

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"testing"
	"unsafe"

	"github.com/provostd/provost/bpf"
)

// packed is raw as it stands in a ring, without the words that are zero.
func packed[T any](v T, tail string) []byte {
	b := raw(v, "")
	out := bytes.Clone(b[:front])
	mask := uint64(1) << ((len(b) - front) / wordBytes)
	for i := 0; front+wordBytes*i < len(b); i++ {
		if w := b[front+wordBytes*i:][:wordBytes]; !bytes.Equal(w, make([]byte, wordBytes)) {
			out = append(out, w...)
			mask |= 1 << i
		}
	}
	binary.NativeEndian.PutUint64(out, mask)
	return append(out, tail...)
}

// What an event says does not depend on which of its words are zero.
func TestUnpack(t *testing.T) {
	head := bpf.ProbeEventHead{Type: uint8(bpf.ProbeEventTypeEV_FORK), Time: 1 << 40, Seq: 7, Start: 9, Tgid: 5, Tid: 5 ^ 6, Euid: 1000, Mntns: 77, Cpu: 3}
	child := bpf.ProbeEventTask{Start: 9 ^ 12, ParentStart: 0, Tgid: 5 ^ 8, Ppid: 0, Mntns: 0, Loginuid: 0, Sessionid: ^uint32(4),
		Fsgid: 1 << 31, CapEffective: 1 << 63}
	b, err := unpack(nil, packed(bpf.ProbeEventFork{H: head, T: child}, "tail"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := as[bpf.ProbeEventFork](b)
	if err != nil {
		t.Fatal(err)
	}
	head.Mask, head.Tid = x.H.Mask, 6
	if x.H != head || timeOf(b) != head.Time {
		t.Errorf("head %+v, want %+v", x.H, head)
	}
	want := bpf.ProbeEventTask{Start: 12, ParentStart: 9, Tgid: 8, Ppid: 5, Mntns: 77, Loginuid: ^uint32(0), Sessionid: 4, CapEffective: 1 << 63,
		Uid: 1000, Gid: 1000, Euid: 1000, Egid: 1000, Suid: 1000, Sgid: 1000, Fsuid: 1000, Fsgid: 1000 ^ 1<<31}
	if x.T != want {
		t.Errorf("child %+v, want %+v", x.T, want)
	}
	if got := b[unsafe.Sizeof(x):]; string(got) != "tail" {
		t.Errorf("behind the layout is %q", got)
	}
}

// FuzzUnpack: no sample makes unpack panic; what it gives has the words that
// the mask says, and packs to the same again.
func FuzzUnpack(f *testing.F) {
	f.Add(packed(bpf.ProbeEventFork{H: testHead(bpf.ProbeEventTypeEV_FORK, 3)}, ""))
	f.Add(packed(bpf.ProbeEventClose{H: testHead(bpf.ProbeEventTypeEV_CLOSE, 3), Bytes: 4, Size1: 5, Mtime: -1}, "a\x00"))
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Add(make([]byte, front))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := unpack(nil, b)
		if err != nil {
			if out != nil {
				t.Fatal("bytes and an error")
			}
			return
		}
		mask := binary.NativeEndian.Uint64(b)
		words := bits.Len64(mask) - 1
		if want := len(b) + wordBytes*(words-bits.OnesCount64(mask)+1); len(out) != want {
			t.Fatalf("%d bytes of %d with mask %x, want %d", len(out), len(b), mask, want)
		}
		if !bytes.Equal(out[:front], b[:front]) {
			t.Fatal("another front")
		}
	})
}
