package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

var (
	progModuleLoad   = program{name: "on_module_load", hook: "tp_btf/module_load"}
	progModuleFree   = program{name: "on_module_free", hook: "tp_btf/module_free"}
	progModuleFailed = program{name: "on_module_failed", hook: "fexit/load_module"}
	progPerf         = program{name: "on_perf_event", hook: "lsm/perf_event_alloc"}
	progUringMade    = program{name: "on_uring", hook: "tp_btf/io_uring_create"}
	progAnonFd       = program{name: "on_anon_fd", hook: "fentry/anon_inode_getfd"}

	progSocketFilter = program{name: "on_socket_filter", hook: "fexit/sk_attach_filter"}
	progSocketBPF    = program{name: "on_socket_bpf", hook: "fexit/sk_attach_bpf"}
	progReuseFilter  = program{name: "on_reuseport_filter", hook: "fexit/sk_reuseport_attach_filter"}
	progReuseBPF     = program{name: "on_reuseport_bpf", hook: "fexit/sk_reuseport_attach_bpf"}

	progKexec        = program{name: "on_kexec", hook: "tp_btf/sys_exit(kexec_load)", calls: []uint32{unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD}}
	progBPFCall      = program{name: "on_bpf_call", hook: "tp_btf/sys_exit(bpf)", calls: []uint32{unix.SYS_BPF}}
	progSocketOption = program{name: "on_socket_option", hook: "tp_btf/sys_exit(setsockopt)", calls: []uint32{unix.SYS_SETSOCKOPT}}
	progPerfCall     = program{name: "on_perf_call", hook: "tp_btf/sys_exit(perf_event_open)", calls: []uint32{unix.SYS_PERF_EVENT_OPEN}}
	progUserfault    = program{name: "on_userfault_call", hook: "tp_btf/sys_exit(userfaultfd)", calls: []uint32{unix.SYS_USERFAULTFD}}
)

var kernelLSM = []cover{
	{class: record.ClassKernelModuleLoad, needs: []program{progModuleLoad}, extra: []program{progModuleFailed, lsm("kernel_read_file")},
		limit: "what the kernel refuses to read is not told"},
	{class: record.ClassKernelModuleUnload, needs: []program{progModuleFree}, limit: "attempts that fail are not told"},
	{class: record.ClassKernelBPF, needs: []program{lsm("bpf"), progSocketFilter, progSocketBPF},
		extra: []program{progReuseFilter, progReuseBPF}, limit: attemptsOf + "; work on elements of maps, queries and test runs are not told, and of attempts to open what others have loaded, without the right to, the first of each kind by a process"},
	{class: record.ClassKernelPerf, needs: []program{progPerf}, limit: attemptsOf},
	{class: record.ClassKernelKexec, needs: []program{lsm("kernel_load_data"), lsm("kernel_read_file")}, limit: attemptsOf},
	{class: record.ClassKernelUserfaultfd, anyOf: [][]program{{progAnonInode, progAnonFd}}, limit: attemptsOf},
	{class: record.ClassKernelIOUring, needs: []program{progUringMade}, limit: "attempts that fail are not told"},
}

var kernelTracepoint = []cover{
	{class: record.ClassKernelModuleLoad, needs: []program{progModuleLoad}, limit: "attempts that fail are not told; " +
		"the file is what the descriptor names when the module is loaded"},
	{class: record.ClassKernelModuleUnload, needs: []program{progModuleFree}, limit: "attempts that fail are not told"},
	{class: record.ClassKernelBPF, needs: []program{progBPFCall, progSocketOption},
		limit: "read from the process after the call; work on elements of maps, queries and test runs are not told, and of attempts to open what others have loaded, without the right to, the first of each kind by a process; " + noCompat},
	{class: record.ClassKernelPerf, needs: []program{progPerfCall}, limit: "read from the process after the call; " + noCompat},
	{class: record.ClassKernelKexec, needs: []program{progKexec}, limit: "the files are not told; " + noCompat},
	{class: record.ClassKernelUserfaultfd, needs: []program{progUserfault}, limit: "/dev/userfaultfd is not seen; " + noCompat},
	{class: record.ClassKernelIOUring, needs: []program{progUringMade}, limit: "attempts that fail are not told"},
}
