package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// chooser draws small numbers, from a random source or from fuzz input.
type chooser interface{ n(limit int) int }

type randChooser struct{ *rand.Rand }

func (r randChooser) n(limit int) int { return r.IntN(limit) }

// byteChooser reads fuzz input; at its end it always answers 0, which every
// generator below takes as "stop".
type byteChooser struct{ data []byte }

func (b *byteChooser) n(limit int) int {
	if len(b.data) == 0 {
		return 0
	}
	v := int(b.data[0])
	b.data = b.data[1:]
	return v % limit
}

// The pools hold values that expressions and events share, so that matches
// happen, and awkward ones.
var (
	poolPaths = []string{"/etc/passwd", "/etc", "/etcetera/x", "/tmp/../etc/shadow", "/usr/bin/bash", "/bin/sh", "/tmp/x.sh",
		"/etc/cafe\u0301", "/etc/caf\u00e9", "/data/\xff\xfe", "relative/name", "/", "/tmp//a", "/Etc/Passwd", "/x/İ"}
	poolNames = []string{"bash", "sh", "nginx", "xmrig", "XMRig", "ſtrange", "\xffname", "a b", ""}
	poolArgs  = []string{"-c", "id", "--help", "-C", "\xc3\x28", "x", "${y}", "%{z}"}
	poolNums  = []uint64{0, 1, 2, 22, 443, 1000, 65535, 1 << 31, 1<<53 + 1, 1<<64 - 1}
	poolAddrs = [][]byte{{192, 0, 2, 7}, {10, 0, 0, 1}, {127, 0, 0, 1}, {224, 0, 0, 1}, {255, 255, 255, 255},
		{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1},
		{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, {1, 2, 3}}
	genClasses = []record.Class{record.ClassProcessExec, record.ClassFileModify, record.ClassFileRename,
		record.ClassNetworkConnect, record.ClassProcessExit, record.ClassAgentDropped, record.ClassVMPause,
		record.ClassProcessCreds, record.ClassMemoryProtect, record.ClassAuthLogin, record.ClassDNSAnswer, record.ClassAgentTamper}
)

func pick[T any](c chooser, list []T) T { return list[c.n(len(list))] }

func genProcess(c chooser) *record.Process {
	p := &record.Process{Pid: uint32(pick(c, poolNums)), Start: pick(c, poolNums), Name: []byte(pick(c, poolNames)),
		Executable: []byte(pick(c, poolPaths)), Filename: []byte(pick(c, poolPaths)), LoginUid: uint32(c.n(3)) - 1}
	for range c.n(4) {
		p.Args = append(p.Args, []byte(pick(c, poolArgs)))
	}
	if c.n(3) > 0 {
		p.Credentials = &record.Credentials{Uid: uint32(c.n(3)) * 500, Euid: uint32(c.n(2))}
	}
	if c.n(3) == 0 {
		p.Sha256 = make([]byte, 32)
	}
	return p
}

// genEvent makes an event and knocks some of its fields out.
func genEvent(c chooser) *event.Event {
	class := pick(c, genClasses)
	leaf := &record.Leaf{Origin: record.Origin(1 + c.n(2)), Index: pick(c, poolNums), Wall: 1_700_000_000_000_000_000, Header: record.Header{Class: class, Sequence: 7}}
	vm := &event.VM{UUID: "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11", Name: pick(c, []string{"web-1", "db", ""}), State: pick(c, []string{"running", "paused", ""})}
	if c.n(2) == 0 {
		vm.Tags, vm.Metadata = []string{"prod", "web"}, map[string]string{"zone": "restricted"}
	}
	var payload record.Message
	if class == record.ClassAgentDropped {
		payload = &record.Lost{Author: "guest", Counts: []*record.LostCount{{Class: 0x101, Reason: 1, Count: pick(c, poolNums)}, {Count: pick(c, poolNums)}}}
	} else {
		e := &record.Event{Reason: pick(c, poolNames), ResultKnown: c.n(2) == 0, Result: uint32(c.n(3))}
		if c.n(5) > 0 {
			e.Process = genProcess(c)
		}
		if c.n(3) > 0 {
			e.Parent = genProcess(c)
		}
		for range c.n(4) {
			e.Ancestors = append(e.Ancestors, genProcess(c))
		}
		if class>>8 == 2 {
			e.File = &record.File{Path: []byte(pick(c, poolPaths)), Inode: pick(c, poolNums), Mode: uint32(c.n(2)) * 0o755, Size: pick(c, poolNums), How: "write"}
			if class == record.ClassFileRename {
				e.Target = &record.File{Path: []byte(pick(c, poolPaths))}
			}
		}
		if class>>8 == 3 {
			e.Network = &record.Network{Family: pick(c, []uint32{4, 6, 0}), Protocol: "tcp", DestinationIp: pick(c, poolAddrs), SourceIp: pick(c, poolAddrs),
				DestinationPort: uint32(pick(c, poolNums)), Direction: pick(c, []string{"egress", "ingress", ""})}
		}
		if class == record.ClassProcessExit {
			e.Exit = &record.Exit{Code: uint32(c.n(3)), Signal: uint32(c.n(10))}
		}
		genParts(c, class, e)
		if class == record.ClassVMPause {
			e.Vm = &record.VM{Detail: "by user", LibvirtEvent: int32(c.n(3)) - 1}
		}
		payload = e
	}
	ev := new(event.Event)
	if err := ev.Load(leaf, payload, vm); err != nil {
		panic(err)
	}
	for range c.n(6) {
		ev.Clear(event.Fields[c.n(len(event.Fields))].Field)
	}
	return ev
}

// genParts fills the parts that few classes carry.
func genParts(c chooser, class record.Class, e *record.Event) {
	switch class {
	case record.ClassProcessCreds:
		e.CredentialsBefore = &record.Credentials{Uid: uint32(c.n(2)), CapEffective: pick(c, poolNums)}
	case record.ClassMemoryProtect:
		e.Memory = &record.Memory{Kind: "protect", Length: pick(c, poolNums), Protection: uint32(c.n(8)), ProtectionBefore: uint32(c.n(8)), Anonymous: c.n(2) == 0}
	case record.ClassAuthLogin:
		e.Auth = &record.Auth{Operation: "login", Account: []byte(pick(c, poolNames)), Address: []byte(pick(c, []string{"10.0.0.1", "::1", "x"})), Success: c.n(2) == 0}
	case record.ClassDNSAnswer:
		e.Dns = &record.DNS{Question: []byte(pick(c, poolNames)), Code: uint32(c.n(20)), Addresses: [][]byte{pick(c, poolAddrs)}, Names: [][]byte{[]byte(pick(c, poolNames))}}
	case record.ClassAgentTamper:
		e.Object, e.Tamper = genProcess(c), &record.Tamper{Kind: "signal", Refused: c.n(2) == 0}
	}
}

// generator writes expressions that the checker mostly accepts.
type generator struct {
	c     chooser
	depth int
	vars  []string // loop variables in scope: "a" (ancestor), "s" (string)
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case (r == '$' || r == '%'):
			b.WriteRune(r)
			b.WriteRune(r)
		case r == '\ufffd':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return strings.NewReplacer("$${", "$${", "$$", "$", "%%{", "%%{", "%%", "%").Replace(b.String())
}

var (
	genTexts = []string{"file.path", "file.target_path", "file.name", "file.extension", "file.directory", "process.executable", "process.name", "process.command_line",
		"process.entity_id", "process.parent.executable", "process.parent.name", "process.hash.sha256", "user.name", "event.reason", "event.type", "vm.name", "vm.metadata.zone",
		"vm.metadata[\"nosuch\"]", "network.direction", "destination.ip", "lost.author", "event.time"}
	genNums  = []string{"process.pid", "process.parent.pid", "user.id", "user.effective.id", "file.inode", "file.size", "destination.port", "event.index", "event.result", "lost.count", "process.exit_code"}
	genBools = []string{"file.mode_executable", "process.args_truncated", "process.core_dumped", "file.replaced"}
	genLists = []string{"process.args", "vm.tags", "process.ancestors[*].name", "process.ancestors[*].executable", "lost.reasons", "list.strings", "list.paths", "local.names"}
)

func (g *generator) literal() string {
	return quote(pick(g.c, [][]string{poolPaths, poolNames, poolArgs})[g.c.n(8)%8])
}

func (g *generator) text() string {
	if g.depth <= 0 {
		return pick(g.c, genTexts)
	}
	g.depth--
	switch g.c.n(12) {
	case 0, 1, 2, 3:
		return pick(g.c, genTexts)
	case 4:
		return g.literal()
	case 5:
		return pick(g.c, []string{"lower", "upper", "trimspace", "basename", "dirname", "extension"}) + "(" + g.text() + ")"
	case 6:
		return fmt.Sprintf("argv(%d)", g.c.n(5))
	case 7:
		return "(" + g.cond() + " ? " + g.text() + " : " + g.text() + ")"
	case 8:
		return "\"${" + g.text() + "}-x\""
	case 9:
		if len(g.vars) > 0 {
			if v := pick(g.c, g.vars); strings.HasPrefix(v, "a") {
				return v + "." + pick(g.c, []string{"name", "executable"})
			} else {
				return v
			}
		}
		return "local.word"
	}
	return pick(g.c, genTexts)
}

func (g *generator) num() string {
	switch g.c.n(7) {
	case 0, 1, 2:
		return pick(g.c, genNums)
	case 3:
		return pick(g.c, []string{"0", "1", "443", "1.5", "-1", "1e30", "9007199254740993", "18446744073709551615"})
	case 4:
		return "length(" + g.text() + ")"
	case 5:
		return "length(" + pick(g.c, genLists) + ")"
	}
	if g.c.n(2) == 0 {
		return "entropy(" + g.text() + ")"
	}
	return "(" + pick(g.c, genNums) + " + 1)"
}

func (g *generator) cond() string {
	if g.depth <= 0 {
		return pick(g.c, genBools)
	}
	g.depth--
	switch g.c.n(24) {
	case 0:
		return pick(g.c, genBools)
	case 1, 2, 3:
		return "(" + g.cond() + " && " + g.cond() + ")"
	case 4, 5, 6:
		return "(" + g.cond() + " || " + g.cond() + ")"
	case 7:
		return "!" + "(" + g.cond() + ")"
	case 8:
		return g.text() + pick(g.c, []string{" == ", " != "}) + g.text()
	case 9:
		return g.num() + pick(g.c, []string{" == ", " != "}) + g.num()
	case 10, 11:
		return g.num() + pick(g.c, []string{" < ", " <= ", " > ", " >= "}) + g.num()
	case 12, 13:
		return pick(g.c, []string{"startswith", "endswith", "strcontains", "equals", "startswith_i", "endswith_i", "strcontains_i", "equals_i"}) + "(" + g.text() + ", " + g.text() + ")"
	case 14:
		return pick(g.c, []string{"matches", "matches_i"}) + "(" + g.text() + ", " + pick(g.c, []string{`"^/etc"`, `"s+h"`, `"[a-c]"`, `"."`}) + ")"
	case 15:
		return pick(g.c, []string{"glob", "glob_i"}) + "(" + g.text() + ", " + pick(g.c, []string{`"/etc/*"`, `"*sh"`, `"?a[!a-c]*"`, `"*"`}) + ")"
	case 16:
		return "under(" + g.text() + ", " + pick(g.c, []string{`"/etc"`, `"/"`, `"/tmp/"`, "process.working_directory"}) + ")"
	case 17:
		return "contains(" + pick(g.c, genLists) + ", " + g.text() + ")"
	case 18:
		return pick(g.c, []string{"contains([22, 443, 1.5], destination.port)", "contains_i(list.strings, process.name)", "contains_i(process.args, \"-C\")",
			"under_any(file.path, list.paths)", "in_cidr(destination.ip, list.nets)", "in_cidr(source.ip, \"10.0.0.0/8\")", "is_private(destination.ip)",
			"is_external(destination.ip)", "port_in(destination.port, [22, \"400-500\"])", "has(file.target_path)", "has(process.args)", "has(vm.metadata.zone)",
			"has_arg(\"-c\")", "macro.etc", "macro.shell", "has(process.parent.pid)"})
	case 19:
		return "intersects(" + pick(g.c, genLists) + ", " + pick(g.c, genLists) + ")"
	case 20:
		return "(" + g.cond() + " ? " + g.cond() + " : " + g.cond() + ")"
	case 21:
		return g.text() + pick(g.c, []string{" == null", " != null"})
	case 22:
		return g.loop()
	}
	return pick(g.c, []string{"anytrue", "alltrue"}) + "([" + g.cond() + ", " + g.cond() + "])"
}

func (g *generator) loop() string {
	name := fmt.Sprintf("a%d", len(g.vars))
	coll := "process.ancestors"
	if g.c.n(3) == 0 {
		name, coll = fmt.Sprintf("s%d", len(g.vars)), pick(g.c, []string{"process.args", "vm.tags", "list.strings", "[\"a\", \"sh\"]", "local.names"})
	}
	g.vars = append(g.vars, name)
	body := g.cond()
	filter := ""
	if g.c.n(3) == 0 {
		filter = " if " + g.cond()
	}
	g.vars = g.vars[:len(g.vars)-1]
	return pick(g.c, []string{"anytrue", "alltrue"}) + "([for " + name + " in " + coll + " : " + body + filter + "])"
}
