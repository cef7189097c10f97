package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var (
	progFput          = program{name: "on_fput", hook: "fentry/__fput"}
	progMmapShared    = program{name: "on_mmap_shared", hook: "lsm/mmap_file"}
	progMprotect      = program{name: "on_mprotect_shared", hook: "lsm/file_mprotect"}
	progWantWrite     = program{name: "on_want_write", hook: "fentry/mnt_want_write"}
	progWantWriteFile = program{name: "on_want_write_file", hook: "fentry/mnt_want_write_file"}
	progSetattr       = program{name: "on_setattr", hook: "fentry/notify_change"}
	progSetattrDone   = program{name: "on_setattr_done", hook: "fexit/notify_change"}
	progFileIoctl     = program{name: "on_file_ioctl", hook: "lsm/file_ioctl",
		lacks: "attempts are told, their result is not; those by FS_IOC_FSSETXATTR are not seen"}
	progFileattr = program{name: "on_fileattr_set", hook: "fexit/vfs_fileattr_set"}

	progOpened = program{name: "on_opened", hook: "tp_btf/sys_exit(open)", calls: []uint32{
		unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CREAT, unix.SYS_OPEN_BY_HANDLE_AT}}
	progWritten = program{name: "on_written", hook: "tp_btf/sys_exit(write)", calls: []uint32{
		unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_SENDFILE,
		unix.SYS_COPY_FILE_RANGE, unix.SYS_SPLICE, unix.SYS_FALLOCATE}}
	progMapped    = program{name: "on_mapped", hook: "tp_btf/sys_exit(mmap)", calls: []uint32{nextMmap}}
	progSubmitted = program{name: "on_submitted", hook: "tp_btf/sys_exit(io_submit)", calls: []uint32{unix.SYS_IO_SUBMIT}}
	progUring     = program{name: "on_uring_request", hook: "tp_btf/io_uring_submit_req"}
	progChanged   = program{name: "on_changed", hook: "tp_btf/sys_exit(fchmod)", calls: []uint32{
		unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHOWN, unix.SYS_IOCTL}}
	progNamed = program{name: "on_named", hook: "tp_btf/sys_exit(unlink)", calls: []uint32{
		unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_UNLINKAT, unix.SYS_TRUNCATE, unix.SYS_MKDIR, unix.SYS_MKDIRAT,
		unix.SYS_MKNOD, unix.SYS_MKNODAT, unix.SYS_SYMLINK, unix.SYS_SYMLINKAT, unix.SYS_CHMOD, unix.SYS_FCHMODAT,
		unix.SYS_FCHMODAT2, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT}}
	progMarked = program{name: "on_marked", hook: "tp_btf/sys_exit(setxattr)", calls: []uint32{
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR,
		unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT, unix.SYS_UTIMENSAT}}
	progMarkedFile = program{name: "on_marked_file", hook: "tp_btf/sys_exit(fsetxattr)", calls: []uint32{
		unix.SYS_FSETXATTR, unix.SYS_FREMOVEXATTR}}
	progRenamed = program{name: "on_renamed", hook: "tp_btf/sys_exit(rename)", calls: []uint32{
		unix.SYS_LINK, unix.SYS_RENAME, unix.SYS_LINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}}
)

// attributes are the programs of all changes that notify_change does.
var attributes = []program{progWantWrite, progWantWriteFile, progSetattr, progSetattrDone}

const (
	notStored  = "files that the kernel makes up (proc, sysfs, cgroup, debugfs, tracefs, securityfs, selinux, configfs, binfmt_misc) are left out, and what threads of the kernel do for others (loop devices, file servers)"
	attemptsOf = "permitted attempts are told, their result is not"
	userNames  = "names are read from the process after the call, their inode is not known; calls of 32-bit programs and of io_uring are not seen"
	noAsync    = "the size before is not known; not seen are writes by mappings that mprotect makes writable, by io_uring through files that it opened itself or that are registered, by requests of io_submit(2) after the fourth, " +
		"of 32-bit programs, by remapping (FICLONE); " + notStored
	noUring = "; nor are those of io_uring on this kernel"
)

var fileLSM = []cover{
	{class: record.ClassFileCreate, event: bpf.ProbeEventTypeEV_CREATE, needs: []program{lsm("file_open"), lsm("path_mknod"),
		lsm("path_mkdir"), lsm("path_symlink"), lsm("d_instantiate")},
		limit: "directories of file systems that the kernel makes up (cgroup) are not seen"},
	{class: record.ClassFileModify, event: bpf.ProbeEventTypeEV_WRITE, needs: []program{lsm("file_permission"), progMmapShared, progMprotect},
		anyOf: [][]program{{lsm("file_release"), progFput}},
		limit: attemptsOf + "; stores into a shared mapping are told when it is made writable, each store is not; " + notStored},
	{class: record.ClassFileClose, event: bpf.ProbeEventTypeEV_CLOSE, needs: []program{lsm("file_permission"), progMmapShared, progMprotect},
		anyOf: [][]program{{lsm("file_release"), progFput}},
		limit: "bytes are those that write(2) and pwrite(2) asked for; a copy may count as several operations, a mapping counts as one; " + notStored},
	{class: record.ClassFileRename, event: bpf.ProbeEventTypeEV_RENAME, needs: []program{lsm("path_rename"), lsm("inode_rename")}, limit: attemptsOf},
	{class: record.ClassFileDelete, event: bpf.ProbeEventTypeEV_UNLINK, needs: []program{lsm("path_unlink"), lsm("inode_unlink"),
		lsm("path_rmdir"), lsm("inode_rmdir")}, limit: attemptsOf},
	{class: record.ClassFileLink, event: bpf.ProbeEventTypeEV_LINK, needs: []program{lsm("path_link"), lsm("inode_link")}, limit: attemptsOf},
	{class: record.ClassFileTruncate, event: bpf.ProbeEventTypeEV_TRUNCATE, needs: attributes},
	{class: record.ClassFileChmod, event: bpf.ProbeEventTypeEV_CHMOD, needs: attributes},
	{class: record.ClassFileChown, event: bpf.ProbeEventTypeEV_CHOWN, needs: attributes},
	{class: record.ClassFileUtime, needs: attributes},
	{class: record.ClassFileXattr, needs: []program{progWantWrite, progWantWriteFile, lsm("inode_setxattr"), lsm("inode_removexattr")},
		extra: []program{lsm("inode_set_acl"), lsm("inode_remove_acl")}, limit: attemptsOf},
	{class: record.ClassFileAttributes, needs: []program{progWantWrite, progWantWriteFile},
		anyOf: [][]program{{progFileattr, progFileIoctl}}},
}

var fileTracepoint = []cover{
	{class: record.ClassFileCreate, event: bpf.ProbeEventTypeEV_CREATE, needs: []program{progOpened, progNamed}, limit: "sockets that bind(2) makes are not seen; " + userNames},
	{class: record.ClassFileModify, event: bpf.ProbeEventTypeEV_WRITE, needs: []program{progWritten, progOpened, progMapped, progSubmitted},
		extra: []program{progUring}, limit: noAsync},
	{class: record.ClassFileClose, event: bpf.ProbeEventTypeEV_CLOSE, needs: []program{progFput, progWritten, progOpened, progMapped, progSubmitted}, limit: "the time before is not known; " +
		"of more than 65536 files that are open for writing some are forgotten; " + noAsync},
	{class: record.ClassFileRename, event: bpf.ProbeEventTypeEV_RENAME, needs: []program{progRenamed},
		limit: userNames + "; nor is what the new name was before"},
	{class: record.ClassFileDelete, event: bpf.ProbeEventTypeEV_UNLINK, needs: []program{progNamed}, limit: userNames},
	{class: record.ClassFileTruncate, event: bpf.ProbeEventTypeEV_TRUNCATE, needs: []program{progChanged, progNamed, progOpened},
		limit: "the size before is not known; " + userNames},
	{class: record.ClassFileChmod, event: bpf.ProbeEventTypeEV_CHMOD, needs: []program{progChanged, progNamed},
		limit: "the mode before is not known; " + userNames},
	{class: record.ClassFileChown, event: bpf.ProbeEventTypeEV_CHOWN, needs: []program{progChanged, progNamed}, limit: userNames},
	{class: record.ClassFileLink, event: bpf.ProbeEventTypeEV_LINK, needs: []program{progRenamed}, limit: userNames},
	{class: record.ClassFileXattr, needs: []program{progMarked, progMarkedFile}, limit: userNames},
	{class: record.ClassFileUtime, needs: []program{progMarked}, limit: "the times set by name are not known; " + userNames},
	{class: record.ClassFileAttributes, needs: []program{progChanged}, limit: "of FS_IOC_FSSETXATTR the flags are not known; calls of 32-bit programs and of io_uring are not seen"},
}
