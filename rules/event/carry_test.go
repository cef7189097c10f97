package event

import (
	"testing"

	"github.com/provostd/provost/chain/record"
)

// fullEvent is an event of class c in which every part that its author may
// send is filled.
func fullEvent(c record.Class) *record.Event {
	x := []byte("x")
	process := &record.Process{Pid: 1, Tid: 1, Start: 1, Ppid: 1, Name: x, Executable: []byte("/x"), Filename: x, Args: [][]byte{x}, ArgsLength: 1,
		WorkingDirectory: []byte("/"), Cgroup: []byte("/x"), CgroupId: 1, Sha256: make([]byte, 32), ContainerId: "x", Script: x, ExecCount: 1,
		FilesystemPath: x, Device: 1, Inode: 1, Links: 1, Size: 1, Mtime: 1, Ctime: 1, MountNamespace: 1, Flags: 1<<32 - 1,
		Credentials: &record.Credentials{CapEffective: 1, CapPermitted: 1, CapInheritable: 1, CapBounding: 1, CapAmbient: 1}}
	file := &record.File{Path: []byte("/x.y"), Inode: 1, Device: 1, Mode: 1, ModeBefore: 1, FilesystemPath: []byte("/z"), How: "write", Operations: 1,
		Bytes: 1, Links: 1, Rdev: 1, Mtime: 1, Ctime: 1, CtimeBefore: 1, Atime: 1, Sha256: make([]byte, 32), LinkTarget: x, Flags: 1<<32 - 1}
	e := &record.Event{Reason: "x"}
	if c == record.ClassNetworkUndeclared { // the host's finding, without a process and a domain
		e.Network = &record.Network{Family: 4, Protocol: "tcp", SourceIp: make([]byte, 4), DestinationIp: make([]byte, 4), Direction: "egress",
			Name: x, Type: "stream", Number: 6, Path: x, Packets: 1, Bytes: 1, Flags: 1<<32 - 1, Backlog: 1, Cookie: 1}
		return e
	}
	if !c.FromGuest() {
		e.Vm = &record.VM{Detail: "x", Connection: "x", Source: "x", Hypervisor: &record.Hypervisor{Word: "x", Device: "x", Path: "x", Address: "x",
			OldValue: "x", NewValue: "x", Status: "x", Numbers: []string{"x=1"}, Side: "live", Learned: "sweep", Omitted: 1, Repeats: 1,
			Changes: []*record.ConfigChange{{Path: "/x"}, nil}, ClaimedBy: &record.Claim{User: "x"}}}
		if c == record.ClassVMImageDigest {
			e.Vm.Hypervisor.Image = &record.Image{Role: "disk", Sha256: make([]byte, 32)}
		}
		return e
	}
	e.Process, e.Parent, e.ResultKnown, e.Count, e.Until, e.Flags = process, process, true, 2, 2, 1<<32-1
	if setObject.Has(c) {
		e.File = file
	}
	switch c {
	case record.ClassProcessExit:
		e.Exit = &record.Exit{PeakMemory: 1}
	case record.ClassProcessCreds:
		e.CredentialsBefore = process.Credentials
	case record.ClassProcessNamespace:
		e.Namespaces = &record.Namespaces{Mount: 1, Pid: 1, Network: 1, Uts: 1, Ipc: 1, Cgroup: 1, Time: 1, User: 1, Changed: 1 << 17, Operation: "x"}
	case record.ClassProcessSignal, record.ClassProcessTrace:
		e.Object = process
	case record.ClassProcessChroot, record.ClassFileMount, record.ClassFileUnmount:
		e.Mount = &record.Mount{Operation: "x", Api: "x", Source: x, Type: x, SourcePath: x}
	case record.ClassFileRename, record.ClassFileLink:
		e.Target, e.Replaced = file, file
	case record.ClassFileXattr:
		file.Attribute = x
	case record.ClassFileAttributes:
		file.Attributes = 1 << 4
	case record.ClassAgentTamper:
		e.Object, e.Tamper = process, &record.Tamper{Kind: "x", Detail: "x", Hook: "x"}
	}
	switch {
	case setMemory.Has(c) || c == record.ClassProcessTrace:
		e.Memory = &record.Memory{Kind: "x", Address: 1, Total: 1, Name: x}
	case setKernel.Has(c) || c == record.ClassAgentTamper:
		e.Kernel = &record.Kernel{Operation: "x", Name: x, Id: 1, Size: 1, Value: x, Signature: "valid"}
	case setAuth.Has(c):
		e.Auth = &record.Auth{Operation: "x", Account: x, Terminal: x, Hostname: x, Address: []byte("::1"), MessageType: 1, Text: x, Executable: x, Command: x}
	}
	if setSocket.Has(c) {
		e.Network = &record.Network{Family: 4, Protocol: "tcp", SourceIp: make([]byte, 4), DestinationIp: make([]byte, 4), Direction: "egress",
			Name: x, Type: "stream", Number: 6, Path: x, Packets: 1, Bytes: 1, Flags: 1<<32 - 1, Backlog: 1, Cookie: 1}
	}
	if c == record.ClassNetworkListen { // of vsock
		e.Network.Family, e.Network.Protocol = 0, "vsock"
	}
	if setDNS.Has(c) {
		e.Dns = &record.DNS{Question: x, Addresses: [][]byte{make([]byte, 4)}, Names: [][]byte{x}}
	}
	return e
}

// fullPayload is the same for every kind of payload.
func fullPayload(c record.Class) record.Message {
	switch m := record.NewPayload(c).(type) {
	case *record.Event:
		return fullEvent(c)
	case *record.AgentState:
		return &record.AgentState{Reason: "x"}
	case *record.AgentStopped:
		return &record.AgentStopped{Reason: "x", Command: []byte{1}}
	case *record.AgentCommand:
		return &record.AgentCommand{Id: []byte{1}, Kind: "x", Reason: "x", Requester: "x"}
	case *record.AgentResult:
		return &record.AgentResult{Id: []byte{1}, Detail: "x"}
	case *record.Lost:
		return &record.Lost{Author: "x", Detail: "x", Counts: []*record.LostCount{{Class: 0x101}}}
	case *record.Outcome:
		return &record.Outcome{Policy: "x", Kind: "x", Result: "x"}
	case *record.Held:
		return &record.Held{Holds: []*record.Hold{{Policy: "x", Action: "x"}}, Cause: "x", Requester: "x"}
	case *record.Gap:
		return &record.Gap{Changes: []string{"x"}}
	case *record.Hooks:
		return &record.Hooks{Mode: "x", Kernel: "x", Hooks: []*record.Hook{{Class: 1}}}
	case *record.Enrolled:
		return &record.Enrolled{AgentVersion: "x", Key: make([]byte, 32)}
	case *record.Verdict:
		return &record.Verdict{Policy: "x", Severity: "x", Mode: "x", CauseClass: "x", Error: "x", Limited: "alert", LimitMax: 1,
			Approval: &record.VerdictApproval{Id: "x", Group: "x", State: "used"}}
	case *record.Approval:
		return &record.Approval{Statement: []byte(`{"id": "x", "group": "x", "other": []}`), Signers: []string{"x"}, Submitter: "x"}
	case *record.Revocation:
		return &record.Revocation{Statement: []byte(`{"id": "x", "group": "x"}`), Signers: []string{"x"}, Submitter: "x"}
	default:
		return m
	}
}

// Fields that an event carries are in the table as carried, and every class
// that the table names for a field can carry it.
func TestLoadAgreesWithTable(t *testing.T) {
	loaded := map[Field]bool{VMMetadata: true} // read by key
	for _, c := range Subjects() {
		e := new(Event)
		if err := e.Load(sealed(c, record.OriginGuest), fullPayload(c), &VM{UUID: "u", Name: "n", State: "s", Tags: []string{"t"}}); err != nil {
			t.Fatal(err)
		}
		for i := range Fields {
			f := &Fields[i]
			has := e.Has(f.Field)
			loaded[f.Field] = loaded[f.Field] || has
			if has && !f.Classes.Has(c) {
				t.Errorf("%s carries %s, which the table denies", c, f.Name)
			}
			if !has && f.Classes.Has(c) && !f.Optional {
				t.Errorf("%s lacks %s, which the table promises", c, f.Name)
			}
		}
	}
	for i := range Fields {
		if !loaded[Fields[i].Field] {
			t.Errorf("no event has %s", Fields[i].Name)
		}
	}
}

// What the parts of each class say, and what they say when a part is odd.
func TestLoadParts(t *testing.T) {
	agent := &record.Process{Pid: 7, Start: 8, Name: []byte("provost-agent")}
	for name, c := range map[string]struct {
		class   record.Class
		payload record.Message
		text    map[Field]string
		nums    map[Field]int64 // -1: missing
		bools   []Field
		lists   map[Field][]string
	}{
		"credentials": {record.ClassProcessCreds,
			&record.Event{Process: &record.Process{Credentials: &record.Credentials{Uid: 1000, Euid: 0, CapEffective: 1<<21 | 1<<50}, Flags: record.ProcessSetuid | record.ProcessDetached},
				CredentialsBefore: &record.Credentials{Uid: 1000, Euid: 1000, CapPermitted: 1}},
			nil, map[Field]int64{UserEffectiveID: 0, BeforeEffectiveID: 1000, UserSavedID: 0, ProcessInode: -1}, []Field{ProcessSetuid, ProcessInMemfd},
			map[Field][]string{CapabilitiesEffective: {"CAP_SYS_ADMIN", "bit_50"}, CapabilitiesPermittedBefore: {"CAP_CHOWN"}, CapabilitiesAmbient: nil}},
		"signal": {record.ClassProcessSignal, &record.Event{Object: agent, Reason: "SIGKILL"},
			map[Field]string{ObjectEntityID: "u:7:8", ObjectName: "provost-agent", EventReason: "SIGKILL", ObjectExecutable: "(missing)"}, map[Field]int64{ObjectPID: 7}, nil, nil},
		"namespaces": {record.ClassProcessNamespace, &record.Event{Namespaces: &record.Namespaces{User: 5, Changed: 1<<28 | 1<<17, Operation: "unshare"}},
			map[Field]string{NamespaceOperation: "unshare"}, map[Field]int64{NamespaceUser: 5, NamespaceMount: -1}, nil, map[Field][]string{NamespaceChanged: {"mount", "user"}}},
		"tally": {record.ClassAgentAggregating, &record.Event{Process: &record.Process{Pid: 3}, Count: 1 << 40, Until: 9, Flags: record.EventAggregated},
			map[Field]string{EventType: "agent.aggregating"}, map[Field]int64{EventCount: 1 << 40, EventUntil: 9, ProcessPID: 3}, []Field{EventAggregated}, nil},
		"attributes": {record.ClassFileAttributes, &record.Event{File: &record.File{Path: []byte("/etc/passwd"), Attributes: 0x30}},
			map[Field]string{FilePath: "/etc/passwd"}, nil, nil, map[Field][]string{FileAttributes: {"immutable", "append"}}},
		"attribute removed": {record.ClassFileXattr, &record.Event{File: &record.File{Attribute: []byte("user.x")}},
			map[Field]string{FileAttribute: "user.x"}, map[Field]int64{FileAttributeSize: 0}, nil, nil},
		"times":  {record.ClassFileUtime, &record.Event{File: &record.File{Mtime: -5, Ctime: 7}}, nil, map[Field]int64{FileMtime: -1, FileCtime: 7, FileAtime: -1}, nil, nil},
		"digest": {record.ClassFileDigest, &record.Event{File: &record.File{Sha256: []byte{1, 2}}}, map[Field]string{FileHashSHA256: "(missing)"}, nil, nil, nil},
		"mount": {record.ClassFileMount, &record.Event{Mount: &record.Mount{Operation: "bind", Source: []byte("/a"), SourcePath: []byte("/a/b")}, File: &record.File{Path: []byte("/mnt")}},
			map[Field]string{MountOperation: "bind", MountSource: "/a", MountSourcePath: "/a/b", FilePath: "/mnt"}, map[Field]int64{MountFlags: 0}, nil, nil},
		"unix": {record.ClassNetworkUnix, &record.Event{Network: &record.Network{Protocol: "unix", Path: []byte("\x00a\x00b"), SourcePort: 5}},
			map[Field]string{NetworkPath: "\x00a\x00b", NetworkTransport: "(missing)", NetworkProtocol: "unix"}, map[Field]int64{SourceCID: -1, SourcePort: -1}, nil, nil},
		"vsock": {record.ClassNetworkConnect, &record.Event{Network: &record.Network{Protocol: "vsock", SourceCid: 3, DestinationCid: 2, DestinationPort: 1024}},
			map[Field]string{NetworkType: "(missing)", DestinationIP: "(missing)"}, map[Field]int64{SourceCID: 3, DestinationCID: 2, DestinationPort: 1024}, nil, nil},
		"flow": {record.ClassNetworkFlow, &record.Event{Network: &record.Network{Family: 6, Protocol: "udp", DestinationIp: make([]byte, 16), Packets: 5, Bytes: 50, Name: []byte("a.example")}},
			map[Field]string{DestinationDomain: "a.example", DestinationIP: "::"}, map[Field]int64{NetworkPackets: 5, NetworkBytes: 50}, nil, nil},
		"question": {record.ClassDNSQuery, &record.Event{Dns: &record.DNS{Question: []byte("a.example"), Type: 28, Addresses: [][]byte{{1, 2, 3, 4}}}},
			map[Field]string{DNSQuestionName: "a.example", DNSQuestionType: "AAAA", DNSResponseCode: "(missing)"}, nil, nil, map[Field][]string{DNSResolvedIP: nil}},
		"answer": {record.ClassDNSAnswer, &record.Event{Dns: &record.DNS{Type: 999, Code: 3, Addresses: [][]byte{{1, 2, 3, 4}, {1}, make([]byte, 16)}, Names: [][]byte{[]byte("b.example")}}},
			map[Field]string{DNSQuestionType: "TYPE999", DNSResponseCode: "NXDOMAIN"}, nil, nil, map[Field][]string{DNSResolvedIP: {"1.2.3.4", "::"}, DNSAliases: {"b.example"}}},
		"memory": {record.ClassMemoryProtect, &record.Event{Memory: &record.Memory{Kind: "protect", Length: 4096, Protection: 5, ProtectionBefore: 3, Anonymous: true}},
			map[Field]string{MemoryKind: "protect"}, map[Field]int64{MemorySize: 4096}, []Field{MemoryAnonymous, MemoryReadable, MemoryExecutable, MemoryBeforeReadable, MemoryBeforeWritable}, nil},
		"module": {record.ClassKernelModuleLoad, &record.Event{Kernel: &record.Kernel{Operation: "finit_module", Name: []byte("evil")}, File: &record.File{Path: []byte("/tmp/evil.ko")}},
			map[Field]string{ModuleName: "evil", ModulePath: "/tmp/evil.ko", KernelOperation: "finit_module"}, nil, nil, nil},
		"answer that is cut": {record.ClassDNSAnswer, &record.Event{Dns: &record.DNS{Truncated: true}}, nil, nil, []Field{DNSTruncated}, nil},
		"parameter": {record.ClassKernelParamChange, &record.Event{Kernel: &record.Kernel{Name: []byte("kernel.ftrace_enabled"), Value: []byte("0"), Refused: true}, Flags: record.EventRefused},
			map[Field]string{KernelName: "kernel.ftrace_enabled", KernelValue: "0", ModuleName: "(missing)"}, nil, []Field{KernelRefused, EventRefused}, nil},
		"login": {record.ClassAuthLogin, &record.Event{Process: &record.Process{Credentials: &record.Credentials{}}, Auth: &record.Auth{Account: []byte("mallory"), Address: []byte("192.0.2.7"), SessionId: noLogin}},
			map[Field]string{UserName: "mallory", EventOutcome: "failure", SourceIP: "192.0.2.7"}, map[Field]int64{AuthSessionID: -1, UserID: 0}, nil, nil},
		"login without a name": {record.ClassAuthLogin, &record.Event{Process: &record.Process{Credentials: &record.Credentials{}}, Auth: &record.Auth{Success: true, Address: []byte("host:1"), SessionId: 4}},
			map[Field]string{UserName: "(missing)", EventOutcome: "success", SourceIP: "(missing)", AuthAddress: "host:1"}, map[Field]int64{AuthSessionID: 4}, nil, nil},
		"tamper": {record.ClassAgentTamper, &record.Event{Object: agent, Tamper: &record.Tamper{Kind: "signal", Refused: true}},
			map[Field]string{TamperKind: "signal", ObjectName: "provost-agent"}, nil, []Field{TamperRefused}, nil},
		"stopped": {record.ClassAgentStopped, &record.AgentStopped{Authorised: true, Reason: "upgrade", Command: []byte{0xab}},
			map[Field]string{CommandID: "ab", EventReason: "upgrade"}, nil, []Field{AgentAuthorised}, nil},
		"command": {record.ClassAgentCommand, &record.AgentCommand{Id: []byte{1}, Kind: "stop", Requester: "root", Session: 9},
			map[Field]string{CommandID: "01", CommandKind: "stop", CommandRequester: "root"}, map[Field]int64{AgentSession: 9, AgentCount: -1}, nil, nil},
		"result": {record.ClassAgentResult, &record.AgentResult{Id: make([]byte, 65), Status: 2, Detail: "no"},
			map[Field]string{CommandID: "(missing)", EventReason: "no"}, map[Field]int64{CommandStatus: 2}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := new(Event)
			if err := e.Load(sealed(c.class, record.OriginGuest), c.payload, &VM{UUID: "u"}); err != nil {
				t.Fatal(err)
			}
			for f, want := range c.text {
				if got := text(t, e, f); got != want {
					t.Errorf("%s = %q, want %q", f, got, want)
				}
			}
			for f, want := range c.nums {
				if n, ok := e.Num(f); ok != (want >= 0) || ok && int64(n) != want {
					t.Errorf("%s = %d, %v, want %d", f, n, ok, want)
				}
			}
			said := make(map[Field]bool)
			for _, f := range c.bools {
				said[f] = true
			}
			for f := endNumbers; f < endBools; f++ {
				if e.Bool(f) != said[f] {
					t.Errorf("%s = %v", f, e.Bool(f))
				}
			}
			for f, want := range c.lists {
				if e.Has(f) != (len(want) > 0) {
					t.Errorf("%s is present: %v", f, e.Has(f))
				}
				for range 2 { // made once, then kept
					if got := e.Strings(f); len(got) != len(want) {
						t.Errorf("%s = %q, want %q", f, got, want)
					} else {
						for i := range got {
							if got[i] != want[i] {
								t.Errorf("%s = %q, want %q", f, got, want)
							}
						}
					}
				}
			}
		})
	}
}

// Sets hold classes on both sides of the 64th.
func TestClassSet(t *testing.T) {
	first, last := subjects[0], subjects[len(subjects)-1]
	if len(subjects) <= 64 {
		t.Fatal("the second half of the set is not tested")
	}
	a, b := SetOf(first), SetOf(last)
	both := a.Union(b)
	switch {
	case !both.Has(first) || !both.Has(last) || both.Has(record.ClassFileModify):
		t.Error("Union or Has is wrong")
	case a.Intersects(b) || !both.Intersects(b) || !both.Intersects(a):
		t.Error("Intersects is wrong")
	case both.Minus(b) != a || !a.Minus(both).Empty() || both.Empty():
		t.Error("Minus or Empty is wrong")
	case len(setAll.Classes()) != len(subjects) || len(both.Classes()) != 2:
		t.Error("Classes is wrong")
	case !SetOf(record.ClassTick).Empty() || setAll.Has(record.ClassTick):
		t.Error("a class that is no subject is in a set")
	}
}

// Whether a module is signed is missing where the kernel does not say.
func TestLoadSigned(t *testing.T) {
	for signature, want := range map[string]struct{ has, signed bool }{"": {}, "none": {has: true}, "valid": {true, true}} {
		e := new(Event)
		if err := e.Load(sealed(record.ClassKernelModuleLoad, record.OriginGuest), &record.Event{Kernel: &record.Kernel{Signature: signature}}, &VM{}); err != nil {
			t.Fatal(err)
		}
		if signed, ok := e.Bool(ModuleSigned), e.Has(ModuleSigned); ok != want.has || signed != want.signed {
			t.Errorf("signature %q: signed %v, told %v", signature, signed, ok)
		}
	}
}
