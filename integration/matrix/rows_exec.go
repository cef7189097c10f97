package matrix

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// longArgs arguments of 100 KiB are 3 MiB.
const longArgs = 31

func init() {
	pid := func(c *Checker) Field { return Is("process.pid", c.Number("pid")) }
	register(
		Row{ID: 7, Name: "run a program from memory", Do: runMemory, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", "memfd:mf"), Has("process.flags", record.ProcessMemory),
				Is("process.inode", c.Inode("mf").Ino), Is("process.links", 0), Is("process.size", c.Inode("mf").Size),
				Is("process.filename", fmt.Sprintf("/dev/fd/%d", c.Number("fd"))), Lacks("process.flags", record.ProcessDeleted))
			if c.Covers(record.ClassMemoryFile) {
				c.One(record.ClassMemoryFile, Is("memory.name", "mf"))
			}
			if c.Covers(record.ClassFileModify) {
				c.One(record.ClassFileModify, Is("file.path", "memfd:mf"), Is("file.inode", c.Inode("mf").Ino), Has("file.flags", record.FileMemory))
			}
		}},
		Row{ID: 9, Name: "run a file that never had a name", Do: runTemporary, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Has("process.flags", record.ProcessDeleted), Lacks("process.flags", record.ProcessMemory),
				Is("process.device", c.Inode("tmp").Dev), Is("process.inode", c.Inode("tmp").Ino), Is("process.links", 0))
			c.One(record.ClassFileCreate, Is("file.inode", c.Inode("tmp").Ino), Has("file.flags", record.FileTemporary))
		}},
		Row{ID: 17, Name: "run with very long arguments", Do: func(e *Env) error {
			// A quarter of the stack's limit may be arguments.
			if err := unix.Setrlimit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: 24 << 20, Max: 24 << 20}); err != nil {
				return fmt.Errorf("raise limit of the stack: %w", err)
			}
			args := []string{"sub", "nop"}
			for range longArgs {
				args = append(args, strings.Repeat("x", 100<<10))
			}
			return e.Run("/proc/self/exe", args...)
		}, Check: func(c *Checker) {
			told := 4096 - len("/proc/self/exe\x00sub\x00nop\x00")
			c.One(record.ClassProcessExec, pid(c), Is("process.args_truncated", true), Is("#process.args", 4), Is("process.args[3]", strings.Repeat("x", told)),
				Is("process.args_length", len("/proc/self/exe\x00sub\x00nop\x00")+longArgs*(100<<10+1)))
		}},
		Row{ID: 18, Name: "run with strange arguments", Do: func(e *Env) error {
			return e.Run("/proc/self/exe", "sub", "nop", "", "a\nb", "\xff\xfe", "", "")
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("#process.args", 8), Is("process.args[3]", ""), Is("process.args[4]", "a\nb"),
				Is("process.args[5]", "\xff\xfe"), Is("process.args[6]", ""), Is("process.args[7]", ""), Is("process.args_truncated", false),
				Is("process.args_length", len("/proc/self/exe sub nop  a\nb \xff\xfe   ")))
		}},
		Row{ID: 19, Name: "run a deleted program", Do: func(e *Env) error {
			if err := e.Copy(e.Path("gone")); err != nil {
				return err
			}
			if err := e.Stat("gone", e.Path("gone")); err != nil {
				return err
			}
			fd, err := unix.Open(e.Path("gone"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := os.Remove(e.Path("gone")); err != nil {
				return err
			}
			return e.Run(fmt.Sprintf("/proc/self/fd/%d", fd), "sub", "nop")
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/gone"), Has("process.flags", record.ProcessDeleted),
				Is("process.inode", c.Inode("gone").Ino))
		}},
		Row{ID: 20, Name: "run a set-user-id program", Do: runSetuid, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/su"), Has("process.flags", record.ProcessSetuid|record.ProcessSetgid),
				Lacks("process.flags", record.ProcessFileCaps), Is("process.credentials.uid", 1000), Is("process.credentials.euid", 0), Is("process.credentials.suid", 0),
				Is("process.credentials.gid", 1000), Is("process.credentials.egid", 0))
			// The bit alone is no gain: root has run it too.
			c.One(record.ClassProcessExec, Is("process.pid", c.Number("root")), Is("process.executable", c.Text("dir")+"/su"),
				Lacks("process.flags", record.ProcessSetuid|record.ProcessSetgid|record.ProcessFileCaps))
		}},
		Row{ID: 21, Name: "run a program with capabilities", Do: runCapable, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Has("process.flags", record.ProcessFileCaps), Lacks("process.flags", record.ProcessSetuid|record.ProcessSetgid),
				Is("process.credentials.cap_effective", 1<<unix.CAP_NET_RAW), Is("process.credentials.uid", 1000), Is("process.credentials.euid", 1000))
		}},
		Row{ID: 26, Name: "run a 32-bit program, and a program by a 32-bit call", Do: runCompat, Check: func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/i386"), Has("flags", record.EventCompat), Has("process.flags", record.ProcessCompat))
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/x86"), Has("flags", record.EventCompat))
			c.One(record.ClassProcessExit, pid(c), Is("exit.code", 0), Is("process.executable", c.Text("dir")+"/x86"))
		}, Tracepoint: Other(func(c *Checker) {
			c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/i386"), Has("flags", record.EventCompat), Has("process.flags", record.ProcessCompat))
			by := c.One(record.ClassProcessExec, pid(c), Is("process.executable", c.Text("dir")+"/x86"))
			if by.Flags&record.EventCompat == 0 {
				c.Declared(record.ClassProcessExec, "32-bit calls are not marked")
			}
		})},
		Row{ID: 27, Name: "run a program from a thread that is not the first", Do: func(e *Env) error {
			return e.RunCmd(e.Sub("thread-exec"))
		}, Check: func(c *Checker) {
			fork := c.One(record.ClassProcessFork, pid(c))
			same := []Field{pid(c), Is("process.start", fork.Process.GetStart())}
			first := c.One(record.ClassProcessExec, same, Is("process.args[1]", "sub"), Is("process.args[2]", "thread-exec"))
			second := c.One(record.ClassProcessExec, same, Is("process.args[2]", "nop"), Is("process.args[3]", "from-thread"), Is("process.tid", c.Number("pid")),
				Is("process.exec_count", first.Process.GetExecCount()+1))
			end := c.One(record.ClassProcessExit, same)
			c.Order(fork, first, second, end)
		}},
	)
	registerSub("thread-exec", threadExec)
	register(Row{ID: 230, Name: "run a program whose content nobody knows yet", Do: runNew, Check: func(c *Checker) {
		sum := That("process.sha256", "the digest of the program", func(v any) bool { s, ok := v.(string); return ok && hex.EncodeToString([]byte(s)) == c.Text("sha256") })
		file := []Field{Is("process.executable", c.Text("dir")+"/i386"), Is("process.inode", c.Inode("file").Ino), Is("process.device", c.Inode("file").Dev),
			Is("process.size", c.Inode("file").Size), NonZero("process.mtime"), NonZero("process.ctime")}
		// From when it is known, the start itself tells it: that may be the
		// first one, if the agent has read what was written already.
		known := 0
		for _, s := range c.N(runsOfNew+2, record.ClassProcessExec, file) {
			p := s.Event().Process
			if len(p.Sha256) > 0 {
				known++
			}
			later := c.All(record.ClassProcessDigest, file, sum, Is("process.pid", p.Pid), Is("process.start", p.Start), Is("process.exec_count", p.ExecCount),
				Is("reason", ""), Is("header.lane", record.NoLane))
			if known := len(p.Sha256) > 0; known == (len(later) == 1) || known && len(c.All(record.ClassProcessExec, sum, Is("process.pid", p.Pid))) != 1 {
				c.Errorf("process %d: digest %x at its start, %d records with the digest after it", p.Pid, p.Sha256, len(later))
			}
		}
		if known == 0 {
			c.Errorf("no start tells the digest, not even after twice %v", settled)
		}
	}}, Row{ID: 232, Name: "write a file whose digest is wanted", Do: writeDigested, Check: func(c *Checker) {
		if !c.Covers(record.ClassFileClose) {
			return
		}
		f := c.Inode("f")
		closed := c.One(record.ClassFileClose, File(c.Text("dir")+"/f", f))
		digest := c.One(record.ClassFileDigest, File(c.Text("dir")+"/f", f), Is("file.size", f.Size), Is("process.pid", c.Number("self")), Is("reason", ""),
			That("file.sha256", "the digest of the content", func(v any) bool { s, ok := v.(string); return ok && hex.EncodeToString([]byte(s)) == c.Text("sha256") }))
		c.Order(closed, digest)
	}})
}

// writeDigested writes a file, and stays while the agent reads it: with the
// last process of its own namespaces the file is gone.
func writeDigested(e *Env) error {
	data := []byte("some content\n")
	if err := os.WriteFile(e.Path("f"), data, 0o644); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	e.Fact("sha256", hex.EncodeToString(sum[:]))
	time.Sleep(settled)
	return e.Stat("f", e.Path("f"))
}

// settled is how long a file must stay for its digest to be certain.
const settled = 6 * time.Second

// runsOfNew is how often a new program is run: in some guests it takes longer
// than that until the agent has read it.
const runsOfNew = 20

// runNew runs a program again and again while the agent reads it.
func runNew(e *Env) error {
	program := i386()
	if err := os.WriteFile(e.Path("i386"), program, 0o755); err != nil {
		return err
	}
	if err := e.Stat("file", e.Path("i386")); err != nil {
		return err
	}
	sum := sha256.Sum256(program)
	e.Fact("sha256", hex.EncodeToString(sum[:]))
	time.Sleep(100 * time.Millisecond) // what runs right behind a change is told as unsettled
	for range runsOfNew {
		if err := e.Run(e.Path("i386")); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Once more when the agent is sure of it, and again: what it has read of a
	// file that was written is not remembered for its execution.
	time.Sleep(settled)
	if err := e.Run(e.Path("i386")); err != nil {
		return err
	}
	time.Sleep(settled)
	return e.Run(e.Path("i386"))
}

// execAt is a call that runs an open file with act's own arguments.
func execAt(fd int) (Call, []*byte) {
	empty, keep := CString("")
	argv := vector("act", "sub", "nop")
	return call(unix.SYS_EXECVEAT, uintptr(fd), empty, uintptr(unsafe.Pointer(&argv[0])), 0, unix.AT_EMPTY_PATH), append(argv, keep)
}

// runOpen copies this program into an open file, and runs that.
func runOpen(e *Env, name string, fd int) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	// Not to be inherited for writing by what is run: it would be busy.
	w := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(w, self); err != nil {
		return err
	}
	run, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(run)
	if err := w.Close(); err != nil {
		return err
	}
	if err := e.Fstat(name, run); err != nil {
		return err
	}
	x, keep := execAt(run)
	f, err := e.Fork([]Call{x}, keep...)
	runtime.KeepAlive(keep)
	if err != nil {
		return err
	}
	if !f.Status.Exited() || f.Status.ExitStatus() != 0 || f.Results[0] != 0 {
		return fmt.Errorf("execveat returned %d, status %#x", f.Results[0], f.Status)
	}
	e.Fact("pid", f.Pid)
	e.Fact("fd", run)
	return nil
}

func runMemory(e *Env) error {
	fd, err := unix.MemfdCreate("mf", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	return runOpen(e, "mf", fd)
}

func runTemporary(e *Env) error {
	fd, err := unix.Open(e.Dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	return runOpen(e, "tmp", fd)
}

// as makes a command run with other ids. The directory is entered already: its
// parents may be closed to them.
func as(c *exec.Cmd, id uint32) *exec.Cmd {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	return c
}

func runSetuid(e *Env) error {
	if err := e.Copy(e.Path("su")); err != nil {
		return err
	}
	if err := os.Chmod(e.Path("su"), 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		return err
	}
	if err := e.RunCmd(&exec.Cmd{Path: "./su", Args: []string{"su", "sub", "nop"}}); err != nil {
		return err
	}
	e.facts["root"] = e.facts["pid"]
	return e.RunCmd(as(&exec.Cmd{Path: "./su", Args: []string{"su", "sub", "nop"}}, 1000))
}

func runCapable(e *Env) error {
	if err := e.Copy(e.Path("ping")); err != nil {
		return err
	}
	// struct vfs_cap_data of revision 2, effective.
	var v bytes.Buffer
	if err := binary.Write(&v, binary.LittleEndian, []uint32{0x02000001, 1 << unix.CAP_NET_RAW, 0, 0, 0}); err != nil {
		return err
	}
	if err := unix.Setxattr(e.Path("ping"), "security.capability", v.Bytes(), 0); err != nil {
		return err
	}
	return e.RunCmd(as(&exec.Cmd{Path: "./ping", Args: []string{"ping", "sub", "nop"}}, 1000))
}

// i386 is a 32-bit program that runs ./x86 with the arguments "x86 sub nop" by
// the 32-bit way into the kernel, and fails with 9 if that returns.
func i386() []byte {
	const base, head = 0x08048000, 52 + 32
	code := []byte{
		0xb8, 11, 0, 0, 0, // mov eax, execve
		0xbb, 0, 0, 0, 0, // mov ebx, path
		0xb9, 0, 0, 0, 0, // mov ecx, argv
		0x31, 0xd2, // xor edx, edx
		0xcd, 0x80, // int 0x80
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xbb, 9, 0, 0, 0, // mov ebx, 9
		0xcd, 0x80,
	}
	data := []byte("./x86\x00sub\x00nop\x00")
	at := uint32(base + head + len(code))
	argv := at + uint32(len(data))
	le := binary.LittleEndian
	le.PutUint32(code[6:], at)
	le.PutUint32(code[11:], argv)
	for _, p := range []uint32{at + 2, at + 6, at + 10, 0} {
		data = le.AppendUint32(data, p)
	}
	size := uint32(head + len(code) + len(data))
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, 3) // i386
	for _, v := range []uint32{1, base + head, 52, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{52, 32, 1, 40, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		b = le.AppendUint32(b, v)
	}
	return append(append(b, code...), data...)
}

func runCompat(e *Env) error {
	if err := e.Copy(e.Path("x86")); err != nil {
		return err
	}
	if err := os.WriteFile(e.Path("i386"), i386(), 0o755); err != nil {
		return err
	}
	c := &exec.Cmd{Path: "./i386", Args: []string{"i386"}}
	if err := e.RunCmd(c); err != nil {
		return err
	}
	if !c.ProcessState.Success() {
		return fmt.Errorf("the 32-bit program ended with %s", c.ProcessState)
	}
	return nil
}

// threadExec runs another program from a thread that is not the process's first.
func threadExec([]string) int {
	for {
		failed := make(chan error)
		go func() {
			runtime.LockOSThread() // and not unlocked: another goroutine gets another thread
			if unix.Gettid() != os.Getpid() {
				failed <- syscall.Exec("/proc/self/exe", []string{"act", "sub", "nop", "from-thread"}, nil)
			}
			failed <- nil
			select {}
		}()
		if err := <-failed; err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}
