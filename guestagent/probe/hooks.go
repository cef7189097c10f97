package probe

import (
	"strings"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// program is one kernel program and the name under which it is reported.
type program struct {
	name string // in the object
	hook string // as reported: type/target
}

// cover is how one class of event is seen: by all programs of every group,
// the first group of alternatives that loads.
type cover struct {
	class record.Class
	event bpf.ProbeEventType // whose canary counter proves it, 0: none
	// needs must all load. Of each slice in anyOf one suffices, the first that loads.
	needs []program
	anyOf [][]program
	extra []program // load where the kernel has the hook
	limit string    // what this way of seeing does not cover
}

var (
	progExec  = program{"on_exec", "tp_btf/sched_process_exec"}
	progFork  = program{"on_fork", "tp_btf/sched_process_fork"}
	progExit  = program{"on_exit", "tp_btf/sched_process_exit"}
	progTasks = program{"list_tasks", "iter/task"}

	progFput      = program{"on_fput", "fentry/__fput"}
	progConnect   = program{"on_tcp_connect", "fentry/tcp_connect"}
	progSockState = program{"on_sock_state", "tp_btf/inet_sock_set_state"}

	progOpened  = program{"on_opened", "tp_btf/sys_exit(open)"}
	progWritten = program{"on_written", "tp_btf/sys_exit(write)"}
	progChanged = program{"on_changed", "tp_btf/sys_exit(fchmod)"}
	progNamed   = program{"on_named", "tp_btf/sys_exit(unlink)"}
	progRenamed = program{"on_renamed", "tp_btf/sys_exit(rename)"}
)

func lsm(hook string) program { return program{"on_" + hook, "lsm/" + hook} }

// backbone works on every kernel with BTF and is required.
var backbone = []cover{
	{class: record.ClassProcessExec, needs: []program{progExec}},
	{class: record.ClassProcessFork, needs: []program{progFork}},
	{class: record.ClassProcessExit, needs: []program{progExit}},
}

const (
	noMmap     = "writes through shared mappings are not seen"
	attemptsOf = "attempts are told, their result is not"
	userNames  = "names are read from the process after the call; calls of 32-bit programs and of io_uring are not seen"
	noAsync    = noMmap + ", nor are those of Linux AIO, io_uring and 32-bit programs"
)

var lsmCovers = []cover{
	{class: record.ClassFileCreate, event: bpf.ProbeEventTypeEV_CREATE, needs: []program{lsm("file_open")},
		extra: []program{lsm("path_mknod"), lsm("path_mkdir"), lsm("path_symlink")},
		limit: "regular files made by mknod(2) are not seen"},
	{class: record.ClassFileModify, event: bpf.ProbeEventTypeEV_WRITE, needs: []program{lsm("file_permission")},
		anyOf: [][]program{{lsm("file_release"), progFput}}, limit: noMmap},
	{class: record.ClassFileRename, event: bpf.ProbeEventTypeEV_RENAME, needs: []program{lsm("path_rename")}, limit: attemptsOf},
	{class: record.ClassFileDelete, event: bpf.ProbeEventTypeEV_UNLINK, needs: []program{lsm("path_unlink"), lsm("path_rmdir")}, limit: attemptsOf},
	{class: record.ClassFileTruncate, event: bpf.ProbeEventTypeEV_TRUNCATE, needs: []program{lsm("path_truncate")},
		extra: []program{lsm("file_truncate")}, limit: attemptsOf},
	{class: record.ClassFileChmod, event: bpf.ProbeEventTypeEV_CHMOD, needs: []program{lsm("path_chmod")}, limit: attemptsOf},
	{class: record.ClassFileChown, event: bpf.ProbeEventTypeEV_CHOWN, needs: []program{lsm("path_chown")}, limit: attemptsOf},
	{class: record.ClassFileLink, event: bpf.ProbeEventTypeEV_LINK, needs: []program{lsm("path_link")}, limit: attemptsOf},
	{class: record.ClassNetworkConnect, anyOf: [][]program{{progConnect, progSockState}}, limit: "TCP only"},
}

var tracepointCovers = []cover{
	{class: record.ClassFileCreate, event: bpf.ProbeEventTypeEV_CREATE, needs: []program{progOpened, progNamed}, limit: userNames},
	{class: record.ClassFileModify, event: bpf.ProbeEventTypeEV_WRITE, needs: []program{progWritten, progOpened}, limit: noAsync},
	{class: record.ClassFileRename, event: bpf.ProbeEventTypeEV_RENAME, needs: []program{progRenamed}, limit: userNames},
	{class: record.ClassFileDelete, event: bpf.ProbeEventTypeEV_UNLINK, needs: []program{progNamed}, limit: userNames},
	{class: record.ClassFileTruncate, event: bpf.ProbeEventTypeEV_TRUNCATE, needs: []program{progChanged, progNamed},
		limit: "truncation by open(2) is not seen; " + userNames},
	{class: record.ClassFileChmod, event: bpf.ProbeEventTypeEV_CHMOD, needs: []program{progChanged, progNamed}, limit: userNames},
	{class: record.ClassFileChown, event: bpf.ProbeEventTypeEV_CHOWN, needs: []program{progChanged, progNamed}, limit: userNames},
	{class: record.ClassFileLink, event: bpf.ProbeEventTypeEV_LINK, needs: []program{progRenamed}, limit: userNames},
	{class: record.ClassNetworkConnect, needs: []program{progSockState}, limit: "TCP only; the source port is not known yet"},
}

// uncovered are the classes that guests may report and this probe does not.
var uncovered = []record.Class{
	record.ClassProcessCreds, record.ClassFileClose,
	record.ClassNetworkAccept, record.ClassNetworkListen, record.ClassNetworkDrop,
}

// required are the events without which mode lsm is not worth its name.
var required = []bpf.ProbeEventType{
	bpf.ProbeEventTypeEV_CREATE, bpf.ProbeEventTypeEV_WRITE, bpf.ProbeEventTypeEV_RENAME, bpf.ProbeEventTypeEV_UNLINK,
}

func joined(programs []program) string {
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.hook
	}
	return strings.Join(names, ",")
}
