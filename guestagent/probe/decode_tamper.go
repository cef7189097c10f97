package probe

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var tamperKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_TAMPER: {record.ClassAgentTamper, (*decoder).tamper},
}

// tamper tells of an act against this process; the event's object.
func (d *decoder) tamper(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventTamper](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	t := &record.Tamper{Refused: bpf.ProbeEventFlag(x.H.Flags)&bpf.ProbeEventFlagFL_REFUSED != 0}
	switch bpf.ProbeTamperKind(x.Kind) {
	case bpf.ProbeTamperKindTAMPER_SIGNAL:
		t.Kind, t.Detail, t.Hook = "signal", signalName(x.What), progGuardKill.hook
	case bpf.ProbeTamperKindTAMPER_TRACE:
		t.Kind, t.Detail, t.Hook = "trace", reach(x.What, x.Request), progGuardTrace.hook
	case bpf.ProbeTamperKindTAMPER_BPF:
		t.Kind, t.Detail, t.Hook = "detach", fmt.Sprintf("%s %d", bpfCommands[x.What], x.Id), progGuardBPF.hook
		switch x.What {
		case unix.BPF_PROG_LOAD, unix.BPF_PROG_ATTACH, unix.BPF_LINK_CREATE: // the number is a kind of hook
			t.Kind, t.Detail = "blind", fmt.Sprintf("%s of %s", bpfCommands[x.What], ebpf.AttachType(x.Id))
		}
	case bpf.ProbeTamperKindTAMPER_FTRACE:
		t.Kind, t.Detail, t.Hook = "blind", "kernel.ftrace_enabled = 0", progSysctl.hook
	case bpf.ProbeTamperKindTAMPER_LIMIT:
		t.Kind, t.Detail, t.Hook = "limit", fmt.Sprintf("resource %d", x.What), progGuardLimit.hook
	case bpf.ProbeTamperKindTAMPER_SCHEDULER:
		t.Kind = "scheduler"
		switch bpf.ProbeStarve(x.What) {
		case bpf.ProbeStarveSTARVE_NICE:
			t.Detail, t.Hook = "nice", progGuardNice.hook
		case bpf.ProbeStarveSTARVE_IO:
			t.Detail, t.Hook = "disk", progGuardDisk.hook
		case bpf.ProbeStarveSTARVE_MEMORY:
			t.Detail, t.Hook = "memory", progGuardMemory.hook
		default:
			t.Detail, t.Hook = "policy", progGuardScheduler.hook
		}
	default:
		return nil, fmt.Errorf("act against the agent of unknown kind %d", x.Kind)
	}
	e.Tamper = t
	e.Reason = t.Kind
	if x.Before > 0 {
		e.Count = x.Before + 1
	}
	self := uint32(os.Getpid())
	if p := d.table.live[self]; p != nil {
		e.Object = &record.Process{Pid: self, Start: p.start, Name: p.image.Name, Executable: p.image.Executable}
	}
	return e, nil
}

// reach names the way into this process by the number of the system call.
func reach(call uint32, request uint64) string {
	switch call {
	case 101:
		switch request {
		case 16:
			return "attach"
		case 0x4206:
			return "seize"
		}
		return "ptrace"
	case 2, 257, 437:
		return "mem"
	case 310:
		return "vm_read"
	case 311:
		return "vm_write"
	case 438:
		return "getfd"
	}
	return fmt.Sprintf("system call %d", call)
}
