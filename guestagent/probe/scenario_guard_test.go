package probe

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// guarded is observe with the guards on, where programs can refuse.
func guarded(t *testing.T) (*Probe, *collector, func()) {
	t.Helper()
	p, c, stop := observe(t)
	if p.Mode() != ModeLSM {
		t.Skip("mode tracepoint refuses nothing, as its hooks record says")
	}
	protect := unsafe.Offsetof(bpf.ProbeSwitches{}.Protect)
	if err := p.k.order(protect, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.k.order(protect, 0) }) // the probe is that of other tests too
	return p, c, stop
}

// Nobody puts a program behind or before the guards.
func TestOverride(t *testing.T) {
	_, c, stop := guarded(t)
	if out, err := exec.Command("/proc/self/exe", "act", "override", "x").CombinedOutput(); err != nil || string(out) != "attach true, load true" {
		t.Errorf("%q, %v; want a refusal of both", out, err)
	}
	for _, what := range []string{"link_create of CGroupSysctl", "prog_load of ModifyReturn"} {
		c.find(t, what, func(s seen) bool {
			return s.h.Class == record.ClassAgentTamper && s.e.Tamper.GetKind() == "blind" && s.e.Tamper.Detail == what && s.e.Tamper.Refused
		})
	}
	stop()
}

// While the door is shut nobody turns function tracing off, by whatever text.
func TestSwitchIsHeld(t *testing.T) {
	root, err := openRootCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	f, err := openTracing()
	if err != nil || f == nil {
		t.Fatalf("switch: %v, %v", f, err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("1\n"), 0); err != nil {
		t.Skipf("this machine lets nobody write kernel parameters: %v", err)
	}
	d := &door{}
	if err := d.holdSwitch(root); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, text := range []string{"0", "0\n", " 0", "00", "-0", "+0", "0x0", "\t0", strings.Repeat(" ", 600) + "0", "\x00"} {
		if _, err := f.WriteAt([]byte(text), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("%q: %v, want EPERM", text, err)
		}
	}
	if _, err := f.WriteAt([]byte("1\n"), 0); err != nil {
		t.Errorf("on: %v", err)
	}
	other, err := os.ReadFile("/proc/sys/kernel/ftrace_dump_on_oops")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/kernel/ftrace_dump_on_oops", other, 0); err != nil {
		t.Errorf("another parameter: %v", err)
	}
}

// A program holds what it uses, without any descriptor; and no program writes
// what must not change.
func TestProgramHoldsMap(t *testing.T) {
	p, _, stop := observe(t)
	number := func(name string) *ebpf.Map {
		t.Helper()
		i, err := p.k.maps[name].Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := i.ID()
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	writer := func(m *ebpf.Map) (*ebpf.Program, error) {
		defer m.Close()
		return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.StoreImm(asm.R0, 0, 4242, asm.Word),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return(),
		}})
	}
	if w, err := writer(number("conf")); err == nil {
		t.Error("a program was let in that writes the configuration")
		w.Close()
	}
	if held, err := p.holders.look(); err != nil || len(held) != 0 {
		t.Fatalf("held %v, %v, want nothing", held, err)
	}
	w, err := writer(number("course"))
	if err != nil {
		t.Fatal(err)
	}
	if held, err := p.holders.look(); err != nil || len(held) != 1 || !strings.Contains(describeHeld(held), "map course is held by a program") {
		t.Errorf("held %v, %v, want map course by a program", held, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// Programs are taken down late.
	if err := until(func() bool { held, err := p.holders.look(); return err == nil && len(held) == 0 }); err != nil {
		t.Error(err)
	}
	stop()
}

// The owner of a file gets signals that no other hook is asked about.
func TestOwnedFile(t *testing.T) {
	p, c, stop := observe(t)
	if p.Mode() != ModeLSM {
		t.Skip("mode tracepoint refuses nothing, as its hooks record says")
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGWINCH)
	defer signal.Stop(got)
	for _, protect := range []uint32{0, 1} {
		if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), protect); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("/proc/self/exe", "act", "own", strconv.Itoa(os.Getpid())).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
		c.find(t, "signal", func(s seen) bool {
			return s.h.Class == record.ClassAgentTamper && s.e.Tamper.GetKind() == "signal" && s.e.Tamper.Refused == (protect == 1)
		})
		if protect == 0 {
			<-got // or the test ends by its own time
		}
	}
	if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), 0); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case <-got:
		t.Error("a signal that was refused came")
	default:
	}
}

// Whoever reaches for the maps while they are made gets none in mode lsm. In
// mode tracepoint, where nothing is refused, it is found holding them, and
// cannot write what says who the agent is.
func TestReachAtTheStart(t *testing.T) {
	dir := t.TempDir()
	thief := actorOf(t, "reach", dir)
	if err := until(func() bool { return exists(dir + "/ready") }); err != nil {
		t.Fatal(err)
	}
	p, err := Open(Config{Mode: Mode(*mode), Protect: true})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = p.Close()
		}
	}()
	names := slices.Collect(maps.Keys(p.k.maps))
	var r reached
	look := func() bool {
		b, err := os.ReadFile(dir + "/result")
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if Mode(*mode) == ModeLSM {
			return r.Refused > 0
		}
		return slices.Contains(r.Got, "conf") && slices.Contains(r.Got, "objects")
	}
	if err := until(look); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	enough := r.Rounds + 2 // one whole round at least since the start
	if err := until(func() bool { return look() && r.Rounds >= enough }); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	held, err := p.holders.look()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range r.Wrote {
		if slices.Contains(names, name) && !slices.Contains(writable, name) {
			t.Errorf("map %s can be written by others", name)
		}
	}
	if Mode(*mode) == ModeLSM {
		for _, name := range r.Got {
			if slices.ContainsFunc(names, func(n string) bool { return n[:min(len(n), 15)] == name }) {
				t.Errorf("another process holds map %s", name)
			}
		}
		if len(held) > 0 {
			t.Errorf("maps are held: %v", held)
		}
		for _, f := range p.found {
			t.Errorf("found at the start: %v", f.tamper)
		}
	} else if by := held["conf"]; by != strconv.Itoa(thief.Process.Pid) {
		t.Errorf("map conf is held by %q, want process %d; all: %v", by, thief.Process.Pid, held)
	}
	if err := os.WriteFile(dir+"/stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := thief.Wait(); err != nil {
		t.Error(err)
	}
	if held, err := p.holders.look(); err != nil || len(held) > 0 {
		t.Errorf("held by nobody any more: %v, %v", held, err)
	}
	closed = true
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// A descriptor that is only mapped, or nowhere in a table of descriptors, is
// found by the check, which tells once that it is there and once that it is gone.
func TestHeldMap(t *testing.T) {
	p, c, stop := observe(t)
	w, err := newWatcher(p)
	if err != nil {
		t.Fatal(err)
	}
	var all []finding
	change := func(about string, wrong bool, tamper *record.Tamper, back string) {
		if wrong != w.bad[about] {
			w.bad[about] = wrong
			all = append(all, finding{tamper: tamper})
		}
	}
	w.holders(change)
	if len(all) > 0 {
		t.Fatalf("held from the start: %v", all[0].tamper)
	}
	i, err := p.k.maps["pace"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := i.ID()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err := errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	w.holders(change)
	if len(all) != 1 || all[0].tamper.Kind != "hold" || !strings.Contains(all[0].tamper.Detail, "map pace is held by") {
		t.Fatalf("findings %v, want map pace", all)
	}
	p.tell(all[0], c)
	c.find(t, "tamper event", func(s seen) bool { return s.h.Class == record.ClassAgentTamper && s.e.Tamper.GetKind() == "hold" })
	if err := unix.Munmap(page); err != nil {
		t.Fatal(err)
	}
	if w.holders(change); len(all) != 2 {
		t.Errorf("findings %v, want the end of it too", all)
	}
	stop()
}

// What is not a canary's is told of the canary too.
func TestCanaryIsBounded(t *testing.T) {
	p, c, stop := observe(t)
	mark := func() {
		t.Helper()
		if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Canary), 1); err != nil {
			t.Fatal(err)
		}
	}
	mark()
	if err := exec.Command("/bin/true", "no canary").Run(); err != nil {
		t.Fatal(err)
	}
	c.find(t, "exec of another program", func(s seen) bool {
		return s.h.Class == record.ClassProcessExec && len(s.e.Process.Args) == 2 && string(s.e.Process.Args[1]) == "no canary"
	})
	dir := t.TempDir()
	mark()
	if err := actorOf(t, "busy", dir).Wait(); err != nil {
		t.Fatal(err)
	}
	last := []byte(dir + "/99")
	c.find(t, "the last file", func(s seen) bool {
		return s.h.Class == record.ClassFileCreate && string(s.e.File.GetPath()) == string(last)
	})
	told := c.count(func(s seen) bool {
		return s.h.Class == record.ClassFileCreate && filepath.Dir(string(s.e.File.GetPath())) == dir
	})
	if told < 100-32 {
		t.Errorf("%d of 100 files of the canary are told, want all but a few", told)
	}
	dir = t.TempDir()
	if Mode(*mode) == ModeLSM {
		if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), 1); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), 0) }()
	}
	mark()
	canary := actorOf(t, "wait", dir)
	out, err := exec.Command("/proc/self/exe", "act", "seize", strconv.Itoa(canary.Process.Pid)).CombinedOutput()
	target := func(s seen) bool { return s.e.Object.GetPid() == uint32(canary.Process.Pid) }
	c.find(t, "trace of the canary", func(s seen) bool { return s.h.Class == record.ClassProcessTrace && s.e.Reason == "seize" && target(s) })
	if Mode(*mode) == ModeLSM {
		if !strings.Contains(string(out), "operation not permitted") {
			t.Errorf("seizing the canary: %v: %s; want a refusal", err, out)
		}
		c.find(t, "its refusal", func(s seen) bool {
			return s.h.Class == record.ClassAgentTamper && s.e.Tamper.GetKind() == "trace" && s.e.Tamper.Refused
		})
	}
	if err := os.WriteFile(dir+"/stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := canary.Wait(); err != nil {
		t.Error(err)
	}
	stop()
}

// A required hook that is not proven is enough only for who asked for mode lsm.
func TestJudge(t *testing.T) {
	var all, none [types]bool
	for _, r := range required {
		all[r] = true
	}
	some := all
	some[bpf.ProbeEventTypeEV_CREATE] = false
	failed := map[bpf.ProbeEventType]error{bpf.ProbeEventTypeEV_CREATE: unix.ENOSPC}
	for _, x := range []struct {
		asked  Mode
		seen   [types]bool
		failed map[bpf.ProbeEventType]error
		want   string
	}{
		{ModeAuto, all, nil, ""},
		{ModeAuto, none, nil, "4 of 4 required ones are never called"},
		{ModeLSM, some, nil, "1 of 4 required ones are never called"},
		{ModeAuto, some, failed, "not proven to be called: no space left"},
		{ModeLSM, some, failed, ""},
		// What failed beside does not excuse what did not.
		{ModeLSM, none, failed, "3 of 4 required ones are never called"},
	} {
		err := judge(x.asked, x.seen, x.failed)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("mode %s, failed %v: %v, want %q", x.asked, x.failed, err, x.want)
		}
	}
}

// Datagrams are covered on every kernel, and the record says by what and what
// that lacks. The helpers that a program on packets may use differ between them.
func TestSendIsCovered(t *testing.T) {
	p, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	want := program{name: progUDP4.name, hook: progUDP4.hook}
	if p.Mode() == ModeTracepoint {
		want = progEgress
	}
	for _, class := range []record.Class{record.ClassNetworkSend, record.ClassNetworkFlow} {
		i := slices.IndexFunc(p.Hooks().Hooks, func(h *record.Hook) bool { return record.Class(h.Class) == class })
		if i < 0 {
			t.Fatalf("the hooks record says nothing of %s", class)
		}
		h := p.Hooks().Hooks[i]
		if !slices.Contains(strings.Split(h.Name, ","), want.hook) || !strings.Contains(h.Error, want.lacks) {
			t.Errorf("%s is covered by %q, not by %q; want %s, and %q", class, h.Name, h.Error, want.hook, want.lacks)
		}
		if !p.k.attached(want) {
			t.Errorf("%s is not attached", want.name)
		}
	}
}

// Whoever repeats an act against the agent is refused each time, and told once in
// a second; who has no right to it makes no alarm at all.
func TestTamperIsBounded(t *testing.T) {
	p, c, stop := guarded(t)
	info, err := p.k.maps["orders"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := info.ID()
	if !ok {
		t.Fatal("the kernel tells no number of a map")
	}
	began := time.Now()
	for who, want := range map[string]bool{"root": true, "nobody": false} {
		pid := uint32(actor(t, "/", "reach-for", who, strconv.Itoa(int(id))).Process.Pid)
		c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
		n := c.count(func(s seen) bool { return s.h.Class == record.ClassAgentTamper && s.e.Process.Pid == pid })
		if (n > 0) != want || n > 2+int(time.Since(began)/time.Second) {
			t.Errorf("%s: %d alarms", who, n)
		}
	}
	stop()
}

// Whoever starves the agent is refused where programs can refuse.
func TestStarve(t *testing.T) {
	_, c, stop := guarded(t)
	out, err := exec.Command("/proc/self/exe", "act", "starve", strconv.Itoa(os.Getpid())).Output()
	if err != nil || string(out) != "nice 1, disk 1, policy 1" {
		t.Errorf("%q, %v; want EPERM for each", out, err)
	}
	for _, what := range []string{"nice", "disk", "policy"} {
		c.find(t, what, func(s seen) bool {
			return s.h.Class == record.ClassAgentTamper && s.e.Tamper.GetKind() == "scheduler" && s.e.Tamper.Detail == what && s.e.Tamper.Refused
		})
	}
	stop()
}
