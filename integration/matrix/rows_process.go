package matrix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 1, Name: "run a program", Do: runTrue, Check: func(c *Checker) {
			pid, exe := Is("process.pid", c.Number("pid")), c.Text("true")
			fork := c.One(record.ClassProcessFork, pid, Is("process.ppid", c.Number("self")), Is("process.parent_start", c.actor.start), NonZero("process.start"))
			run := c.One(record.ClassProcessExec, pid, Is("process.start", fork.Process.GetStart()), Is("process.executable", exe),
				Is("process.filename", "/bin/true"), Is("#process.args", 1), Is("process.args[0]", "true"), Is("process.args_length", 5),
				Is("process.device", c.Inode("inode").Dev), Is("process.inode", c.Inode("inode").Ino),
				Is("process.ppid", c.Number("self")), Is("process.parent_start", c.actor.start), Is("process.working_directory", c.Text("dir")),
				Is("parent.pid", c.Number("self")), Is("parent.executable", c.Text("exe")),
				Is("process.credentials.uid", 0), Is("process.credentials.euid", 0))
			end := c.One(record.ClassProcessExit, pid, Is("process.start", fork.Process.GetStart()), Is("process.executable", exe), Is("exit.code", 0), Is("exit.signal", 0))
			c.Order(fork, run, end)
		}},
		Row{ID: 2, Name: "run a relative path after chdir", Do: func(e *Env) error {
			if err := e.Copy(e.Path("x")); err != nil {
				return err
			}
			if err := e.Stat("x", e.Path("x")); err != nil {
				return err
			}
			return e.RunCmd(&exec.Cmd{Path: "./x", Args: []string{"x", "sub", "nop"}, Dir: e.Dir})
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, Is("process.pid", c.Number("pid")), Is("process.executable", c.Text("dir")+"/x"),
				Is("process.filename", "./x"), Is("process.working_directory", c.Text("dir")), Is("#process.args", 3), Is("process.args[2]", "nop"),
				Is("process.device", c.Inode("x").Dev), Is("process.inode", c.Inode("x").Ino))
		}},
		Row{ID: 3, Name: "run through a symbolic link", Do: func(e *Env) error {
			if err := e.Copy(e.Path("x")); err != nil {
				return err
			}
			if err := os.Symlink("x", e.Path("ln")); err != nil {
				return err
			}
			return e.Run(e.Path("ln"), "sub", "nop")
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, Is("process.pid", c.Number("pid")), Is("process.executable", c.Text("dir")+"/x"), Is("process.filename", c.Text("dir")+"/ln"))
		}},
		Row{ID: 4, Name: "run /proc/self/exe", Do: func(e *Env) error {
			return e.RunCmd(e.Sub("nop"))
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, Is("process.pid", c.Number("pid")), Is("process.executable", c.Text("exe")), Is("process.filename", "/proc/self/exe"),
				Is("process.inode", c.Inode("act").Ino))
		}},
		Row{ID: 5, Name: "run a script", Do: runScript, Check: func(c *Checker) {
			script, exe := c.Text("dir")+"/s.sh", c.Text("exe")
			pid := Is("process.pid", c.Number("pid"))
			c.One(record.ClassProcessExec, pid) // the interpreter is no second start
			c.One(record.ClassProcessExec, pid, Is("process.executable", exe), Is("process.script", script), Has("process.flags", record.ProcessScript),
				Is("#process.args", 3), Is("process.args[0]", exe), Is("process.args[1]", "nopx"), Is("process.args[2]", script),
				Is("process.inode", c.Inode("act").Ino))
		}},
		Row{ID: 6, Name: "run an open file", Do: runDescriptor, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, Is("process.pid", c.Number("pid")), Is("process.executable", c.Text("exe")),
				Is("process.filename", fmt.Sprintf("/dev/fd/%d", c.Number("fd"))), Is("process.inode", c.Inode("act").Ino))
		}},
		Row{ID: 11, Name: "fail to run a program", Do: runNothing, Check: func(c *Checker) {
			pid := Is("process.pid", c.Number("pid"))
			c.One(record.ClassProcessFork, pid)
			c.None(record.ClassProcessExec, pid)
			c.One(record.ClassProcessExit, pid, Is("exit.code", 7), Is("process.executable", c.Text("exe")))
		}},
		Row{ID: 12, Name: "start programs as fast as possible", Do: storm, Check: checkStorm},
		Row{ID: 13, Name: "start threads", Do: startThreads, Check: func(c *Checker) {
			c.None(record.ClassProcessFork)
			c.None(record.ClassProcessExit)
		}},
		Row{ID: 15, Name: "become a daemon by forking twice", Do: daemon, Check: func(c *Checker) {
			child := c.One(record.ClassProcessFork, Is("process.pid", c.Number("child")), Is("process.ppid", c.Number("self")), Is("process.parent_start", c.actor.start)).Process
			in := []Field{Is("process.pid", c.Number("grandchild")), Is("process.ppid", c.Number("child")), Is("process.parent_start", child.GetStart())}
			grandchild := c.One(record.ClassProcessFork, in).Process
			in = append(in, Is("process.start", grandchild.GetStart()), Is("parent.pid", c.Number("child")), Is("parent.start", child.GetStart()))
			c.One(record.ClassFileCreate, in, Is("file.path", c.Text("dir")+"/d"))
			c.N(2, record.ClassProcessFork)
			c.One(record.ClassProcessExit, Is("process.pid", c.Number("child")), Is("process.start", child.GetStart()))
			c.One(record.ClassProcessExit, in)
		}},
	)
	registerSub("storm", stormSub)
}

func runTrue(e *Env) error {
	exe, err := filepath.EvalSymlinks("/bin/true")
	if err != nil {
		return err
	}
	e.Fact("true", exe)
	if err := e.Stat("inode", exe); err != nil {
		return err
	}
	return e.RunCmd(&exec.Cmd{Path: "/bin/true", Args: []string{"true"}, Dir: e.Dir})
}

func runScript(e *Env) error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.Path("s.sh"), []byte("#!"+exe+" nopx\n"), 0o755); err != nil {
		return err
	}
	return e.Run(e.Path("s.sh"))
}

// call makes a Call.
func call(nr uintptr, args ...uintptr) Call {
	c := Call{Nr: nr}
	copy(c.Args[:], args)
	return c
}

// vector is an argument vector for execve(2); it is kept alive by the one that holds it.
func vector(args ...string) []*byte {
	v := make([]*byte, 0, len(args)+1)
	for _, a := range args {
		_, b := CString(a)
		v = append(v, b)
	}
	return append(v, nil)
}

func runDescriptor(e *Env) error {
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	empty, keep := CString("")
	argv := vector("act", "sub", "nop")
	f, err := e.Fork([]Call{call(unix.SYS_EXECVEAT, uintptr(fd), empty, uintptr(unsafe.Pointer(&argv[0])), 0, unix.AT_EMPTY_PATH)}, append(argv, keep)...)
	if err != nil {
		return err
	}
	runtime.KeepAlive(argv)
	e.Fact("pid", f.Pid)
	e.Fact("fd", fd)
	return nil
}

// runNothing tries to run what is not there and what may not be run.
func runNothing(e *Env) error {
	if err := os.WriteFile(e.Path("data"), []byte("no program\n"), 0o644); err != nil {
		return err
	}
	none, keep1 := CString(e.Path("none"))
	data, keep2 := CString(e.Path("data"))
	argv := vector("x")
	a := uintptr(unsafe.Pointer(&argv[0]))
	end := call(unix.SYS_GETPID)
	end.Exit = 1 + 7
	f, err := e.Fork([]Call{call(unix.SYS_EXECVE, none, a, 0), call(unix.SYS_EXECVE, data, a, 0), end}, append(argv, keep1, keep2)...)
	if err != nil {
		return err
	}
	runtime.KeepAlive(argv)
	if f.Results[0] != -int64(unix.ENOENT) || f.Results[1] != -int64(unix.EACCES) {
		return fmt.Errorf("execve returned %v, want ENOENT and EACCES", f.Results)
	}
	e.Fact("pid", f.Pid)
	return nil
}

func startThreads(e *Env) error {
	var wg sync.WaitGroup
	tids := make(chan int, 4)
	hold := make(chan struct{})
	for range cap(tids) {
		wg.Go(func() {
			runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
			tids <- unix.Gettid()
			<-hold
		})
	}
	seen := map[int]bool{}
	for range cap(tids) {
		seen[<-tids] = true
	}
	close(hold)
	wg.Wait()
	if len(seen) != cap(tids) {
		return fmt.Errorf("%d threads, want %d", len(seen), cap(tids))
	}
	return nil
}

// daemon forks, and the child starts a session, forks and ends; the grandchild
// makes a file when it is an orphan.
func daemon(e *Env) error {
	path, keep := CString(e.Path("d"))
	nap := unix.NsecToTimespec(100e6)
	fork := call(unix.SYS_CLONE, uintptr(syscall.SIGCHLD))
	fork.Skip = 3
	last := call(unix.SYS_GETPID)
	last.Exit = 1
	r, err := e.StartFork(uintptr(syscall.SIGCHLD), []Call{
		call(unix.SYS_SETSID), fork,
		call(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0), call(unix.SYS_OPEN, path, unix.O_CREAT|unix.O_WRONLY, 0o644), last,
	})
	if err != nil {
		return err
	}
	if err := e.Until("the grandchild's file", func() bool { return Exists(e.Path("d")) }); err != nil {
		return err
	}
	grandchild := int64(0)
	if err := e.Until("the grandchild's end", func() bool {
		grandchild = r.Results[4]
		return grandchild > 0 && !Exists("/proc/"+strconv.FormatInt(grandchild, 10))
	}); err != nil {
		return err
	}
	e.Fact("child", r.Pid)
	e.Fact("grandchild", grandchild)
	err = r.Wait()
	runtime.KeepAlive(keep)
	runtime.KeepAlive(&nap)
	return err
}

// storm has a process of its own start programs, one after the other.
func storm(e *Env) error { return e.RunCmd(e.Sub("storm", strconv.Itoa(e.Storm))) }

func stormSub(args []string) int {
	n, err := strconv.Atoi(args[0])
	for range n {
		if err == nil {
			err = startAndWait("/bin/true", "true", "storm")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// checkStorm holds that every program is there, three times.
func checkStorm(c *Checker) {
	by := Is("parent.pid", c.Number("pid"))
	c.Complete(record.ClassProcessFork, int64(c.Storm), by)
	c.Complete(record.ClassProcessExec, int64(c.Storm), by, Is("process.args[1]", "storm"))
	c.Complete(record.ClassProcessExit, int64(c.Storm), by)
	if err := c.Books.Balance(); err != nil {
		c.Errorf("%w", err)
	}
}
