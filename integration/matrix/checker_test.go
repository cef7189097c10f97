package matrix

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// made are the books of an act in which process 7 makes file f, forks 8 which
// makes g, and a stranger makes h.
func made(t *testing.T, hooks *record.Hooks) (*Books, *Run) {
	t.Helper()
	act := &record.Process{Pid: 7, Start: 70, Executable: []byte("/bin/act"), MountNamespace: 1, CgroupId: 1}
	child := &record.Process{Pid: 8, Start: 80, Ppid: 7, ParentStart: 70, Executable: []byte("/bin/act"), MountNamespace: 1, CgroupId: 1}
	other := &record.Process{Pid: 9, Start: 90, Executable: []byte("/bin/sh"), MountNamespace: 1, CgroupId: 1}
	above := []*record.Process{{Pid: 1}}
	exec := &record.Process{Pid: 7, Start: 70, Executable: []byte("/bin/act"), Args: [][]byte{[]byte("act"), []byte("nonce")}}
	file := func(p *record.Process, path string) *record.Event {
		return &record.Event{Process: p, Parent: &record.Process{Pid: 2}, Ancestors: above,
			File: &record.File{Path: []byte(path), Device: 1, Inode: uint64(len(path)), Mode: 0o100644}}
	}
	var all []*Sealed
	add := func(class record.Class, m record.Message) {
		n := uint64(len(all))
		all = append(all, &Sealed{record.Header{Class: class, Sequence: n, LaneSequence: n, Time: n + 1}, m})
	}
	add(record.ClassFileCreate, file(act, "/d/early"))
	add(record.ClassProcessExec, &record.Event{Process: exec})
	add(record.ClassFileCreate, file(act, "/d/f"))
	add(record.ClassProcessFork, &record.Event{Process: child, Parent: &record.Process{Pid: 7, Start: 70}, Ancestors: above})
	add(record.ClassFileCreate, file(child, "/d/g"))
	add(record.ClassFileCreate, file(other, "/elsewhere/h"))
	add(record.ClassFileModify, file(other, "/d/f"))
	add(record.ClassProcessExit, &record.Event{Process: act, Exit: &record.Exit{}})
	b, err := NewBooks(all, []wire.Statement{{Frame: 1, Lanes: []wire.Lane{{Next: 8}}}})
	if err != nil {
		t.Fatal(err)
	}
	b.hooks = hooks
	facts := Facts{}
	for k, v := range map[string]any{"dir": "/d", "stdout": Inode{}, "n": 3, "raw": []byte{0xff, 0}} {
		facts[k], _ = json.Marshal(v)
	}
	return b, &Run{Nonce: "nonce", Facts: facts}
}

// TestAttribution holds that a check sees what the act's processes did and what
// was done to its files, and nothing else.
func TestAttribution(t *testing.T) {
	b, run := made(t, &record.Hooks{Mode: "lsm", Kernel: "6.12.1"})
	run.Row.Check = func(c *Checker) {
		c.N(2, record.ClassFileCreate)
		c.One(record.ClassFileCreate, Is("file.path", "/d/f"), Is("process.start", c.actor.start))
		c.One(record.ClassFileCreate, Is("file.path", "/d/g"), Is("process.pid", 8))
		c.One(record.ClassFileModify, Is("process.pid", 9))
		c.None(record.ClassProcessExec)
		c.None(record.ClassProcessExit)
		if !c.KernelAtLeast(6, 9) || c.KernelAtLeast(6, 13) {
			c.Errorf("kernel 6.12 compared wrongly")
		}
	}
	if _, err := b.Check(run, 1); err != nil {
		t.Error(err)
	}
}

// TestFailures holds that each way a check can fail fails, and says why.
func TestFailures(t *testing.T) {
	for want, check := range map[string]func(*Checker){
		`2 events file.create, want 3`:                     func(c *Checker) { c.N(3, record.ClassFileCreate) },
		`2 events file.create, want 0`:                     func(c *Checker) { c.None(record.ClassFileCreate) },
		`none of that class`:                               func(c *Checker) { c.One(record.ClassFileRename) },
		`file.inode is 4, want = 5`:                        func(c *Checker) { c.One(record.ClassFileCreate, Is("file.path", "/d/f"), Is("file.inode", 5)) },
		`no event file.rename`:                             func(c *Checker) { c.Some(record.ClassFileRename) },
		`Event has no field nothing`:                       func(c *Checker) { c.One(record.ClassFileCreate, Is("nothing", 1)) },
		`File has no field none`:                           func(c *Checker) { c.One(record.ClassFileCreate, Is("file.none", 1)) },
		`the act noted no fact "x"`:                        func(c *Checker) { c.Number("x") },
		`comes before`:                                     func(c *Checker) { e := c.All(record.ClassFileCreate); c.Order(e[1].Event(), e[0].Event()) },
		`not zero`:                                         func(c *Checker) { c.One(record.ClassFileCreate, Is("process.pid", 8), NonZero("process.tid")) },
		`with the bits 0x2`:                                func(c *Checker) { c.Some(record.ClassFileCreate, Has("file.flags", 2)) },
		`in mode lsm`:                                      func(c *Checker) { c.Covers(record.ClassFileClose) },
		`want it to own up to "io_uring"`:                  func(c *Checker) { c.Declared(record.ClassFileModify, "io_uring") },
		`the hooks record does not name network.drop`:      func(c *Checker) { c.Declared(record.ClassNetworkDrop, "") },
		`"\xff\x00"`:                                       func(c *Checker) { c.One(record.ClassFileCreate, Is("file.path", c.Bytes("raw"))) },
		`"/d/f" = "/d/g"`:                                  func(c *Checker) { c.Errorf("%q = %q", "/d/f", "/d/g") },
		`file.mode is 33188, want without the bits 0x8000`: func(c *Checker) { c.Some(record.ClassFileCreate, Lacks("file.mode", 0x8000)) },
	} {
		b, run := made(t, &record.Hooks{Mode: "lsm", Kernel: "6.12.1", Hooks: []*record.Hook{
			{Class: uint32(record.ClassFileModify), Name: "lsm/file_permission", Error: "shared mappings"}, {Class: uint32(record.ClassFileClose)}}})
		run.Row.Check = check
		if _, err := b.Check(run, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the check says %v, want %s in it", err, want)
		}
	}
}

// TestGaps holds that a gap must be declared, and that it then takes the place
// of the check in mode tracepoint only.
func TestGaps(t *testing.T) {
	gone := func(c *Checker) { c.One(record.ClassFileRename) }
	hooks := &record.Hooks{Mode: "tracepoint", Kernel: "5.10.0", Hooks: []*record.Hook{
		{Class: uint32(record.ClassFileRename)}, {Class: uint32(record.ClassFileModify), Name: "x", Error: "io_uring is not seen"}}}
	for _, c := range []struct {
		mode string
		x    Expectation
		ok   bool
	}{
		{"tracepoint", Gap(record.ClassFileRename, ""), true},
		{"tracepoint", Gap(record.ClassFileModify, "io_uring"), true},
		{"tracepoint", Gap(record.ClassFileRename, "").And(Gap(record.ClassFileModify, "io_uring")), true},
		{"tracepoint", Gap(record.ClassFileModify, "shared"), false},
		{"tracepoint", Gap(record.ClassFileChmod, ""), false},
		{"tracepoint", Expectation{}, false},
		{"tracepoint", Other(func(c *Checker) { c.Some(record.ClassFileCreate) }), true},
		{"tracepoint", Gap(record.ClassFileRename, "").And(Other(gone)), false},
		{"lsm", Gap(record.ClassFileRename, ""), false},
	} {
		hooks.Mode = c.mode
		b, run := made(t, hooks)
		run.Row.Check, run.Row.Tracepoint = gone, c.x
		declared, err := b.Check(run, 1)
		if (err == nil) != c.ok || c.ok && len(declared) != len(c.x.gaps) {
			t.Errorf("mode %s, %+v: %v, gaps %q", c.mode, c.x, err, declared)
		}
	}
}

// TestBalance holds that a hole in a lane is found.
func TestBalance(t *testing.T) {
	b, _ := made(t, nil)
	if err := b.Balance(); err != nil {
		t.Error(err)
	}
	b.lane(0, 0).Counted++
	if err := b.Balance(); err == nil || !strings.Contains(err.Error(), "1 are missing") {
		t.Errorf("a hole: %v", err)
	}
	if _, err := NewBooks(nil, []wire.Statement{{Lanes: []wire.Lane{{First: 1, Next: 2}}}}); err == nil {
		t.Error("statements that skip a number balance")
	}
}
