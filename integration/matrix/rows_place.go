package matrix

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 54, Name: "write through a bind mount", Do: func(e *Env) error {
			err := errors.Join(os.Mkdir(e.Path("a"), 0o755), os.Mkdir(e.Path("b"), 0o755), os.WriteFile(e.Path("a/passwd"), nil, 0o600),
				e.Stat("f", e.Path("a/passwd")), unix.Mount(e.Path("a"), e.Path("b"), "", unix.MS_BIND, ""))
			return errors.Join(err, os.WriteFile(e.Path("b/passwd"), []byte("x"), 0), unix.Unmount(e.Path("b"), unix.MNT_DETACH)) // the agent may be reading the file for its digest
		}, Check: func(c *Checker) {
			c.One(record.ClassFileMount, Is("mount.operation", "bind"), Is("mount.source", c.Text("dir")+"/a"), Is("file.path", c.Text("dir")+"/b"))
			c.One(record.ClassFileModify, File(c.Text("dir")+"/b/passwd", c.Inode("f")),
				That("file.filesystem_path", "ends with /a/passwd", func(v any) bool { s, ok := v.(string); return ok && strings.HasSuffix(s, "/a/passwd") }))
		}},
		Row{ID: 70, Name: "write inside a changed root", Do: func(e *Env) error {
			if err := os.MkdirAll(e.Path("root"), 0o755); err != nil {
				return err
			}
			// The program must be there to be run: it changes its root itself.
			return errors.Join(e.mustRun("chrooted", e.Path("root")), e.Stat("f", e.Path("root/x")))
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessChroot, Is("process.pid", c.Number("pid")), Is("file.path", c.Text("dir")+"/root"))
			of := File(c.Text("dir")+"/root/x", c.Inode("f"))
			c.One(record.ClassFileCreate, of)
			c.One(record.ClassFileModify, of)
			c.One(record.ClassFileCreate, Is("file.path", c.Text("dir")+"/root/made"), Is("file.mode", unix.S_IFDIR|0o755))
		}},
		Row{ID: 71, Name: "write in a file system nobody else sees", Do: func(e *Env) error {
			var st unix.Stat_t
			if err := errors.Join(os.Mkdir(e.Path("t"), 0o755), unix.Stat("/proc/self/ns/mnt", &st)); err != nil {
				return err
			}
			e.Fact("mntns", st.Ino)
			cmd := e.Sub("hidden", e.Path("t"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
			err := e.RunCmd(cmd)
			if Exists(e.Path("t/x")) {
				err = errors.Join(err, errors.New("the file is seen from outside"))
			}
			return err
		}, Check: func(c *Checker) {
			write := c.One(record.ClassFileModify, Is("process.pid", c.Number("pid")), Is("file.path", c.Text("dir")+"/t/x"))
			mount := c.One(record.ClassFileMount, Is("process.pid", c.Number("pid")), Is("file.path", c.Text("dir")+"/t"), Is("mount.type", "tmpfs"))
			run := c.One(record.ClassProcessExec, Is("process.pid", c.Number("pid")))
			// Between fork and exec: it is the child, with its parent's image.
			into := c.One(record.ClassProcessNamespace, Is("process.pid", c.Number("pid")), Is("namespaces.operation", "unshare"), Is("namespaces.changed", unix.CLONE_NEWNS),
				Is("process.executable", c.Text("exe")), Is("process.start", run.Process.GetStart()), Is("namespaces.mount", write.Process.GetMountNamespace()))
			c.Order(into, run, mount, write)
			if ns := write.Process.GetMountNamespace(); ns == uint32(c.Number("mntns")) || ns != run.Process.GetMountNamespace() || ns != mount.Process.GetMountNamespace() {
				c.Errorf("written in mount namespace %d", ns)
			}
		}},
		Row{ID: 72, Name: "write on overlayfs", Needs: []string{"overlay"}, Do: overlay, Check: func(c *Checker) {
			m := c.Text("dir") + "/m"
			for _, n := range []string{"/low", "/new"} {
				c.One(record.ClassFileModify, Is("process.pid", c.Number("pid")), Is("file.path", m+n), Is("file.device", c.Inode("m").Dev), NonZero("file.inode"))
			}
			by := Is("process.pid", c.Number("pid"))
			c.N(2, record.ClassFileModify, by)
			if c.Covers(record.ClassFileClose) {
				c.N(2, record.ClassFileClose, by, Starts("file.path", m+"/"))
				c.N(2, record.ClassFileClose, by)
			}
			c.One(record.ClassFileCreate, by, Is("file.path", m+"/new"))
			c.One(record.ClassFileCreate, by, Is("file.path", m+"/d"))
			c.N(2, record.ClassFileCreate, by)
			c.One(record.ClassFileChmod, by, Is("file.path", m+"/new"))
			c.N(1, record.ClassFileChmod, by)
			c.One(record.ClassFileXattr, by, Is("file.path", m+"/new"), Is("file.attribute", "trusted.x"))
			c.N(1, record.ClassFileXattr, by)
			c.One(record.ClassFileRename, by, Is("file.path", m+"/new"), Is("target.path", m+"/moved"))
			c.N(1, record.ClassFileRename, by)
			c.One(record.ClassFileDelete, by, Is("file.path", m+"/low"))
			c.N(1, record.ClassFileDelete, by)
		}},
		Row{ID: 73, Name: "write as root of a user namespace", Do: func(e *Env) error {
			if err := errors.Join(os.Mkdir(e.Path("d"), 0o777), os.Chmod(e.Path("d"), 0o777)); err != nil {
				return err
			}
			cmd := e.Sub("prepare", "d/x") // by a path that needs no leave above
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
				Credential: &syscall.Credential{NoSetGroups: true}}
			return errors.Join(e.RunCmd(cmd), e.Stat("x", e.Path("d/x")))
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessNamespace, Is("process.pid", c.Number("pid")), Is("namespaces.operation", "clone"), Is("namespaces.changed", unix.CLONE_NEWUSER))
			c.One(record.ClassFileCreate, File(c.Text("dir")+"/d/x", c.Inode("x")), Is("file.uid", 1000), Is("process.credentials.euid", 1000))
		}},
	)
	register(Row{ID: 220, Name: "make a shared mapping on overlayfs writable", Needs: []string{"overlay"}, Do: func(e *Env) error {
		return onOverlay(e, func() error { return e.mustRun("remapped", e.Path("m/low")) })
	}, Check: func(c *Checker) {
		by := Is("process.pid", c.Number("pid"))
		c.One(record.ClassFileModify, by, Is("file.path", c.Text("dir")+"/m/low"), Is("file.how", "mmap"), Is("file.device", c.Inode("m").Dev))
		c.N(1, record.ClassFileModify, by)
	}, Tracepoint: Gap(record.ClassFileModify, "mprotect")})
	register(Row{ID: 221, Name: "write to a file system that is unmounted", Do: func(e *Env) error {
		err := errors.Join(os.MkdirAll(e.Path("m"), 0o755), unix.Mount("m", e.Path("m"), "tmpfs", 0, ""), os.Mkdir(e.Path("m/etc"), 0o755))
		if err != nil {
			return err
		}
		fd, err := unix.Open(e.Path("m/etc/shadow"), unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(unix.Unmount(e.Path("m"), unix.MNT_DETACH), full(unix.Write(fd, []byte("x"))), e.Fstat("f", fd), unix.Close(fd))
	}, Check: func(c *Checker) {
		c.One(record.ClassFileCreate, File(c.Text("dir")+"/m/etc/shadow", c.Inode("f")), Lacks("file.flags", record.FileDetached))
		c.One(record.ClassFileModify, File("etc/shadow", c.Inode("f")), Has("file.flags", record.FileDetached))
	}})
	registerSub("remapped", func(args []string) int {
		fd, err := unix.Open(args[0], unix.O_RDWR, 0)
		if err != nil || store(fd, unix.PROT_READ) != nil {
			return 1
		}
		return 0
	})
	registerSub("chrooted", func(args []string) int {
		if errors.Join(unix.Chroot(args[0]), os.Chdir("/"), os.WriteFile("/x", []byte("x"), 0o600), os.Mkdir("/made", 0o755)) != nil {
			return 1
		}
		return 0
	})
	registerSub("hidden", func(args []string) int {
		if errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", args[0], "tmpfs", 0, ""),
			os.WriteFile(args[0]+"/x", []byte("x"), 0o600)) != nil {
			return 1
		}
		return 0
	})
	registerSub("layered", func(args []string) int {
		m := args[0]
		f, err := os.OpenFile(m+"/low", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return 1
		}
		_, err = f.WriteString("more")
		err = errors.Join(err, f.Close(), os.WriteFile(m+"/new", []byte("x"), 0o600), unix.Mkdir(m+"/d", 0o755), unix.Chmod(m+"/new", 0o640),
			unix.Setxattr(m+"/new", "trusted.x", []byte("x"), 0), unix.Rename(m+"/new", m+"/moved"), unix.Unlink(m+"/low"))
		if err != nil {
			return 2
		}
		return 0
	})
}

// mustRun runs a program of ours that must end well.
func (e *Env) mustRun(name string, args ...string) error {
	cmd := e.Sub(name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, out)
	}
	e.Fact("pid", cmd.Process.Pid)
	return nil
}

// overlay writes, makes, changes and removes files on an overlay of its own.
func overlay(e *Env) error {
	return onOverlay(e, func() error { return e.mustRun("layered", e.Path("m")) })
}

// onOverlay mounts an overlay on m, with a file low below.
func onOverlay(e *Env, act func() error) error {
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(e.Path(d), 0o755); err != nil {
			return err
		}
	}
	err := errors.Join(os.WriteFile(e.Path("l/low"), []byte("low file"), 0o600),
		unix.Mount("overlay", e.Path("m"), "overlay", 0, "lowerdir="+e.Path("l")+",upperdir="+e.Path("u")+",workdir="+e.Path("w")))
	if err != nil {
		return err
	}
	return errors.Join(e.Stat("m", e.Path("m")), act(), unix.Unmount(e.Path("m"), unix.MNT_DETACH)) // as above
}
