package matrix

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 80, Name: "mount a file system", Do: func(e *Env) error {
			return onMount(e, func() error { return nil })
		}, Check: func(c *Checker) {
			c.One(record.ClassFileMount, at(c), Is("mount.operation", "mount"), Is("mount.api", "mount"), Is("mount.type", "tmpfs"), Is("mount.source", "source"),
				Is("mount.flags", unix.MS_NOSUID))
			c.N(1, record.ClassFileMount)
		}},
		Row{ID: 81, Name: "mount by the new calls", Do: func(e *Env) error {
			if err := os.Mkdir(e.Path("m"), 0o755); err != nil {
				return err
			}
			fs, err := unix.Fsopen("tmpfs", 0)
			if err != nil {
				return err
			}
			if err := errors.Join(unix.FsconfigSetString(fs, "source", "source"), unix.FsconfigCreate(fs)); err != nil {
				return err
			}
			mnt, err := unix.Fsmount(fs, 0, 0)
			if err != nil {
				return err
			}
			return errors.Join(unix.MoveMount(mnt, "", unix.AT_FDCWD, e.Path("m"), unix.MOVE_MOUNT_F_EMPTY_PATH), e.Stat("m", e.Path("m")),
				unix.Close(mnt), unix.Close(fs), unix.Unmount(e.Path("m"), 0))
		}, Check: func(c *Checker) {
			m := c.One(record.ClassFileMount, at(c), Is("mount.api", "move_mount"))
			if !c.Tracepoint() && (m.Mount.GetOperation() != "mount" || string(m.Mount.GetType()) != "tmpfs" || string(m.Mount.GetSource()) != "source") {
				c.Errorf("the mount is %v", m.Mount)
			}
			c.N(1, record.ClassFileMount)
		}},
		Row{ID: 82, Name: "bind by the new calls", Do: func(e *Env) error {
			if err := errors.Join(os.Mkdir(e.Path("a"), 0o755), os.Mkdir(e.Path("m"), 0o755)); err != nil {
				return err
			}
			tree, err := unix.OpenTree(unix.AT_FDCWD, e.Path("a"), unix.OPEN_TREE_CLONE)
			if err != nil {
				return err
			}
			return errors.Join(unix.MoveMount(tree, "", unix.AT_FDCWD, e.Path("m"), unix.MOVE_MOUNT_F_EMPTY_PATH), e.Stat("m", e.Path("m")),
				unix.Close(tree), unix.Unmount(e.Path("m"), 0))
		}, Check: func(c *Checker) {
			m := c.One(record.ClassFileMount, at(c), Is("mount.api", "move_mount"))
			if !c.Tracepoint() && m.Mount.GetOperation() != "bind" {
				c.Errorf("the mount is %v", m.Mount)
			}
			c.N(1, record.ClassFileMount)
		}},
		Row{ID: 83, Name: "change the attributes of a mount", Do: func(e *Env) error {
			return onMount(e, func() error {
				err := unix.MountSetattr(unix.AT_FDCWD, e.Path("m"), 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
				e.Fact("done", err == nil)
				if err == unix.ENOSYS { // before 5.12
					return nil
				}
				return err
			})
		}, Check: func(c *Checker) {
			var done bool
			if c.into("done", &done); done {
				c.One(record.ClassFileMount, Is("file.path", c.Text("dir")+"/m"), Is("mount.operation", "setattr"), Is("mount.flags", unix.MOUNT_ATTR_RDONLY))
			}
		}},
		Row{ID: 84, Name: "remount", Do: func(e *Env) error {
			return onMount(e, func() error { return unix.Mount("", e.Path("m"), "", unix.MS_REMOUNT|unix.MS_RDONLY, "") })
		}, Check: func(c *Checker) {
			c.One(record.ClassFileMount, at(c), Is("mount.operation", "remount"), Has("mount.flags", unix.MS_REMOUNT|unix.MS_RDONLY))
			c.N(2, record.ClassFileMount)
		}},
		Row{ID: 85, Name: "unmount, lazily", Do: func(e *Env) error {
			return errors.Join(onMount(e, func() error { return unix.Mount("source", e.Path("m"), "tmpfs", 0, "") }), unix.Unmount(e.Path("m"), unix.MNT_DETACH))
		}, Check: func(c *Checker) {
			path := Is("file.path", c.Text("dir")+"/m")
			first := c.One(record.ClassFileUnmount, path, Is("mount.operation", "unmount"), Is("mount.flags", 0))
			second := c.One(record.ClassFileUnmount, path, Is("mount.flags", unix.MNT_DETACH))
			c.Order(first, second)
			if !c.Tracepoint() && string(first.Mount.GetType()) != "tmpfs" {
				c.Errorf("the mount is %v", first.Mount)
			}
			c.N(2, record.ClassFileUnmount)
		}},
		Row{ID: 86, Name: "pivot_root", Do: func(e *Env) error {
			if err := os.Mkdir(e.Path("r"), 0o755); err != nil {
				return err
			}
			return e.mustRun("pivot", e.Path("r"))
		}, Check: func(c *Checker) {
			root := c.Text("dir") + "/r/n"
			c.One(record.ClassProcessChroot, Is("process.pid", c.Number("pid")), Is("file.path", root), Is("mount.operation", "pivot_root"), Is("mount.source_path", root+"/o"))
		}},
		Row{ID: 87, Name: "enter the mount namespace of another process", Do: func(e *Env) error {
			var st unix.Stat_t
			if err := unix.Stat("/proc/1/ns/mnt", &st); err != nil {
				return err
			}
			e.Fact("mnt", st.Ino)
			return e.mustRun("intomnt", "/proc/1/ns/mnt")
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessNamespace, Is("process.pid", c.Number("pid")), Is("namespaces.operation", "setns"),
				Is("namespaces.mount", c.Number("mnt")), Has("namespaces.changed", unix.CLONE_NEWNS))
		}, GuestOnly: "the machine's first process is not to be entered"},
		Row{ID: 88, Name: "change how mounts spread, and move one", Do: func(e *Env) error {
			return onMount(e, func() error {
				m, to := e.Path("m"), e.Path("m/a/to")
				return errors.Join(unix.Mount("", m, "", unix.MS_PRIVATE, ""), os.MkdirAll(e.Path("m/a/from"), 0o755), os.Mkdir(to, 0o755),
					unix.Mount("x", e.Path("m/a/from"), "tmpfs", 0, ""), unix.Mount(e.Path("m/a/from"), to, "", unix.MS_MOVE, ""), unix.Unmount(to, 0))
			})
		}, Check: func(c *Checker) {
			m := c.Text("dir") + "/m"
			c.One(record.ClassFileMount, at(c), Is("mount.operation", "propagation"), Has("mount.flags", unix.MS_PRIVATE))
			c.One(record.ClassFileMount, Is("file.path", m+"/a/to"), Is("mount.operation", "move"), Is("mount.source", m+"/a/from"))
			c.N(4, record.ClassFileMount)
		}},
		Row{ID: 89, Name: "remount by the new calls", Do: func(e *Env) error {
			return onMount(e, func() error {
				fd, err := unix.Fspick(unix.AT_FDCWD, e.Path("m"), 0)
				if err != nil {
					return err
				}
				return errors.Join(unix.FsconfigSetFlag(fd, "ro"), unix.FsconfigReconfigure(fd), unix.Close(fd))
			})
		}, Check: func(c *Checker) {
			c.One(record.ClassFileMount, at(c), Is("mount.operation", "remount"), Is("mount.api", "fsconfig"), Is("mount.type", "tmpfs"))
		}, Tracepoint: Gap(record.ClassFileMount, "fsconfig")},
	)
	registerSub("pivot", func(args []string) int {
		runtime.LockOSThread() // it is the thread that leaves
		r := args[0]
		if errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("r", r, "tmpfs", 0, ""),
			os.Mkdir(r+"/n", 0o755), unix.Mount("n", r+"/n", "tmpfs", 0, ""), os.Mkdir(r+"/n/o", 0o755), unix.Chroot(r), os.Chdir("/")) != nil {
			return 1
		}
		if unix.PivotRoot("/n", "/n/o") != nil {
			return 2
		}
		return 0
	})
	registerSub("intomnt", func(args []string) int {
		runtime.LockOSThread()
		fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
		if err := errors.Join(err, unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Setns(fd, unix.CLONE_NEWNS)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	})
}

// at is the place m of an act: without LSM the root that is there is not known.
func at(c *Checker) []Field {
	if c.Tracepoint() {
		return []Field{Is("file.path", c.Text("dir")+"/m"), Has("file.flags", record.FileUserPath)}
	}
	return File(c.Text("dir")+"/m", c.Inode("m"))
}

// onMount mounts a file system on m, and takes it away after the act.
func onMount(e *Env, act func() error) error {
	if err := errors.Join(os.Mkdir(e.Path("m"), 0o755), unix.Mount("source", e.Path("m"), "tmpfs", unix.MS_NOSUID, "")); err != nil {
		return err
	}
	return errors.Join(e.Stat("m", e.Path("m")), act(), unix.Unmount(e.Path("m"), 0))
}
