package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var (
	progMmap        = program{name: "on_mmap", hook: "fexit/vm_mmap_pgoff"}
	progInterpreter = program{name: "on_interpreter", hook: "tp_btf/sched_process_exec"}
	progCodeProtect = program{name: "on_mprotect", hook: "lsm/file_mprotect"}
	progShmat       = program{name: "on_shmat", hook: "fexit/do_shmat"}
	progMemfd       = program{name: "on_shmem", hook: "fexit/shmem_file_setup"}
	progHugetlb     = program{name: "on_hugetlb", hook: "fexit/hugetlb_file_setup"}
	progHugetlbOld  = program{name: "on_hugetlb_old", hook: "fexit/hugetlb_file_setup"}
	progAnonInode   = program{name: "on_anon_inode", hook: "lsm/inode_init_security_anon"}
	progBrk         = program{name: "on_brk", hook: "fentry/__x64_sys_brk"}
	progBrkCompat   = program{name: "on_brk_compat", hook: "fentry/__ia32_sys_brk"}
	progMremap      = program{name: "on_mremap", hook: "fexit/__do_sys_mremap"}
	progCharged     = program{name: "on_charged", hook: "fentry/security_vm_enough_memory_mm", lacks: "of mappings that grow permitted attempts are told, and those that count as committed memory"}
	progMremapCall  = program{name: "on_mremap_call", hook: "fexit/__x64_sys_mremap"}

	progPtraceAccess  = program{name: "on_ptrace_access", hook: "lsm/ptrace_access_check"}
	progPtraceRequest = program{name: "on_ptrace_request", hook: "fentry/arch_ptrace"}
	progPtraceCompat  = program{name: "on_ptrace_compat", hook: "fentry/compat_arch_ptrace"}
	progMemOpen       = program{name: "on_mem_open", hook: "fentry/mem_open"}

	progMappedCode = program{name: "on_mapped_code", hook: "tp_btf/sys_exit(mmap)", calls: []uint32{unix.SYS_MMAP}}
	progProtected  = program{name: "on_protected", hook: "tp_btf/sys_exit(mprotect)", calls: []uint32{unix.SYS_MPROTECT, unix.SYS_PKEY_MPROTECT}}
	progMemoryFile = program{name: "on_memory_file", hook: "tp_btf/sys_exit(memfd_create)", calls: []uint32{
		unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET}}
	progGrown  = program{name: "on_grown", hook: "tp_btf/sys_exit(brk)", calls: []uint32{unix.SYS_BRK, unix.SYS_MREMAP}}
	progTraced = program{name: "on_traced", hook: "tp_btf/sys_exit(ptrace)", calls: []uint32{
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD}}
)

// nextMmap is where the program at the end of mmap(2) that tells of code goes on
// to the one that tells of files: a call has one place in the table of jumps.
const nextMmap = 511

const (
	onceMapped  = "a file is told once for each image of a process that maps it"
	smallGrowth = "only anonymous mappings, heaps and mappings that grow by at least allocate-bytes in one call: " +
		"ordinary small allocations, stacks, shared memory and page cache are not seen"
	onceTraced = "requests, reads and writes are told once for each pair of processes and kind; who opens /proc/PID/mem only to read is not told"
)

var memoryLSM = []cover{
	{class: record.ClassMemoryMap, event: bpf.ProbeEventTypeEV_MAP, needs: []program{progMmap}, extra: []program{progInterpreter, progShmat},
		limit: onceMapped},
	{class: record.ClassMemoryProtect, event: bpf.ProbeEventTypeEV_PROTECT, needs: []program{progCodeProtect}, limit: attemptsOf},
	{class: record.ClassMemoryFile, event: bpf.ProbeEventTypeEV_MEMFD, needs: []program{progMemfd},
		anyOf: [][]program{{progHugetlb, progHugetlbOld}}, extra: []program{progAnonInode}},
	{class: record.ClassMemoryAllocate, event: bpf.ProbeEventTypeEV_ALLOCATE, needs: []program{progMmap, progBrk},
		anyOf: [][]program{{progMremap, progMremapCall, progCharged}}, extra: []program{progBrkCompat}, limit: smallGrowth, wanted: growth},
	{class: record.ClassProcessTrace, needs: []program{progPtraceAccess, lsm("ptrace_traceme"), progPtraceRequest, progMemOpen},
		extra: []program{progPtraceCompat}, limit: onceTraced},
}

var memoryTracepoint = []cover{
	{class: record.ClassMemoryMap, event: bpf.ProbeEventTypeEV_MAP, needs: []program{progMappedCode},
		limit: onceMapped + "; what exec maps itself, shmat and " + noCompat},
	{class: record.ClassMemoryProtect, event: bpf.ProbeEventTypeEV_PROTECT, needs: []program{progProtected},
		limit: "what was allowed before and which file is mapped are not known; " + noCompat},
	{class: record.ClassMemoryFile, event: bpf.ProbeEventTypeEV_MEMFD, needs: []program{progMemoryFile}, limit: noCompat},
	{class: record.ClassMemoryAllocate, event: bpf.ProbeEventTypeEV_ALLOCATE, needs: []program{progMappedCode, progGrown},
		limit: smallGrowth + "; " + noCompat, wanted: growth},
	{class: record.ClassProcessTrace, needs: []program{progTraced},
		limit: onceTraced + "; who opens /proc/PID/mem is told as file events only; targets named from within another pid namespace are not known; " + noCompat},
}

func growth(c Config) bool { return c.Allocate > 0 }
