package agent

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/integration/harness"
)

var long = flag.Bool("long", false, "test on kernels 6.1 and 5.10 as well, with larger storms")

func kernels(t *testing.T) []string {
	if *long {
		return []string{"6.12", "6.1", "5.10"}
	}
	t.Log("short run: kernel 6.12 only; -long adds 6.1, 5.10 and larger storms")
	return []string{"6.12"}
}

// build makes a static program of ours.
func build(t *testing.T, dir, name string) string {
	t.Helper()
	bin := filepath.Join(dir, name)
	pkg := "./integration/cmd/" + name
	if name == "provost-agent" {
		pkg = "./cmd/provost-agent"
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return bin
}

// boot starts a guest. Its console is in the log of a failed test.
func boot(t *testing.T, ctx context.Context, cfg harness.ImageConfig) *harness.VM {
	t.Helper()
	img, err := harness.BuildImage(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Two processors: a lane for each, and programs that move between them.
	// Memory for some dozens of probes one after the other: a kernel frees the
	// maps of a closed one when it finds the time.
	vm, err := harness.StartVM(harness.VMConfig{Image: img, Dir: t.TempDir(), CPUs: 2, MemoryMiB: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(vm.Console()); err == nil {
				t.Logf("console:\n%s", b[max(0, len(b)-4000):])
			}
		}
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := vm.WaitBoot(ctx, ""); err != nil {
		t.Fatal(err)
	}
	return vm
}

// The probe's own tests pass in the guest, in both modes.
func TestProbe(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "probe.test")
	ctx := t.Context()
	cmd := exec.Command("go", "test", "-c", "-o", bin, "github.com/provostd/provost/guestagent/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe's tests: %v\n%s", err, out)
	}
	storm := 300
	if *long {
		storm = 2000
	}
	for _, kernel := range kernels(t) {
		t.Run(kernel, func(t *testing.T) {
			vm := boot(t, ctx, harness.ImageConfig{KernelVersion: kernel, Files: map[string]string{"/bin/probe.test": bin}, Modules: []string{"overlay"}})
			for _, mode := range []string{"lsm", "tracepoint"} {
				ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
				defer cancel()
				r, err := vm.Run(ctx, fmt.Sprintf("/bin/probe.test -mode %s -storm %d -test.timeout 14m -test.skip TestCoveragePage >/tmp/out 2>&1; tail -c 20000 /tmp/out", mode, storm))
				if err != nil {
					t.Fatal(err)
				}
				if out := strings.TrimSpace(r.Stdout); !strings.HasSuffix(out, "PASS") {
					t.Errorf("mode %s:\n%s", mode, out)
				}
			}
		})
	}
}

// From an act in the guest to a verified record at the host.
func TestAgent(t *testing.T) {
	bin := build(t, t.TempDir(), "provost-agent")
	for _, kernel := range kernels(t) {
		t.Run(kernel, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
			defer cancel()
			vm := boot(t, ctx, harness.ImageConfig{KernelVersion: kernel, Agent: bin, AgentArgs: []string{"-log-level", "debug", "-mode", "lsm", "-protect", "off"}})
			h := &host{books: agenttest.NewBooks(), path: vm.AgentSocket()}
			h.connect(ctx)
			t.Cleanup(func() { h.stop() })
			g := &guest{t, ctx, vm, h}
			if err := h.books.Until(ctx, func(v agenttest.View) bool { return v.Frame > 0 }); err != nil {
				t.Fatal(err)
			}
			if v := h.books.View(); v.Records[0].Header.Class != record.ClassAgentHooks {
				t.Errorf("first record is %s", v.Records[0].Header.Class)
			}
			g.processes()
			g.files()
			g.connects()
			g.storm()
			g.hostAway()
			g.restart()
			g.books()
		})
	}
}

func (g *guest) processes() {
	g.sh("mkdir -p /tmp/w; cd /tmp/w; /bin/true one '' two; /no/such/program 2>/dev/null; true")
	e := g.find("exec of true", func(e event) bool {
		return e.h.Class == record.ClassProcessExec && string(e.e.Process.Filename) == "/bin/true"
	})
	p := e.Process
	if string(p.Executable) != "/bin/busybox" || string(p.WorkingDirectory) != "/tmp/w" || string(p.Name) != "true" ||
		len(p.Args) != 4 || string(p.Args[1]) != "one" || len(p.Args[2]) != 0 || p.Inode == 0 || p.Start == 0 {
		g.Errorf("exec: %v", p)
	}
	if string(e.Parent.GetName()) != "sh" || string(e.Parent.GetExecutable()) != "/bin/busybox" || len(e.Ancestors) == 0 {
		g.Errorf("exec: parent %v, ancestors %v", e.Parent, e.Ancestors)
	}
	x := g.find("its exit", func(e event) bool { return e.h.Class == record.ClassProcessExit && e.e.Process.Pid == p.Pid })
	if x.Process.Start != p.Start || x.Exit.Code != 0 {
		g.Errorf("exit: %v", x)
	}
	if n := g.count(func(e event) bool {
		return e.h.Class == record.ClassProcessExec && strings.Contains(string(e.e.Process.Filename), "no/such")
	}); n != 0 {
		g.Errorf("%d exec events of a program that does not exist", n)
	}
}

func (g *guest) files() {
	g.sh("echo a >/etc/target; echo b >/etc/target.new; mv /etc/target.new /etc/target; rm /etc/target")
	of := func(class record.Class, path string) *record.Event {
		return g.find(fmt.Sprintf("%s of %s", class, path), func(e event) bool {
			return e.h.Class == class && string(e.e.File.GetPath()) == path
		})
	}
	old := of(record.ClassFileCreate, "/etc/target")
	created := of(record.ClassFileCreate, "/etc/target.new")
	if w := of(record.ClassFileModify, "/etc/target.new"); w.File.Inode != created.File.Inode || string(w.Process.Name) != "sh" {
		g.Errorf("modify: %v by %v", w.File, w.Process)
	}
	r := of(record.ClassFileRename, "/etc/target.new")
	if string(r.Target.GetPath()) != "/etc/target" || r.Replaced.GetInode() != old.File.Inode ||
		r.File.Inode != created.File.Inode || string(r.Process.Name) != "mv" || string(r.Parent.GetName()) != "sh" {
		g.Errorf("rename: %v to %v, replaced %v, by %v", r.File, r.Target, r.Replaced, r.Process)
	}
	if d := of(record.ClassFileDelete, "/etc/target"); d.File.Inode != created.File.Inode || string(d.Process.Name) != "rm" {
		g.Errorf("delete: %v by %v", d.File, d.Process)
	}
}

func (g *guest) connects() {
	g.sh("nc -l -p 7777 -s 127.0.0.1 </dev/null >/dev/null & for i in 1 2 3 4 5 6 7 8 9; do echo | nc 127.0.0.1 7777 && break; sleep 0.2; done; true")
	e := g.find("connect", func(e event) bool {
		return e.h.Class == record.ClassNetworkConnect && e.e.Network.GetDestinationPort() == 7777
	})
	n := e.Network
	if n.Family != 4 || n.Protocol != "tcp" || net.IP(n.DestinationIp).String() != "127.0.0.1" || n.SourcePort == 0 || string(e.Process.Name) != "nc" {
		g.Errorf("connect: %v by %v", n, e.Process)
	}
}

// storm starts many processes from one that names itself in its arguments,
// and accounts for every one of them.
func (g *guest) storm() {
	n := 1000
	if *long {
		n = 3000
	}
	before := lost(g.h.books.View())
	g.sh(fmt.Sprintf(`i=0; while [ $i -lt %d ]; do /bin/true storm; i=$((i+1)); done; /bin/true storm-is-over`, n))
	g.find("end of the storm", func(e event) bool {
		return e.h.Class == record.ClassProcessExec && len(e.e.Process.Args) == 2 && string(e.e.Process.Args[1]) == "storm-is-over"
	})
	got := g.count(func(e event) bool {
		return e.h.Class == record.ClassProcessExec && len(e.e.Process.Args) == 2 && string(e.e.Process.Args[1]) == "storm"
	})
	missing := lost(g.h.books.View()) - before
	if got > n || uint64(got)+missing < uint64(n) {
		g.Errorf("%d of %d processes, %d records lost on all lanes", got, n, missing)
	}
	g.Logf("storm: %d of %d processes, %d lost", got, n, missing)
}

func lost(v agenttest.View) (n uint64) {
	for _, l := range v.Lanes {
		n += l.Dropped
	}
	return n
}

// hostAway cuts the connection under load. What happens meanwhile is there
// afterwards, once, and the agent does not spin.
func (g *guest) hostAway() {
	g.sh("(i=0; while [ $i -lt 300 ]; do /bin/true away $i; i=$((i+1)); done; : >/run/away-is-over) >/dev/null 2>&1 &")
	g.find("some of it", func(e event) bool {
		return e.h.Class == record.ClassProcessExec && len(e.e.Process.Args) == 3 && string(e.e.Process.Args[2]) == "20"
	})
	g.h.stop()
	g.sh("while [ ! -e /run/away-is-over ]; do sleep 0.1; done")
	g.rests("no host was there and nothing happened")
	g.h.connect(g.ctx)
	g.find("the last of it", func(e event) bool {
		return e.h.Class == record.ClassFileCreate && string(e.e.File.GetPath()) == "/run/away-is-over"
	})
	seen := map[string]int{}
	for _, e := range events(g.T, g.h.books.View()) {
		if e.h.Class == record.ClassProcessExec && len(e.e.Process.Args) == 3 && string(e.e.Process.Args[1]) == "away" {
			seen[string(e.e.Process.Args[2])]++
		}
	}
	for i := range 300 {
		if n := seen[strconv.Itoa(i)]; n != 1 {
			g.Errorf("process %d is there %d times", i, n)
		}
	}
	g.rests("nothing happened")
}

// rests waits until the agent leaves the processor alone. How long its last work
// takes depends on what else this machine does; one that spins never rests.
func (g *guest) rests(while string) {
	g.Helper()
	var used int
	for range 10 {
		before := g.ticks()
		g.sh("sleep 4")
		if used = g.ticks() - before; used <= 100 {
			return
		}
	}
	g.Errorf("agent used %d of 400 ticks, and no less in ten times that, while %s", used, while)
}

// restart starts a new session, whose first event of an old process is
// complete.
func (g *guest) restart() {
	old := g.h.books.View().Session
	g.sh("agentctl restart")
	if err := g.another(old); err != nil {
		g.Fatalf("no new session: %v", err)
	}
	g.sh("echo x >/etc/after-restart")
	e := g.find("event after the restart", func(e event) bool { return string(e.e.File.GetPath()) == "/etc/after-restart" })
	if string(e.Process.Executable) != "/bin/busybox" || len(e.Ancestors) == 0 {
		g.Errorf("event after the restart: by %v, ancestors %v", e.Process, e.Ancestors)
	}
	last := e.Ancestors[len(e.Ancestors)-1]
	if last.Pid != 1 || len(last.Executable) == 0 {
		g.Errorf("ancestors end with %v, want the first process", last)
	}
	g.sh("agentctl kill; agentctl start")
	old = g.h.books.View().Session
	if err := g.another(old); err != nil {
		g.Fatalf("no new session after a kill: %v", err)
	}
}

// another waits for a session that is not old. Under emulation the kernel takes
// its time to detach programs, and to verify them again.
func (g *guest) another(old uint64) error {
	ctx, cancel := context.WithTimeout(g.ctx, 4*time.Minute)
	defer cancel()
	return g.h.books.Until(ctx, func(v agenttest.View) bool { return v.Session != old && v.Frame > 0 })
}

// books holds the host's findings: nothing was wrong with any frame, and every
// lane is balanced.
func (g *guest) books() {
	g.h.stop()
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	for _, err := range g.h.errs {
		g.Errorf("host: %v", err)
	}
	for n, l := range g.h.books.View().Lanes {
		if l.Counted > l.Arrived+l.Dropped {
			g.Errorf("lane %x: %+v", n, l)
		}
	}
}
