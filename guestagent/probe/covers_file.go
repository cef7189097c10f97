package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var (
	progFput = program{name: "on_fput", hook: "fentry/__fput"}

	progOpened = program{name: "on_opened", hook: "tp_btf/sys_exit(open)", calls: []uint32{
		unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CREAT}}
	progWritten = program{name: "on_written", hook: "tp_btf/sys_exit(write)", calls: []uint32{
		unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_SENDFILE,
		unix.SYS_COPY_FILE_RANGE, unix.SYS_SPLICE, unix.SYS_FALLOCATE}}
	progChanged = program{name: "on_changed", hook: "tp_btf/sys_exit(fchmod)", calls: []uint32{
		unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHOWN}}
	progNamed = program{name: "on_named", hook: "tp_btf/sys_exit(unlink)", calls: []uint32{
		unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_UNLINKAT, unix.SYS_TRUNCATE, unix.SYS_MKDIR, unix.SYS_MKDIRAT,
		unix.SYS_MKNOD, unix.SYS_MKNODAT, unix.SYS_SYMLINK, unix.SYS_SYMLINKAT, unix.SYS_CHMOD, unix.SYS_FCHMODAT,
		unix.SYS_FCHMODAT2, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT}}
	progRenamed = program{name: "on_renamed", hook: "tp_btf/sys_exit(rename)", calls: []uint32{
		unix.SYS_LINK, unix.SYS_RENAME, unix.SYS_LINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}}
)

const (
	noMmap     = "writes through shared mappings are not seen"
	attemptsOf = "attempts are told, their result is not"
	userNames  = "names are read from the process after the call; calls of 32-bit programs and of io_uring are not seen"
	noAsync    = noMmap + ", nor are those of Linux AIO, io_uring and 32-bit programs"
)

var fileLSM = []cover{
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
}

var fileTracepoint = []cover{
	{class: record.ClassFileCreate, event: bpf.ProbeEventTypeEV_CREATE, needs: []program{progOpened, progNamed}, limit: userNames},
	{class: record.ClassFileModify, event: bpf.ProbeEventTypeEV_WRITE, needs: []program{progWritten, progOpened}, limit: noAsync},
	{class: record.ClassFileRename, event: bpf.ProbeEventTypeEV_RENAME, needs: []program{progRenamed}, limit: userNames},
	{class: record.ClassFileDelete, event: bpf.ProbeEventTypeEV_UNLINK, needs: []program{progNamed}, limit: userNames},
	{class: record.ClassFileTruncate, event: bpf.ProbeEventTypeEV_TRUNCATE, needs: []program{progChanged, progNamed},
		limit: "truncation by open(2) is not seen; " + userNames},
	{class: record.ClassFileChmod, event: bpf.ProbeEventTypeEV_CHMOD, needs: []program{progChanged, progNamed}, limit: userNames},
	{class: record.ClassFileChown, event: bpf.ProbeEventTypeEV_CHOWN, needs: []program{progChanged, progNamed}, limit: userNames},
	{class: record.ClassFileLink, event: bpf.ProbeEventTypeEV_LINK, needs: []program{progRenamed}, limit: userNames},
}
