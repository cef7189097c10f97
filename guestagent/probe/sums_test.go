package probe

import (
	"testing"
	"unsafe"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

func sumOf(layout bpf.ProbeSumLayout, typ bpf.ProbeEventType, first, count uint64, sample []byte) (*bpf.ProbeSumKey, *bpf.ProbeSum) {
	s := &bpf.ProbeSum{Count: count, Bytes: 35, First: first, Last: first + 5}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&s.Event[0])), len(s.Event)), sample)
	return &bpf.ProbeSumKey{Type: uint8(typ), Layout: uint8(layout)}, s
}

// A sum tells of the image that acted, though the process runs another one by
// now, or has ended long ago.
func TestSumsOfThen(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	exec := func(time uint64, path string) {
		t.Helper()
		h := testHead(bpf.ProbeEventTypeEV_EXEC, 5)
		h.Time = time
		if _, err := d.decode(&h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: 5, Start: 50}, PathLen: uint16(len(path))}, path)); err != nil {
			t.Fatal(err)
		}
	}
	net := func(typ bpf.ProbeEventType) bpf.ProbeEventNet {
		return bpf.ProbeEventNet{H: testHead(typ, 5), Family: 2, Protocol: 17, Dport: 53}
	}
	exec(100, "client\x00")
	send := net(bpf.ProbeEventTypeEV_SEND)
	send.H.Time = 110
	if _, err := d.decode(&send.H, raw(send, "")); err != nil {
		t.Fatal(err)
	}
	exec(200, "other\x00")
	tell := func(first uint64) *record.Event {
		t.Helper()
		k, s := sumOf(bpf.ProbeSumLayoutSUM_FLOW, bpf.ProbeEventTypeEV_FLOW, first, 7, raw(net(bpf.ProbeEventTypeEV_FLOW), ""))
		e, err := d.sum(k, s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := tell(110); string(e.Process.Executable) != "/client" || e.Network.Packets != 7 || e.Network.Bytes != 35 || e.Until != 115 ||
		e.Count != 7 || e.Flags&record.EventAggregated == 0 {
		t.Errorf("sum from before the exec: %v", e)
	}
	if e := tell(210); string(e.Process.Executable) != "/other" {
		t.Errorf("sum from after the exec: %v", e)
	}
	h := testHead(bpf.ProbeEventTypeEV_EXIT, 5)
	if _, err := d.decode(&h, raw(bpf.ProbeEventExit{H: h}, "")); err != nil {
		t.Fatal(err)
	}
	clear(d.table.gone)
	if e := tell(220); string(e.Process.Executable) != "/other" {
		t.Errorf("sum of a process that is gone: %v", e)
	}
	d.pins.sweep(1 << 62)
	if e := tell(220); e.Process.Pid != 5 || e.Process.Start != 50 || len(d.pins.all) != 1 {
		t.Errorf("sum of a process that nothing is known of: %v, %d held", e, len(d.pins.all))
	}
	for range 2 {
		for pid := range uint32(2 * maxPinBytes / processBytes) {
			d.pins.hold(pid, bare(pid, 1), 1)
		}
	}
	if n := len(d.pins.all) * processBytes; n > maxPinBytes || n < maxPinBytes/2 || d.pins.bytes != n {
		t.Errorf("processes of %d bytes are held, booked %d, want at most %d", n, d.pins.bytes, maxPinBytes)
	}
	d.pins.sweep(1 << 62)
	if len(d.pins.all) != 0 || d.pins.bytes != 0 {
		t.Errorf("%d processes of %d bytes are held after the sweep", len(d.pins.all), d.pins.bytes)
	}
}

// A sum of file events has the directory, and a path that says when it is cut.
func TestSumOfFiles(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	names := "dir\x00tmp\x00"
	k, s := sumOf(bpf.ProbeSumLayoutSUM_FILE, bpf.ProbeEventTypeEV_WRITE, 9, 3,
		raw(bpf.ProbeEventFile{H: testHead(bpf.ProbeEventTypeEV_WRITE, 5), Ino: 77, PathLen: uint16(len(names))}, names))
	e, err := d.sum(k, s)
	if err != nil || string(e.File.Path) != "/tmp/dir" || e.File.Inode != 77 || e.Count != 3 {
		t.Errorf("%v %v", e, err)
	}
	s.Flags = uint32(bpf.ProbeEventFlagFL_PATH_TRUNC)
	if e, err := d.sum(k, s); err != nil || string(e.File.Path) != "tmp/dir" || e.File.Flags&record.FilePathTruncated == 0 {
		t.Errorf("cut: %v %v", e, err)
	}
	k.Layout = 99
	if e, err := d.sum(k, s); err == nil {
		t.Errorf("unknown layout: %v", e)
	}
}
