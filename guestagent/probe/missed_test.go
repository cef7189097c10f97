package probe

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/chain/record"
)

// loss is what a sink was told of; losses is a sink of nothing else.
type loss struct {
	lane   uint32
	class  record.Class
	reason record.LossReason
	n      uint64
}

type losses []loss

func (l *losses) Observe(record.Header, []byte)      {}
func (l *losses) ObserveHeavy(record.Header, []byte) {}
func (l *losses) Flush()                             {}
func (l *losses) Lose(lane uint32, class record.Class, reason record.LossReason, n uint64) {
	*l = append(*l, loss{lane, class, reason, n})
}

// TestMissed has a program run into itself: it hangs on the tracepoint of a
// helper that it calls. The kernel leaves such a call out, and the check of the
// hooks declares it lost, once.
func TestMissed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this loads BPF programs: run it as root")
	}
	if oldKernel() {
		t.Skip("a kernel before 5.12 leaves no call of such a program out, and counts none")
	}
	print := asm.Instructions{
		asm.Mov.Imm(asm.R1, 'x'), asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord), // "x" and its NULs
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 8), asm.FnTracePrintk.Call(),
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}
	load := func(s *ebpf.ProgramSpec) *ebpf.Program {
		s.Instructions, s.License = print, "GPL"
		p, err := ebpf.NewProgram(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	nested := load(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "bpf_trace_printk"})
	l, err := link.AttachTracing(link.TracingOptions{Program: nested})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := load(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint})

	p := &Probe{k: &kernel{programs: map[string]*ebpf.Program{"nested": nested}}, classes: map[string]record.Class{"nested": record.ClassFileModify}}
	w := &watcher{p: p, missed: map[string]uint64{}}
	if found := w.recursion(); len(found) != 0 {
		t.Fatalf("before anything ran: %+v", found)
	}
	const times = 7
	for range times {
		if _, err := first.Run(&ebpf.RunOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	found := w.recursion()
	// Others on this machine may call the helper too.
	if len(found) != 1 || found[0].class != record.ClassFileModify || found[0].missed < times {
		t.Fatalf("found %+v, want one of at least %d calls that were left out", found, times)
	}
	sink := &losses{}
	p.tell(found[0], sink)
	if want := (loss{record.NoLane, record.ClassFileModify, record.LossReason_LOSS_REASON_MISSED, found[0].missed}); len(*sink) != 1 || (*sink)[0] != want {
		t.Errorf("told as %+v, want %+v", *sink, want)
	}
	if again := w.recursion(); len(again) != 0 {
		t.Errorf("told again: %+v", again)
	}
}
