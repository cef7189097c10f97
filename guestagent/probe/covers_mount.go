package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

var (
	progMount        = program{name: "on_mount", hook: "fexit/path_mount"}
	progMoveMount    = program{name: "on_move_mount", hook: "lsm/move_mount"}
	progUmount       = program{name: "on_umount", hook: "lsm/sb_umount"}
	progPivot        = program{name: "on_pivot_root", hook: "lsm/sb_pivotroot"}
	progReconfigure  = program{name: "on_reconfigure", hook: "fexit/reconfigure_super"}
	progMountSetattr = program{name: "on_mount_setattr", hook: "fexit/__x64_sys_mount_setattr"}

	progMounts = program{name: "on_mounts", hook: "tp_btf/sys_exit(mount)", calls: []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOUNT_SETATTR}}
	progMoved = program{name: "on_moved", hook: "tp_btf/sys_exit(move_mount)", calls: []uint32{unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT}}
)

var mountLSM = []cover{
	{class: record.ClassFileMount, needs: []program{progMount, progMoveMount}, extra: []program{progReconfigure, progMountSetattr},
		limit: "of move_mount(2) permitted attempts are told, their result is not; mount_setattr(2) by 32-bit programs is not seen"},
	{class: record.ClassFileUnmount, needs: []program{progUmount}, limit: attemptsOf + "; mounts that go with their name space are not told"},
}

var mountTracepoint = []cover{
	{class: record.ClassFileMount, needs: []program{progMounts, progMoved},
		limit: "remounting by fsconfig(2) is not seen; of move_mount(2) the type is not known; " + userNames},
	{class: record.ClassFileUnmount, needs: []program{progMounts}, limit: "mounts that go with their name space are not told; " + userNames},
}
