package probe

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

func TestPathOf(t *testing.T) {
	for _, c := range []struct {
		names               string
		truncated, detached bool
		want                string
	}{
		{"", false, false, "/"},
		{"passwd\x00etc\x00", false, false, "/etc/passwd"},
		{"a\x00", false, false, "/a"},
		{"c\x00b\x00", true, false, "b/c"},
		{"memfd:mf\x00", false, true, "memfd:mf"},
		{"\xff\n\x00x y\x00", false, false, "/x y/\xff\n"},
	} {
		if got := pathOf([]byte(c.names), c.truncated, c.detached); string(got) != c.want {
			t.Errorf("%q: %q, want %q", c.names, got, c.want)
		}
	}
}

func TestUserPath(t *testing.T) {
	for _, c := range [][3]string{
		{"/etc", "passwd\x00", "/etc/passwd"},
		{"/", "/tmp/../x\x00", "/x"},
		{"/jail", "/../x\x00", "/jail/x"},
		{"/a/b", "../c\x00", "/a/c"},
		{"/", "./x\x00", "/x"},
	} {
		if got := userPath([]byte(c[0]), []byte(c[1])); string(got) != c[2] {
			t.Errorf("%q in %q: %q, want %q", c[1], c[0], got, c[2])
		}
	}
}

func TestArguments(t *testing.T) {
	for in, want := range map[string][]string{
		"":               nil,
		"a\x00":          {"a"},
		"a\x00\x00b":     {"a", "", "b"},
		"\x00":           {""},
		"a\x00b\x00\x00": {"a", "b", ""},
	} {
		got := arguments([]byte(in))
		if len(got) != len(want) {
			t.Errorf("%q: %q, want %q", in, got, want)
			continue
		}
		for i := range got {
			if string(got[i]) != want[i] {
				t.Errorf("%q: %q, want %q", in, got, want)
			}
		}
	}
}

func TestParseStat(t *testing.T) {
	name, ppid, ticks, ok := parseStat([]byte("7 (a) b) (c) S 3 7 7 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 1234 5 6"))
	if !ok || string(name) != "a) b) (c" || ppid != 3 || ticks != 1234 {
		t.Errorf("%q %d %d %v", name, ppid, ticks, ok)
	}
	if _, _, _, ok := parseStat([]byte("7 (a")); ok {
		t.Error("half a line is accepted")
	}
}

// raw is the bytes of a layout with strings behind it.
func raw[T any](v T, tail string) []byte {
	return append(bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))), tail...)
}

func testHead(typ bpf.ProbeEventType, pid uint32) bpf.ProbeEventHead {
	return bpf.ProbeEventHead{Type: uint8(typ), Tgid: pid, Tid: pid, Start: uint64(pid) * 10}
}

// What an event says of its process is what was so when it happened: a child
// keeps its parent after the parent is gone, and its image until it has its own.
func TestLineage(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	decode := func(h bpf.ProbeEventHead, b []byte) *record.Event {
		t.Helper()
		e, err := d.decode(&h, b)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	exec := func(pid uint32, path string) *record.Event {
		h := testHead(bpf.ProbeEventTypeEV_EXEC, pid)
		return decode(h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10}, PathLen: uint16(len(path))}, path))
	}
	fork := func(parent, child uint32) *record.Event {
		h := testHead(bpf.ProbeEventTypeEV_FORK, parent)
		return decode(h, raw(bpf.ProbeEventFork{H: h, T: bpf.ProbeEventTask{Tgid: child, Start: uint64(child) * 10, Ppid: parent, ParentStart: uint64(parent) * 10}}, ""))
	}
	exit := func(pid uint32) *record.Event {
		h := testHead(bpf.ProbeEventTypeEV_EXIT, pid)
		h.Arg = 0x100
		return decode(h, raw(bpf.ProbeEventExit{H: h}, ""))
	}
	file := func(pid uint32) *record.Event {
		h := testHead(bpf.ProbeEventTypeEV_WRITE, pid)
		return decode(h, raw(bpf.ProbeEventFile{H: h, PathLen: 2}, "f\x00"))
	}
	exec(1, "init\x00")
	if e := fork(1, 2); e.Process.Pid != 2 || string(e.Process.Executable) != "/init" || e.Parent.Pid != 1 {
		t.Errorf("fork: %v", e)
	}
	fork(2, 3)
	exec(2, "sh\x00")
	if e := exit(2); e.Exit.Code != 1 || string(e.Process.Executable) != "/sh" {
		t.Errorf("exit: %v", e)
	}
	if e := file(2); string(e.Process.Executable) != "/sh" {
		t.Errorf("late event of a process that is gone: %v", e.Process)
	}
	e := file(3)
	if e.Process.Ppid != 2 || string(e.Parent.Executable) != "/init" || len(e.Ancestors) != 1 || e.Ancestors[0].Pid != 1 {
		t.Errorf("orphan: %v", e)
	}
	// A chain of daemons does not grow without bound.
	for pid := uint32(3); pid < 100; pid++ {
		fork(pid, pid+1)
		exit(pid)
	}
	if e := file(100); e.Parent.Pid != 99 || len(e.Ancestors) != maxAncestors {
		t.Errorf("%d ancestors, want %d", len(e.Ancestors), maxAncestors)
	}
	if e := file(1 << 20); e.Process.Pid != 1<<20 || e.Parent != nil {
		t.Errorf("unknown process: %v", e)
	}
}

// The words for a module's signature.
func TestModuleSignature(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	for in, want := range map[bpf.ProbeModuleSignature]string{
		bpf.ProbeModuleSignatureSIGNATURE_UNKNOWN: "", bpf.ProbeModuleSignatureSIGNATURE_VALID: "valid", bpf.ProbeModuleSignatureSIGNATURE_NONE: "none", 9: "",
	} {
		h := testHead(bpf.ProbeEventTypeEV_MODULE_LOAD, 5)
		if e, err := d.decode(&h, raw(bpf.ProbeEventKernel{H: h, Operation: 2, Signature: uint16(in)}, "")); err != nil || e.Kernel.Signature != want {
			t.Errorf("signature %d: %v %v, want %q", in, e, err, want)
		}
	}
}

// The longest of everything still fits into a payload: else a few deep
// directories would hide what is done in them.
func TestLargestFits(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	deep := strings.Repeat(strings.Repeat("x", 239)+"\x00", 27)
	place := strings.Repeat(strings.Repeat("p", 239)+"\x00", 8)
	for pid := uint32(1); pid < 12; pid++ {
		h := testHead(bpf.ProbeEventTypeEV_EXEC, pid)
		name := strings.Repeat("f", 4095) + "\x00"
		x := bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10},
			PathLen: uint16(len(deep)), CwdLen: uint16(len(deep)), FilenameLen: 4096, ArgsLen: 4096, PlaceLen: uint16(len(place))}
		x.H.Flags = uint16(bpf.ProbeEventFlagFL_SCRIPT)
		if pid > 1 {
			hp := testHead(bpf.ProbeEventTypeEV_FORK, pid-1)
			if _, err := d.decode(&hp, raw(bpf.ProbeEventFork{H: hp, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10, Ppid: pid - 1, ParentStart: uint64(pid-1) * 10}}, "")); err != nil {
				t.Fatal(err)
			}
		}
		e, err := d.decode(&h, raw(x, name+strings.Repeat("\x00", 4096)+deep+deep+place))
		if err != nil {
			t.Fatal(err)
		}
		hr := testHead(bpf.ProbeEventTypeEV_RENAME, pid)
		r, err := d.decode(&hr, raw(bpf.ProbeEventRename{H: hr, OldLen: uint16(len(deep)), NewLen: uint16(len(deep)),
			PlaceLen: uint16(len(place))}, deep+deep+place))
		if err != nil {
			t.Fatal(err)
		}
		for what, e := range map[string]*record.Event{"exec": e, "rename": r} {
			if b, err := record.Encode(e); err != nil || len(b) > record.MaxPayload {
				t.Errorf("%s at depth %d: %d bytes, limit %d (%v)", what, pid, len(b), record.MaxPayload, err)
			}
		}
	}
}

// No sample makes the decoder panic, and what it gives can be encoded.
func FuzzDecode(f *testing.F) {
	for typ := range uint8(types) {
		f.Add(typ, packed(bpf.ProbeEventExec{H: testHead(bpf.ProbeEventType(typ), 5), PathLen: 4, CwdLen: 4, FilenameLen: 2, ArgsLen: 3}, "b\x00a\x00d\x00c\x00f\x00a\x00b"))
		f.Add(typ, packed(bpf.ProbeEventRename{H: testHead(bpf.ProbeEventType(typ), 5), OldLen: 2, NewLen: 2}, "a\x00b\x00"))
	}
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		d := newDecoder(newTable(nil), newGroups(nil))
		b, err := unpack(nil, b)
		if err != nil {
			return
		}
		h, err := as[bpf.ProbeEventHead](b)
		if err != nil {
			return
		}
		h.Type = typ
		e, err := d.decode(&h, b)
		if err == nil == (e == nil) {
			t.Fatalf("event %v and error %v", e, err)
		}
		if err == nil {
			if _, err := record.Encode(e); err != nil {
				t.Error(err)
			}
		}
	})
}
