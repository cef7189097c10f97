package probe

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/provostd/provost/bpf"
)

// front is how many bytes of an event stand in a ring as they are. The rest of
// its fixed part is there without the words that are zero.
const front = int(unsafe.Offsetof(bpf.ProbeEventHead{}.Start))

const wordBytes = 4

// timeOf is the time in a sample's front, 0 where there is none.
func timeOf(b []byte) uint64 {
	if len(b) < front {
		return 0
	}
	return binary.NativeEndian.Uint64(b[unsafe.Offsetof(bpf.ProbeEventHead{}.Time):])
}

// unpack appends a sample to out with all words of its fixed part, and so gives
// it the layout that its type has.
func unpack(out, b []byte) ([]byte, error) {
	if len(b) < front {
		return nil, errShort
	}
	mask := binary.NativeEndian.Uint64(b)
	words := bits.Len64(mask) - 1 // the highest bit marks the end
	if words < 0 {
		return nil, errShort
	}
	mask &^= 1 << words
	there := b[front:]
	if len(there) < wordBytes*bits.OnesCount64(mask) {
		return nil, errShort
	}
	at := len(out)
	out = append(out, b[:front]...)
	out = append(out, zeros[:wordBytes*words]...)
	for fixed := out[at+front:]; mask != 0; mask &= mask - 1 {
		copy(fixed[wordBytes*bits.TrailingZeros64(mask):][:wordBytes], there)
		there = there[wordBytes:]
	}
	restore(out[at:])
	return append(out, there...), nil
}

var zeros [wordBytes * 64]byte

// in is a layout at the front of b, in place; nil where b is too short for it.
func in[T any](b []byte) *T {
	var v T
	if len(b) < int(unsafe.Sizeof(v)) {
		return nil
	}
	return (*T)(unsafe.Pointer(&b[0]))
}

// restore gives the fields of a fixed part their values that stand in a ring as
// what differs from others of the same event.
func restore(b []byte) {
	h := in[bpf.ProbeEventHead](b)
	if h == nil {
		return
	}
	h.Tid ^= h.Tgid
	switch bpf.ProbeEventType(h.Type) {
	case bpf.ProbeEventTypeEV_EXEC:
		if x := in[bpf.ProbeEventExec](b); x != nil {
			restoreTask(&x.T, h)
			x.ArgsTotal ^= uint64(x.ArgsLen)
		}
	case bpf.ProbeEventTypeEV_FORK:
		if x := in[bpf.ProbeEventFork](b); x != nil {
			restoreTask(&x.T, h)
		}
	case bpf.ProbeEventTypeEV_CLOSE:
		if x := in[bpf.ProbeEventClose](b); x != nil {
			x.Mtime ^= x.Ctime1
			x.Bytes ^= x.Size1
		}
	}
}

// restoreTask is pack_task the other way round.
func restoreTask(t *bpf.ProbeEventTask, h *bpf.ProbeEventHead) {
	t.Euid ^= h.Euid
	t.Uid ^= t.Euid
	t.Gid ^= t.Uid
	t.Egid ^= t.Gid
	t.Sgid ^= t.Egid
	t.Suid ^= t.Euid
	t.Fsgid ^= t.Egid
	t.Fsuid ^= t.Euid
	t.Start ^= h.Start
	t.ParentStart ^= h.Start
	t.Tgid ^= h.Tgid
	t.Ppid ^= h.Tgid
	t.Mntns ^= h.Mntns
	t.Loginuid, t.Sessionid = ^t.Loginuid, ^t.Sessionid
}
