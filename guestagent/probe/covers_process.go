package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var (
	progExec        = program{name: "on_exec", hook: "tp_btf/sched_process_exec"}
	progFork        = program{name: "on_fork", hook: "tp_btf/sched_process_fork"}
	progExit        = program{name: "on_exit", hook: "tp_btf/sched_process_exit"}
	progComm        = program{name: "on_comm", hook: "tp_btf/task_rename"}
	progPrepareExec = program{name: "on_prepare_exec", hook: "tp_btf/sched_prepare_exec"}
	progCommitting  = program{name: "on_committing_creds", hook: "lsm/bprm_committing_creds"}

	// What the agent needs to know of control groups.
	progCgroups = []program{
		{name: "on_cgroup_mkdir", hook: "tp_btf/cgroup_mkdir"},
		{name: "on_cgroup_attach", hook: "tp_btf/cgroup_attach_task"},
	}

	progCommit    = program{name: "on_commit_creds", hook: "fentry/commit_creds"}
	progSetCreds  = program{name: "on_set_creds", hook: "tp_btf/sys_exit(setuid)", calls: credsCalls}
	progSwitch    = program{name: "on_switch_namespaces", hook: "fentry/switch_task_namespaces"}
	progSetNS     = program{name: "on_set_namespaces", hook: "tp_btf/sys_exit(unshare)", calls: []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS}}
	progChrooted  = program{name: "on_chrooted", hook: "tp_btf/sys_exit(chroot)", calls: []uint32{unix.SYS_CHROOT}}
	progSignalLSM = program{name: "on_signal_asked", hook: "lsm/task_kill"}
	progSignal    = program{name: "on_signal_sent", hook: "tp_btf/signal_generate"}
	progAudit     = program{name: "on_netlink_send", hook: "lsm/netlink_send"}
	progSent      = program{name: "on_sent", hook: "tp_btf/sys_exit(sendto)", calls: []uint32{unix.SYS_SENDTO}}
)

var credsCalls = []uint32{
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_CAPSET,
}

// backbone works on every kernel with BTF and is required.
func backbone(mode Mode) []cover {
	before := progCommitting
	if mode != ModeLSM {
		// The program of exec itself, without the one that looks at what is gained.
		before = progExec
		before.lacks = "what an execution gains is concluded from the credentials that were known before; of 64-bit programs 32-bit calls are not marked"
	}
	exec := cover{class: record.ClassProcessExec, needs: []program{progExec}, anyOf: [][]program{{progPrepareExec, before}}, extra: progCgroups,
		limit: "containers are told by control groups of version 2 only, by the names that their makers use"}
	return []cover{
		exec,
		{class: record.ClassProcessFork, needs: []program{progFork}},
		{class: record.ClassProcessExit, needs: []program{progExit}},
		// Attached in any case: names come and go, and events tell the newest.
		{class: record.ClassProcessRename, needs: []program{progComm}, option: func(o Options) bool { return o.Renames }},
	}
}

const (
	noCompatCalls = "calls of 32-bit programs are not seen"
	auditOnly     = "programs that do not tell the kernel's audit are not seen"
)

const ownSignals = "signals within a process are not told; "

func wantSignals(o Options) bool { return o.Signals }

var processLSM = append([]cover{
	{class: record.ClassProcessCreds, event: bpf.ProbeEventTypeEV_CREDS, needs: []program{progCommit}},
	{class: record.ClassProcessNamespace, needs: []program{progSwitch, progCommit, progFork}},
	{class: record.ClassProcessChroot, needs: []program{lsm("path_chroot"), progPivot}, limit: attemptsOf},
	{class: record.ClassProcessSignal, needs: []program{progSignalLSM}, option: wantSignals, limit: ownSignals + attemptsOf},
}, auth(progAudit, auditOnly)...)

var processTracepoint = append([]cover{
	{class: record.ClassProcessCreds, needs: []program{progSetCreds, progSetNS},
		limit: "calls that changed nothing are told as well; the credentials before are those that the agent knew; " +
			"changes by prctl(2) and keyctl(2) are not seen; " + noCompatCalls},
	{class: record.ClassProcessNamespace, needs: []program{progSetNS, progFork},
		limit: "of unshare(2) and setns(2) by 32-bit programs nothing is seen"},
	{class: record.ClassProcessChroot, needs: []program{progChrooted, progMoved}, limit: "the names of pivot_root(2) are read from the process after the call; " + noCompatCalls},
	{class: record.ClassProcessSignal, needs: []program{progSignal}, option: wantSignals,
		limit: ownSignals + "signals that are queued with an invented code are not seen"},
}, auth(progSent, auditOnly+"; messages are read from the process after the call; those by sendmsg(2) and write(2) are not seen; "+noCompatCalls)...)

// auth covers all classes of logins by one program.
func auth(p program, limit string) []cover {
	var all []cover
	for _, c := range []record.Class{record.ClassAuthLogin, record.ClassAuthSudo, record.ClassAuthSu,
		record.ClassAuthAuthenticate, record.ClassAuthSession, record.ClassAuthAccount} {
		all = append(all, cover{class: c, needs: []program{p}, limit: limit})
	}
	return all
}
