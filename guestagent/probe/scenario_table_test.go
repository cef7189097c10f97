package probe

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/provostd/provost/bpf"
)

// What ran before the probe is in its table, with its arguments from when they
// are read; and what the kernel does not list any more leaves it.
func TestTableOfMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	p, err := Open(Config{Mode: Mode(*mode)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	tab := p.dec.table
	pid := uint32(cmd.Process.Pid)
	old := tab.live[pid]
	if old == nil || old.old == nil || old.old.read {
		t.Fatalf("a process from before: %+v", old)
	}
	p.learnCommands(t.Context())
	if b := old.old; !b.read || string(bytes.Join(b.args, []byte("|"))) != "sleep|600" || b.cut || b.inode == 0 {
		t.Errorf("its arguments: %+v", b)
	}
	const never = 1<<22 + 1 // beyond what the kernel numbers
	tab.put(never, bare(never, 5))
	p.stats.unsure = true
	now := bootTime()
	if err := p.sweepTable(now); err != nil {
		t.Fatal(err)
	}
	if n := tab.bury(now); n == 0 || tab.live[never] != nil {
		t.Errorf("%d are forgotten, and not the one that never was", n)
	}
	if tab.live[pid] != old || tab.live[uint32(os.Getpid())] == nil {
		t.Error("what runs is forgotten")
	}
	n := 0
	if err := p.k.list(func(x *bpf.ProbeEventTask) {
		if x.Tgid == pid && x.Start == old.start {
			n++
		}
	}); err != nil || n != 1 {
		t.Errorf("a second listing has the process %d times: %v", n, err)
	}
}
