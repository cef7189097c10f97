package probe

import (
	"bytes"
	"os"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var memoryKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_MAP:      {record.ClassMemoryMap, (*decoder).memory},
	bpf.ProbeEventTypeEV_PROTECT:  {record.ClassMemoryProtect, (*decoder).memory},
	bpf.ProbeEventTypeEV_MEMFD:    {record.ClassMemoryFile, (*decoder).memory},
	bpf.ProbeEventTypeEV_ALLOCATE: {record.ClassMemoryAllocate, (*decoder).memory},
	bpf.ProbeEventTypeEV_TRACE:    {record.ClassProcessTrace, (*decoder).trace},
}

var memoryWords = [...]string{
	bpf.ProbeMemoryKindMEM_MAP: "map", bpf.ProbeMemoryKindMEM_PROTECT: "protect", bpf.ProbeMemoryKindMEM_MEMFD: "memfd",
	bpf.ProbeMemoryKindMEM_MMAP: "mmap", bpf.ProbeMemoryKindMEM_BRK: "brk", bpf.ProbeMemoryKindMEM_REMAP: "mremap",
	bpf.ProbeMemoryKindMEM_SHM: "shmat", bpf.ProbeMemoryKindMEM_SECRET: "memfd_secret",
}

// memoryPrefix stands before the name of a memfd, in its path.
var memoryPrefix = []byte("memfd:")

func (d *decoder) memory(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventMemory](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventMemory](b)
	names, place := t.next(x.PathLen), t.next(x.PlaceLen)
	if t.err != nil {
		return nil, t.err
	}
	e := d.actor(&x.H)
	m := memoryOf(&x)
	e.Memory = m
	if x.Ino == 0 {
		return e, nil
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	p := pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	e.File = &record.File{Path: p, Device: device(x.Dev), Inode: x.Ino, Flags: fileFlags(f),
		FilesystemPath: filesystemPath(names, x.OuterLen, place)}
	if f&bpf.ProbeEventFlagFL_DETACHED != 0 && bytes.HasPrefix(p, memoryPrefix) {
		e.File.Flags |= record.FileMemory
		m.Name = bytes.TrimPrefix(p, memoryPrefix)
	}
	return e, nil
}

// memoryOf is what an event says of memory, whether by itself or in a sum.
func memoryOf(x *bpf.ProbeEventMemory) *record.Memory {
	m := &record.Memory{Address: x.Address, Length: x.Length, Flags: x.Flags, Protection: x.Protection,
		ProtectionBefore: x.ProtectionBefore, Total: x.Total * uint64(os.Getpagesize()), Anonymous: x.Ino == 0}
	if int(x.Kind) < len(memoryWords) {
		m.Kind = memoryWords[x.Kind]
	}
	switch bpf.ProbeEventType(x.H.Type) {
	case bpf.ProbeEventTypeEV_MEMFD:
		m.Anonymous = false
	case bpf.ProbeEventTypeEV_ALLOCATE:
		// A mapping that grows may be one of a file; that is not told.
		m.Anonymous = bpf.ProbeMemoryKind(x.Kind) != bpf.ProbeMemoryKindMEM_REMAP
	}
	return m
}

var traceWords = [...]string{
	bpf.ProbeTraceHowTRACE_ATTACH: "attach", bpf.ProbeTraceHowTRACE_SEIZE: "seize", bpf.ProbeTraceHowTRACE_ME: "traceme",
	bpf.ProbeTraceHowTRACE_REQUEST: "request", bpf.ProbeTraceHowTRACE_VM_WRITE: "vm_write", bpf.ProbeTraceHowTRACE_VM_READ: "vm_read",
	bpf.ProbeTraceHowTRACE_MEM: "mem", bpf.ProbeTraceHowTRACE_GETFD: "getfd", bpf.ProbeTraceHowTRACE_OTHER: "other",
}

// requests are the names of what ptrace(2) can ask for on this architecture.
var requests = map[uint64]string{
	1: "peektext", 2: "peek", 3: "peekuser", 4: "poketext", 5: "poke", 6: "pokeuser", 7: "cont", 8: "kill", 9: "singlestep",
	12: "getregs", 13: "setregs", 14: "getfpregs", 15: "setfpregs", 17: "detach", 18: "getfpxregs", 19: "setfpxregs",
	24: "syscall", 25: "get_thread_area", 26: "set_thread_area", 30: "arch_prctl", 31: "sysemu", 32: "sysemu_singlestep", 33: "singleblock",
	0x4200: "setoptions", 0x4201: "geteventmsg", 0x4202: "getsiginfo", 0x4203: "setsiginfo", 0x4204: "getregset", 0x4205: "setregset",
	0x4207: "interrupt", 0x4208: "listen", 0x4209: "peeksiginfo", 0x420a: "getsigmask", 0x420b: "setsigmask",
	0x420c: "seccomp_get_filter", 0x420d: "seccomp_get_metadata", 0x420e: "get_syscall_info", 0x420f: "get_rseq_configuration",
	0x4210: "set_syscall_user_dispatch_config", 0x4211: "get_syscall_user_dispatch_config", 0x4212: "set_syscall_info",
}

func (d *decoder) trace(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventTarget](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	e.Object = d.victim(&x)
	if int(x.How) < len(traceWords) {
		e.Reason = traceWords[x.How]
	}
	if bpf.ProbeTraceHow(x.How) == bpf.ProbeTraceHowTRACE_REQUEST {
		if s := requests[x.Request]; s != "" {
			e.Reason = s
		}
		if x.Address != 0 {
			e.Memory = &record.Memory{Address: x.Address}
		}
	}
	return e, nil
}

// victim is the process that was acted upon; nil where the kernel could not tell
// which. One that was named by its number alone (start is zero) is what has that
// number now.
func (d *decoder) victim(x *bpf.ProbeEventTarget) *record.Process {
	if x.Tgid == 0 {
		return nil
	}
	if x.Start == 0 {
		p := d.table.live[x.Tgid]
		if p == nil {
			return &record.Process{Pid: x.Tgid, Tid: x.Tid}
		}
		x.Start = p.start
	}
	return d.object(x)
}
