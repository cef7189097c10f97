package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// The table is complete, and says of each field what is true.
func TestTable(t *testing.T) {
	if endBools-endNumbers > 64 {
		t.Fatal("too many true/false fields for Event.flags")
	}
	seen := make(map[Field]string)
	for i := range Fields {
		f := &Fields[i]
		if other, twice := seen[f.Field]; twice {
			t.Errorf("%s and %s share a number", f.Name, other)
		}
		seen[f.Field] = f.Name
		if f.Doc == "" || f.Classes.Empty() || !strings.Contains(f.Name, ".") {
			t.Errorf("%s is incomplete", f.Name)
		}
		var want Kind
		switch {
		case f.Field < endStrings:
			want = KindString
		case f.Field < endNumbers:
			want = KindNumber
		case f.Field < endBools:
			want = KindBool
		case f.Field < endAddresses:
			want = KindAddress
		case f.Field < endLists:
			want = KindStrings
		case f.Field == ProcessAncestors:
			want = KindProcesses
		case f.Field == VMMetadata:
			want = KindMap
		}
		if f.Kind != want {
			t.Errorf("%s: kind %s does not fit its slot, which is for a %s", f.Name, f.Kind, want)
		}
		if got, ok := Lookup(f.Name); !ok || got != f || f.Field.String() != f.Name || f.Field.Info() != f {
			t.Errorf("%s cannot be looked up", f.Name)
		}
	}
	for f := range endFields {
		if f == endStrings || f == endNumbers || f == endBools || f == endAddresses || f == endLists {
			continue // these start the next kind
		}
		if _, ok := seen[f]; !ok {
			t.Errorf("field number %d has no row", f)
		}
	}
	if len(subjects) > maxSubjects {
		t.Error("too many classes for ClassSet")
	}
	for _, name := range Planned {
		if c, err := record.ParseClass(name); err == nil && IsSubject(c) {
			t.Errorf("%s is planned, but exists", name)
		}
	}
	for _, c := range record.Classes() {
		for _, host := range []string{"host.", "log."} {
			if strings.HasPrefix(c.String(), host) && IsSubject(c) && c != record.ClassGenesis {
				t.Errorf("%s is not in a VM log", c)
			}
		}
		if c.FromGuest() && c != 0 && !IsSubject(c) {
			t.Errorf("guests may write %s, but no policy can judge it", c)
		}
	}
}

func sealed(class record.Class, origin record.Origin) *record.Leaf {
	return &record.Leaf{Origin: origin, Index: 3, Wall: 1, Header: record.Header{Class: class, Sequence: 4}}
}

func text(t *testing.T, e *Event, f Field) string {
	t.Helper()
	s, ok := e.Str(f)
	if ok != e.Has(f) {
		t.Errorf("%s: Str says %v, Has says %v", f, ok, e.Has(f))
	}
	if !ok {
		return "(missing)"
	}
	return s
}

func TestLoadEvent(t *testing.T) {
	e := new(Event)
	p := &record.Event{
		Process: &record.Process{Pid: 5, Start: 6, Ppid: 4, ParentStart: 2, Name: []byte("cafe\u0301"), Args: [][]byte{[]byte("a"), []byte("b\xff")}, LoginUid: 1<<32 - 1, SessionId: 1<<32 - 1,
			Credentials: &record.Credentials{Uid: 0, Gid: 1, Euid: 2, Egid: 3}},
		Ancestors: []*record.Process{{Pid: 1, Name: []byte("init")}, nil, {Pid: 9}},
		File:      &record.File{Path: []byte("/a/.b/c.tar.gz")},
		Network:   &record.Network{Family: 4, DestinationIp: []byte{1, 2, 3}, SourceIp: []byte{10, 0, 0, 1}, Protocol: "tcp"},
		Vm:        &record.VM{Detail: "forged"},
	}
	if err := e.Load(sealed(record.ClassFileModify, record.OriginGuest), p, &VM{UUID: "u", Name: "n"}); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[Field]string{
		EventType: "file.modify", EventCategory: "file", EventAction: "modify", EventOrigin: "guest", EventTime: "1970-01-01T00:00:00.000000001Z", EventOutcome: "(missing)",
		ProcessName: "caf\u00e9", ProcessCommandLine: "a b\xff", ProcessEntityID: "u:5:6", ParentEntityID: "u:4:2", UserName: "root",
		FilePath: "/a/.b/c.tar.gz", FileName: "c.tar.gz", FileDirectory: "/a/.b", FileExtension: "gz", FileTargetPath: "(missing)",
		DestinationIP: "(missing)", SourceIP: "10.0.0.1", NetworkTransport: "tcp", NetworkType: "ipv4",
		LibvirtDetail: "(missing)", VMUUID: "u", VMName: "n", VMState: "(missing)", ProcessHashSHA256: "(missing)",
	} {
		if got := text(t, e, f); got != want {
			t.Errorf("%s = %q, want %q", f, got, want)
		}
	}
	for f, want := range map[Field]int64{EventIndex: 3, EventSequence: 4, ProcessPID: 5, UserID: 0, UserEffectiveID: 2, UserLoginID: -1, ProcessSessionID: -1, FileInode: -1, FileSize: -1, FileUID: -1, DestinationPort: -1, SourcePort: 0, EventResult: -1} {
		n, ok := e.Num(f)
		if ok != (want >= 0) || ok && int64(n) != want {
			t.Errorf("%s = %d, %v, want %d", f, n, ok, want)
		}
	}
	if a := e.Ancestors(); len(a) != 1 || a[0].Name != "init" { // what follows a hole is not believed
		t.Errorf("ancestors %v", a)
	}
	// Nothing of it is left in the next event.
	if err := e.Load(sealed(record.ClassVMPause, record.OriginHost), &record.Event{Vm: &record.VM{Detail: "by user", LibvirtEvent: 3, LibvirtDetail: -1}}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range Fields {
		f := Fields[i].Field
		if e.Has(f) && !Fields[i].Classes.Has(record.ClassVMPause) {
			t.Errorf("%s is left from the event before", f)
		}
	}
	if text(t, e, LibvirtDetail) != "by user" || e.Has(LibvirtDetailID) || !e.Has(LibvirtEventID) {
		t.Error("libvirt's numbers are wrong")
	}
}

func TestLoadRefuses(t *testing.T) {
	e := new(Event)
	for _, p := range []record.Message{nil, &record.Genesis{}, &record.Lost{}} {
		err := e.Load(sealed(record.ClassFileModify, record.OriginGuest), p, nil)
		if !errors.Is(err, record.ErrReject) || errors.Is(err, ErrNoPayload) != (p == nil) || e.Has(EventType) {
			t.Errorf("payload %T: error %v", p, err)
		}
	}
	if err := e.Load(sealed(record.ClassTick, record.OriginHost), &record.Event{}, nil); !errors.Is(err, record.ErrReject) {
		t.Errorf("a tick was loaded: %v", err)
	}
}

// Bounds of what a guest sends.
func TestBounds(t *testing.T) {
	e := new(Event)
	p := &record.Event{Process: &record.Process{}}
	for range 1000 {
		p.Ancestors = append(p.Ancestors, &record.Process{Pid: 1})
	}
	if err := e.Load(sealed(record.ClassProcessExec, record.OriginGuest), p, nil); err != nil || len(e.Ancestors()) != MaxAncestors {
		t.Errorf("%d ancestors, %v", len(e.Ancestors()), err)
	}
	l := &record.Lost{Counts: []*record.LostCount{{Count: 1<<64 - 1}, {Count: 5}, nil, {Class: 1 << 20}}}
	for i := range 1000 {
		l.Counts = append(l.Counts, &record.LostCount{Class: uint32(i), Reason: record.LossReason(i)})
	}
	if err := e.Load(sealed(record.ClassAgentDropped, record.OriginGuest), l, nil); err != nil {
		t.Fatal(err)
	}
	if n, _ := e.Num(LostCount); n != 1<<64-1 || len(e.Strings(LostClasses)) > 64 {
		t.Errorf("count %d, %d classes", n, len(e.Strings(LostClasses)))
	}
}

// Whatever bytes a guest sends: no panic, and nothing is both missing and
// present.
func FuzzLoad(f *testing.F) {
	b, _ := (&record.Event{Process: &record.Process{Pid: 1, Args: [][]byte{{0xff}}}, File: &record.File{Path: []byte("/x")}}).MarshalVT()
	f.Add(uint16(record.ClassFileModify), b)
	f.Add(uint16(record.ClassAgentDropped), []byte{0x0a, 0})
	f.Add(uint16(record.ClassNetworkConnect), []byte{})
	e := new(Event)
	f.Fuzz(func(t *testing.T, class uint16, data []byte) {
		c := record.Class(class)
		p, err := record.Decode(c, data)
		if err != nil {
			return
		}
		if err := e.Load(sealed(c, record.OriginGuest), p, nil); err != nil {
			return
		}
		for i := range Fields {
			fd := &Fields[i]
			switch fd.Kind {
			case KindString, KindAddress:
				text(t, e, fd.Field)
			case KindStrings:
				if e.Has(fd.Field) != (len(e.Strings(fd.Field)) > 0) {
					t.Fatalf("%s: present and empty", fd.Name)
				}
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	p := &record.Event{
		Process: &record.Process{Pid: 5, Start: 6, Name: []byte("vim"), Executable: []byte("/usr/bin/vim"), Args: [][]byte{[]byte("vim"), []byte("x")}, Credentials: &record.Credentials{}},
		Parent:  &record.Process{Pid: 4, Name: []byte("bash"), Executable: []byte("/usr/bin/bash")},
		File:    &record.File{Path: []byte("/etc/passwd"), Inode: 7, Mode: 0o644},
	}
	e, leaf, vm := new(Event), sealed(record.ClassFileModify, record.OriginGuest), &VM{UUID: "u", Name: "n", State: "running"}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Load(leaf, p, vm); err != nil {
			b.Fatal(err)
		}
	}
}

// Command lines stand in memory of the event, side by side.
func TestCommandLines(t *testing.T) {
	ev := new(Event)
	leaf := &record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassProcessExec}}
	args := func(list ...string) *record.Process {
		p := &record.Process{Pid: 1}
		for _, a := range list {
			p.Args = append(p.Args, []byte(a))
		}
		return p
	}
	for range 3 {
		p := &record.Event{Process: args("sh", "-c", "cafe\u0301"), Parent: args("sshd:", strings.Repeat("x", 5000))}
		if err := ev.Load(leaf, p, nil); err != nil {
			t.Fatal(err)
		}
		line, _ := ev.Str(ProcessCommandLine)
		parent, _ := ev.Str(ParentCommandLine)
		if line != "sh -c caf\u00e9" || parent != "sshd: "+strings.Repeat("x", 5000) {
			t.Fatalf("lines %q, %q", line, parent)
		}
	}
}
