package matrix

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	pid := func(c *Checker) Field { return Is("process.pid", c.Number("pid")) }
	register(
		Row{ID: 22, Name: "change credentials", Do: changeCreds, Check: func(c *Checker) {
			caps := c.One(record.ClassProcessCreds, pid(c), Is("reason", "capset"), Has("credentials_before.cap_effective", 1<<unix.CAP_SYS_ADMIN),
				Is("process.credentials.cap_effective", 1<<unix.CAP_SETUID|1<<unix.CAP_SETGID), Is("process.credentials.uid", 0))
			gid := c.One(record.ClassProcessCreds, pid(c), Is("reason", "setgid"), Is("credentials_before.gid", 0), Is("process.credentials.gid", 2000),
				Is("process.credentials.egid", 2000), Is("process.credentials.sgid", 2000))
			uid := c.One(record.ClassProcessCreds, pid(c), Is("reason", "setresuid"), Is("credentials_before.euid", 0), Is("process.credentials.uid", 1000),
				Is("process.credentials.euid", 1000), Is("process.credentials.suid", 0))
			back := c.One(record.ClassProcessCreds, pid(c), Is("reason", "setuid"), Is("credentials_before.euid", 1000), Is("process.credentials.euid", 0))
			c.Order(caps, gid, uid, back)
			if !c.Tracepoint() {
				c.N(4, record.ClassProcessCreds) // a call that changes nothing is none
				c.One(record.ClassProcessCreds, pid(c), Is("reason", "capset"), NonZero("credentials_before.cap_permitted"),
					Is("process.credentials.cap_permitted", 1<<unix.CAP_SETUID|1<<unix.CAP_SETGID))
			} else {
				c.Declared(record.ClassProcessCreds, "changed nothing")
			}
			// What follows has the new ones.
			c.One(record.ClassProcessExit, pid(c), Is("process.credentials.euid", 0), Is("process.credentials.uid", 1000), Is("process.credentials.gid", 2000))
		}},
		Row{ID: 23, Name: "take another name", Do: func(e *Env) error {
			name, keep := CString("kworker/0:0")
			f, err := e.Fork([]Call{call(unix.SYS_PRCTL, unix.PR_SET_NAME, name)}, keep)
			runtime.KeepAlive(keep)
			e.Fact("pid", f.Pid)
			return err
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessRename, pid(c), Is("process.name", "kworker/0:0"), Is("reason", "act"), Is("process.executable", c.Text("exe")))
			c.One(record.ClassProcessExit, pid(c), Is("process.name", "kworker/0:0"), Is("process.executable", c.Text("exe")))
		}},
		Row{ID: 24, Name: "end by a signal", Do: endBySignal, Check: func(c *Checker) {
			c.One(record.ClassProcessExit, Is("process.pid", c.Number("killed")), Is("exit.signal", 9), Is("exit.code", 0), NonZero("exit.peak_memory"))
			c.One(record.ClassProcessExit, Is("process.pid", c.Number("faulted")), Is("exit.signal", 11), Is("exit.code", 0), Is("exit.core_dumped", false))
		}},
		Row{ID: 25, Name: "kill another process", Do: killOther, Check: func(c *Checker) {
			target := c.One(record.ClassProcessFork, Is("process.pid", c.Number("target")))
			c.One(record.ClassProcessSignal, Is("process.pid", c.Number("self")), Is("reason", "SIGTERM"), Is("object.pid", c.Number("target")),
				Is("object.start", target.Process.GetStart()), Is("object.executable", c.Text("exe")))
			c.N(1, record.ClassProcessSignal, Is("object.pid", c.Number("target"))) // asking with signal 0 is none
			c.One(record.ClassProcessExit, Is("process.pid", c.Number("target")), Is("exit.signal", 15))
		}},
		Row{ID: 28, Name: "change the root directory", Do: func(e *Env) error {
			if err := os.Mkdir(e.Path("root"), 0o755); err != nil {
				return err
			}
			root, keep1 := CString("root")
			none, keep2 := CString("/none")
			f, err := e.Fork([]Call{call(unix.SYS_CHROOT, root), call(unix.SYS_CHROOT, none)}, keep1, keep2)
			runtime.KeepAlive(keep1)
			runtime.KeepAlive(keep2)
			if err == nil && (f.Results[0] != 0 || f.Results[1] != -int64(unix.ENOENT)) {
				err = fmt.Errorf("chroot returned %v", f.Results)
			}
			e.Fact("pid", f.Pid)
			if err == nil {
				err = e.Stat("root", e.Path("root"))
			}
			return err
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessChroot, pid(c), File(c.Text("dir")+"/root", c.Inode("root")))
			c.N(1, record.ClassProcessChroot)
		}},
		Row{ID: 29, Name: "make and enter namespaces", Do: changeNamespaces, Check: func(c *Checker) {
			made := c.One(record.ClassProcessNamespace, pid(c), Is("namespaces.operation", "unshare"), Is("namespaces.changed", unix.CLONE_NEWUTS|unix.CLONE_NEWIPC),
				NonZero("namespaces.uts"), NonZero("namespaces.mount"), NonZero("namespaces.pid"), NonZero("namespaces.network"), NonZero("namespaces.user"),
				NonZero("namespaces.cgroup"), Not("namespaces.uts", c.Number("uts")), Is("namespaces.mount", c.Number("mnt")))
			back := c.One(record.ClassProcessNamespace, pid(c), Is("namespaces.operation", "setns"), Is("namespaces.changed", unix.CLONE_NEWUTS),
				Is("namespaces.uts", c.Number("uts")), Is("namespaces.ipc", made.Namespaces.GetIpc()))
			user := c.One(record.ClassProcessNamespace, pid(c), Is("namespaces.changed", unix.CLONE_NEWUSER), Not("namespaces.user", made.Namespaces.GetUser()),
				NonZero("namespaces.user"))
			c.Order(made, back, user)
			c.One(record.ClassProcessCreds, pid(c), Is("reason", "unshare"), Is("credentials_before.cap_effective", 0), Has("process.credentials.cap_effective", 1<<unix.CAP_SYS_ADMIN))
			child := c.One(record.ClassProcessNamespace, Is("process.pid", c.Number("child")), Is("namespaces.operation", "clone"),
				Is("namespaces.changed", unix.CLONE_NEWNS|unix.CLONE_NEWPID), Is("namespaces.uts", c.Number("uts")), Not("namespaces.mount", c.Number("mnt")))
			// What the child does later is told from where it is.
			c.One(record.ClassProcessExit, Is("process.pid", c.Number("child")), Is("process.mount_namespace", child.Namespaces.GetMount()))
			c.N(4, record.ClassProcessNamespace)
		}},
	)
}

func changeCreds(e *Env) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	const keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	f, err := e.Fork([]Call{
		call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0]))),
		call(unix.SYS_SETGID, 2000),
		call(unix.SYS_SETRESUID, 1000, 1000, 0),
		call(unix.SYS_SETUID, 1000), // as it is
		call(unix.SYS_SETUID, 0),
	})
	runtime.KeepAlive(&head)
	runtime.KeepAlive(&data)
	if err != nil {
		return err
	}
	for i, r := range f.Results {
		if r != 0 {
			return fmt.Errorf("call %d returned %d", i, r)
		}
	}
	e.Fact("pid", f.Pid)
	return nil
}

// endBySignal has children kill themselves, the second by a signal that Go
// would handle.
func endBySignal(e *Env) error {
	f, err := e.Fork([]Call{call(unix.SYS_GETPID), {Nr: unix.SYS_KILL, Args: [6]uintptr{0, uintptr(unix.SIGKILL)}, From: [6]int{1}}})
	if err != nil {
		return err
	}
	e.Fact("killed", f.Pid)
	var action [32]byte // the default
	f, err = e.Fork([]Call{call(unix.SYS_GETPID), call(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&action)), 0, 8),
		{Nr: unix.SYS_KILL, Args: [6]uintptr{0, uintptr(unix.SIGSEGV)}, From: [6]int{1}}})
	runtime.KeepAlive(&action)
	e.Fact("faulted", f.Pid)
	return err
}

func killOther(e *Env) error {
	nap := unix.NsecToTimespec(30e9)
	var action [32]byte
	r, err := e.StartFork(uintptr(syscall.SIGCHLD), []Call{
		call(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTERM), uintptr(unsafe.Pointer(&action)), 0, 8),
		call(unix.SYS_GETPID), call(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0)})
	if err != nil {
		return err
	}
	if err := e.Until("the child to sleep", func() bool { return r.Results[1] != 0 }); err != nil {
		return err
	}
	if err := unix.Kill(r.Pid, 0); err != nil {
		return err
	}
	if err := unix.Kill(r.Pid, unix.SIGTERM); err != nil {
		return err
	}
	e.Fact("target", r.Pid)
	err = r.Wait()
	runtime.KeepAlive(&nap)
	runtime.KeepAlive(&action)
	return err
}

func changeNamespaces(e *Env) error {
	var st unix.Stat_t
	for _, name := range []string{"uts", "mnt"} {
		if err := unix.Stat("/proc/self/ns/"+name, &st); err != nil {
			return err
		}
		e.Fact(name, st.Ino)
	}
	fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f, err := e.Fork([]Call{
		call(unix.SYS_UNSHARE, unix.CLONE_NEWUTS|unix.CLONE_NEWIPC),
		call(unix.SYS_SETNS, uintptr(fd), 0),
		call(unix.SYS_UNSHARE, unix.CLONE_FS), // no namespace
		call(unix.SYS_SETRESUID, 1000, 1000, 1000),
		call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
	})
	if err != nil {
		return err
	}
	for i, r := range f.Results {
		if r != 0 {
			return fmt.Errorf("call %d returned %d", i, r)
		}
	}
	e.Fact("pid", f.Pid)
	r, err := e.StartFork(uintptr(syscall.SIGCHLD)|unix.CLONE_NEWNS|unix.CLONE_NEWPID, []Call{call(unix.SYS_GETPID)})
	if err != nil {
		return err
	}
	e.Fact("child", r.Pid)
	return r.Wait()
}
