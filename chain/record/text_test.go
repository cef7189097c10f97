package record

import (
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestPrintable holds that no byte of a guest reaches a terminal as a command.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/passwd":  "/etc/passwd",
		"Zürich 東京":    "Zürich 東京",
		"\x1b[2Jx":     `"\x1b[2Jx"`,
		"a\nb":         `"a\nb"`,
		"\xff":         `"\xff"`,
		"\u202etxt":    `"\u202etxt"`,
		"\u009b31m":    `"\u009b31m"`,
		"":             "",
		"\u200bhidden": `"\u200bhidden"`,
	} {
		if got := Printable([]byte(in)); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// TestWord holds that no name looks like a part of the line around it.
func TestWord(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/passwd":            "/etc/passwd",
		"Zürich":                 "Zürich",
		"":                       "",
		"/x by /usr/bin/dpkg(1)": `"/x by /usr/bin/dpkg(1)"`,
		"a]":                     `"a]"`,
		"<":                      `"<"`,
		`"`:                      `"\""`,
		"a\u00a0b":               "\"a\\u00a0b\"",
		"x\x1b[2J":               `"x\x1b[2J"`,
		"/bin/[":                 `"/bin/["`,
		"\xff y":                 `"\xff y"`,
	} {
		if got := Word([]byte(in)); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
	evil := Text(ClassProcessExec, &Event{Process: &Process{Pid: 9, Executable: []byte("/x < /sbin/init(1)"), Args: [][]byte{[]byte("a] < /sbin/init(1)"), nil}}})
	if want := `"/x < /sbin/init(1)"(9) ["a] < /sbin/init(1)" ""]`; evil != want {
		t.Errorf("got %s\nwant %s", evil, want)
	}
}

// fill sets every field of m, and of the messages in it, to text that would
// drive a terminal.
func fill(m protoreflect.Message, evil string) {
	value := func(f protoreflect.FieldDescriptor, fresh func() protoreflect.Value) protoreflect.Value {
		switch f.Kind() {
		case protoreflect.MessageKind:
			v := fresh()
			fill(v.Message(), evil)
			return v
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte(evil))
		case protoreflect.StringKind:
			return protoreflect.ValueOfString(evil)
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(1)
		case protoreflect.Uint32Kind:
			return protoreflect.ValueOfUint32(1<<32 - 1)
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(1<<64 - 1)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(-1)
		}
		return protoreflect.ValueOfInt64(-1)
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
		case f.IsList():
			list := m.Mutable(f).List()
			list.Append(value(f, list.NewElement))
		default:
			m.Set(f, value(f, func() protoreflect.Value { return m.NewField(f) }))
		}
	}
}

// TestTextIsOneLine holds the same of every text of every class that a guest
// writes, whatever fields it fills.
func TestTextIsOneLine(t *testing.T) {
	for _, evil := range []string{"x\x1b]0;y\x07\nz", "\u202eevil", "\x00abstract", "\xff\xfe"} {
		for _, c := range Classes() {
			if !c.FromGuest() && c != ClassAgentRefused && c != ClassAgentResult && c != ClassAgentCommand {
				continue
			}
			m := NewPayload(c)
			fill(m.(interface{ ProtoReflect() protoreflect.Message }).ProtoReflect(), evil)
			texts := []string{Text(c, m)}
			if e, ok := m.(*Event); ok { // the ways that numbers choose
				e.CredentialsBefore = nil
				texts = append(texts, Text(c, e))
				e.Target = nil
				e.Network.Family, e.Network.Type, e.Network.Protocol = 4, "raw", evil
				texts = append(texts, Text(c, e))
				e.File.LinkTarget, e.Auth.Address = nil, nil
				e.Network.Protocol, e.Network.Path = "vsock", nil
				texts = append(texts, Text(c, e))
			}
			for _, s := range texts {
				for _, r := range s {
					if r == utf8.RuneError || !unicode.IsPrint(r) {
						t.Fatalf("text of %s holds %q: %q", c, r, s)
					}
				}
			}
		}
	}
}

// TestText holds what people read of each kind of part.
func TestText(t *testing.T) {
	sh := &Process{Pid: 9, Executable: []byte("/bin/sh")}
	for want, c := range map[string]struct {
		class Class
		m     Message
	}{
		"/bin/sh(9) [sh -c id] < /sbin/init(1)":      {ClassProcessExec, &Event{Process: &Process{Pid: 9, Executable: sh.Executable, Args: [][]byte{[]byte("sh"), []byte("-c"), []byte("id")}}, Parent: &Process{Pid: 1, Executable: []byte("/sbin/init")}}},
		"/bin/sh(9) exit 0 signal 9 peak 4096 bytes": {ClassProcessExit, &Event{Process: sh, Exit: &Exit{Signal: 9, PeakMemory: 4096}}},
		"by /bin/sh(9) uid 5 euid 5 gid 0 egid 0 capabilities 0x0 -> uid 5 euid 0 gid 0 egid 0 capabilities 0x1": {ClassProcessCreds,
			&Event{Process: &Process{Pid: 9, Executable: sh.Executable, Credentials: &Credentials{Uid: 5, CapEffective: 1}}, CredentialsBefore: &Credentials{Uid: 5, Euid: 5}}},
		"of provost-agent(7) by /bin/sh(9) SIGKILL (refused)":  {ClassProcessSignal, &Event{Process: sh, Object: &Process{Pid: 7, Name: []byte("provost-agent")}, Reason: "SIGKILL", Flags: EventRefused}},
		"unshare namespaces 0x20000 by /bin/sh(9)":             {ClassProcessNamespace, &Event{Process: sh, Namespaces: &Namespaces{Operation: "unshare", Changed: 1 << 17}}},
		"by /bin/sh(9) sha256 ab01":                            {ClassProcessDigest, &Event{Process: &Process{Pid: 9, Executable: sh.Executable, Sha256: []byte{0xab, 1}}}},
		"/a <-> /b by /bin/sh(9)":                              {ClassFileRename, &Event{Process: sh, File: &File{Path: []byte("/a"), Flags: FileExchanged}, Target: &File{Path: []byte("/b")}}},
		"/l -> ../t by /bin/sh(9)":                             {ClassFileLink, &Event{Process: sh, File: &File{Path: []byte("/l"), LinkTarget: []byte("../t")}}},
		"/x 0644 -> 4755 by /bin/sh(9)":                        {ClassFileChmod, &Event{Process: sh, File: &File{Path: []byte("/x"), Mode: 0o104755, ModeBefore: 0o100644}}},
		"/x 3 writes, 30 bytes written, size 40 by /bin/sh(9)": {ClassFileClose, &Event{Process: sh, File: &File{Path: []byte("/x"), Operations: 3, Bytes: 30, Size: 40}}},
		"/x user.a = 2 bytes by /bin/sh(9)":                    {ClassFileXattr, &Event{Process: sh, File: &File{Path: []byte("/x"), Attribute: []byte("user.a"), AttributeSize: 2}}},
		"/x attributes 0x10 by /bin/sh(9)":                     {ClassFileAttributes, &Event{Process: sh, File: &File{Path: []byte("/x"), Attributes: 0x10}}},
		"/x sha256 01 by /bin/sh(9)":                           {ClassFileDigest, &Event{Process: sh, File: &File{Path: []byte("/x"), Sha256: []byte{1}}}},
		"bind /src at /mnt by /bin/sh(9)":                      {ClassFileMount, &Event{Process: sh, Mount: &Mount{Operation: "bind", SourcePath: []byte("/src")}, File: &File{Path: []byte("/mnt")}}},
		"tcp on 0.0.0.0:22 by /bin/sh(9)":                      {ClassNetworkBind, &Event{Process: sh, Network: &Network{Family: 4, Protocol: "tcp", SourceIp: make([]byte, 4), SourcePort: 22}}},
		"udp 10.0.0.1:5 -> 192.0.2.7:53 (a.example) 2 packets, 9 bytes by /bin/sh(9)": {ClassNetworkFlow, &Event{Process: sh, Network: &Network{Family: 4, Protocol: "udp", SourceIp: []byte{10, 0, 0, 1}, SourcePort: 5,
			DestinationIp: []byte{192, 0, 2, 7}, DestinationPort: 53, Name: []byte("a.example"), Packets: 2, Bytes: 9}}},
		`unix "\x00a" by /bin/sh(9)`:                              {ClassNetworkUnix, &Event{Process: sh, Network: &Network{Protocol: "unix", Path: []byte("\x00a")}}},
		"vsock 3:1 -> 2:1024 by /bin/sh(9)":                       {ClassNetworkConnect, &Event{Process: sh, Network: &Network{Protocol: "vsock", SourceCid: 3, SourcePort: 1, DestinationCid: 2, DestinationPort: 1024}}},
		"a.example type 1 by /bin/sh(9)":                          {ClassDNSQuery, &Event{Process: sh, Dns: &DNS{Question: []byte("a.example"), Type: 1}}},
		"a.example type 1 code 0 b.example 1.2.3.4 by /bin/sh(9)": {ClassDNSAnswer, &Event{Process: sh, Dns: &DNS{Question: []byte("a.example"), Type: 1, Names: [][]byte{[]byte("b.example")}, Addresses: [][]byte{{1, 2, 3, 4}}}}},
		"protect 4096 bytes at 0x1000 rw- -> r-x anonymous by /bin/sh(9)": {ClassMemoryProtect,
			&Event{Process: sh, Memory: &Memory{Kind: "protect", Address: 0x1000, Length: 4096, Protection: 5, ProtectionBefore: 3, Anonymous: true}}},
		"finit_module evil size 12 /tmp/evil.ko by /bin/sh(9)":        {ClassKernelModuleLoad, &Event{Process: sh, Kernel: &Kernel{Operation: "finit_module", Name: []byte("evil"), Size: 12}, File: &File{Path: []byte("/tmp/evil.ko")}}},
		"write kernel.ftrace_enabled = 0 refused by /bin/sh(9)":       {ClassKernelParamChange, &Event{Process: sh, Kernel: &Kernel{Operation: "write", Name: []byte("kernel.ftrace_enabled"), Value: []byte("0"), Refused: true}}},
		"login of mallory failed from 192.0.2.7 on ssh by /bin/sh(9)": {ClassAuthLogin, &Event{Process: sh, Auth: &Auth{Operation: "login", Account: []byte("mallory"), Address: []byte("192.0.2.7"), Terminal: []byte("ssh")}}},
		"sudo of bob succeeded command id by /bin/sh(9)":              {ClassAuthSudo, &Event{Process: sh, Auth: &Auth{Operation: "sudo", Account: []byte("bob"), Success: true, Command: []byte("id")}}},
		"signal refused of provost-agent(7) by /bin/sh(9)":            {ClassAgentTamper, &Event{Process: sh, Object: &Process{Pid: 7, Name: []byte("provost-agent")}, Tamper: &Tamper{Kind: "signal", Refused: true}}},
		"by /bin/sh(9) file.create (70000 times)":                     {ClassAgentAggregating, &Event{Process: sh, Reason: "file.create", Count: 70000}},
		"guest agent stopped by command 0a of the host: upgrade":      {ClassAgentStopped, &AgentStopped{Authorised: true, Command: []byte{10}, Reason: "upgrade"}},
		"5 payloads of kvm1/vm/x entries 3 to 9 given to tenant \"a b\" (token 1) at 192.0.2.7 by GET /v1/query": {ClassAccessDisclosed,
			&Disclosed{Count: 5, Origin: "kvm1/vm/x", First: 3, Last: 9, Role: "tenant", Name: "a b", How: "token 1", Address: "192.0.2.7", What: "GET /v1/query"}},
		"payloads of all logs that are seen from entry 4 on given to operator root (uid 0, pid 9) by GET /v1/tail": {ClassAccessDisclosed,
			&Disclosed{First: 4, Last: 1<<64 - 1, Role: "operator", Name: "root", How: "uid 0, pid 9", What: "GET /v1/tail"}},
		"guest agent stopped: SIGTERM":                         {ClassAgentStopped, &AgentStopped{Reason: "SIGTERM"}},
		"command stop 0a for session f asked by root: upgrade": {ClassAgentCommand, &AgentCommand{Id: []byte{10}, Kind: "stop", Session: 15, Requester: "root", Reason: "upgrade"}},
		"command 0a in session f: done":                        {ClassAgentResult, &AgentResult{Id: []byte{10}, Session: 15}},
		"command 0a in session f: status 3, expired":           {ClassAgentResult, &AgentResult{Id: []byte{10}, Session: 15, Status: 3, Detail: "expired"}},
	} {
		if got := Text(c.class, c.m); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.class, got, want)
		}
	}
}
