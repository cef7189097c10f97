package matrix

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// grown is what rows of growth ask for at once: more than the agent's default.
const grown = 80 << 20

func init() {
	register(
		Row{ID: 110, Name: "map memory that may be written and executed", Do: func(e *Env) error {
			return e.mapped("map", -1, 8192, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		}, Check: func(c *Checker) {
			c.One(record.ClassMemoryMap, Is("memory.kind", "mmap"), Is("memory.anonymous", true), Is("memory.protection", 7), Is("memory.length", 8192),
				Is("memory.address", c.Number("map")), Is("result_known", true), Is("result", 0), NonZero("memory.total"), Is("file.path", ""))
		}},
		Row{ID: 111, Name: "map a file to execute, twice", Do: mapFile, Check: func(c *Checker) {
			file := Is("file.path", c.Text("dir")+"/lib")
			c.One(record.ClassMemoryMap, file)
			c.One(record.ClassMemoryMap, file, Is("file.device", c.Inode("lib").Dev), Is("file.inode", c.Inode("lib").Ino), Is("memory.anonymous", false),
				Is("memory.protection", 5), Is("memory.address", c.Number("map")), Is("memory.length", 4096))
		}},
		Row{ID: 112, Name: "make memory executable", Do: protect, Check: func(c *Checker) { checkProtect(c, Is("memory.protection_before", 3), Is("memory.anonymous", true)) },
			Tracepoint: Gap(record.ClassMemoryProtect, "what was allowed before").And(Other(func(c *Checker) { checkProtect(c) }))},
		Row{ID: 113, Name: "allocate much memory at once", Do: func(e *Env) error {
			return e.mapped("map", -1, grown, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		}, Check: func(c *Checker) {
			c.One(record.ClassMemoryAllocate, Is("memory.kind", "mmap"), Is("memory.length", grown), Is("memory.address", c.Number("map")), Is("memory.anonymous", true),
				AtLeast("memory.total", grown))
		}},
		Row{ID: 114, Name: "move executable memory", Do: remap, Check: func(c *Checker) {
			c.One(record.ClassMemoryMap, Is("memory.address", c.Number("map")))
			c.None(record.ClassMemoryProtect)
		}},
		Row{ID: 115, Name: "grow the heap much at once", Do: growHeap, Check: func(c *Checker) {
			c.One(record.ClassMemoryAllocate, Is("memory.kind", "brk"), Is("memory.length", grown), Is("memory.anonymous", true))
		}},
		Row{ID: 117, Name: "make a mapping grow much at once", Do: growMapping, Check: func(c *Checker) {
			c.One(record.ClassMemoryAllocate, Is("memory.kind", "mremap"), Is("memory.length", grown))
		}},
		Row{ID: 116, Name: "make a file in memory", Do: makeMemfd, Check: func(c *Checker) {
			c.One(record.ClassMemoryFile, Is("memory.kind", "memfd"), Is("memory.name", "mf\xff"), Is("memory.flags", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING),
				Is("file.path", "memfd:mf\xff"), Is("file.inode", c.Inode("memfd").Ino), Has("file.flags", record.FileMemory), Is("result_known", true))
		}},
		Row{ID: 118, Name: "attach to a process and write its memory", Do: attachAndPoke, Check: func(c *Checker) {
			o := Is("object.pid", c.Number("victim"))
			c.One(record.ClassProcessTrace, Is("reason", "attach"), o, NonZero("object.start"), Is("object.executable", c.Text("exe")))
			c.One(record.ClassProcessTrace, Is("reason", "poke"), o, NonZero("memory.address"))
			c.One(record.ClassProcessTrace, Is("reason", "detach"), o)
			c.None(record.ClassProcessTrace, Is("reason", "vm_write"))
		}},
		Row{ID: 119, Name: "seize a process", Do: seize, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "seize"), Is("object.pid", c.Number("victim")), NonZero("object.start"))
		}},
		Row{ID: 120, Name: "ask to be traced", Do: func(e *Env) error {
			f, err := e.Fork([]Call{{Nr: unix.SYS_PTRACE, Args: [6]uintptr{unix.PTRACE_TRACEME}}})
			e.Fact("pid", f.Pid)
			return err
		}, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "traceme"), Is("process.pid", c.Number("pid")), Is("object.pid", c.Number("self")), Is("object.start", c.actor.start))
		}},
		Row{ID: 121, Name: "write another process's memory", Do: func(e *Env) error { return e.transfer(unix.SYS_PROCESS_VM_WRITEV) }, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "vm_write"), Is("object.pid", c.Number("victim")), NonZero("object.start"))
			c.None(record.ClassProcessTrace, Is("reason", "vm_read"))
		}},
		Row{ID: 122, Name: "read another process's memory", Do: func(e *Env) error { return e.transfer(unix.SYS_PROCESS_VM_READV) }, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "vm_read"), Is("object.pid", c.Number("victim")), NonZero("object.start"))
			c.None(record.ClassProcessTrace, Is("reason", "vm_write"))
		}},
		Row{ID: 123, Name: "open another process's memory to write it", Do: openMem, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "mem"), Is("object.pid", c.Number("victim")), NonZero("object.start"))
		}, Tracepoint: Gap(record.ClassProcessTrace, "/proc/PID/mem")},
		Row{ID: 126, Name: "take a descriptor of another process", Do: takeDescriptor, Check: func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "getfd"), Is("object.pid", c.Number("victim")), NonZero("object.start"))
		}},
	)
	registerSub("wait", func([]string) int { time.Sleep(time.Minute); return 0 })
}

// mapped maps and notes the address.
func (e *Env) mapped(name string, fd, length, prot, flags int) error {
	p, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(length), uintptr(prot), uintptr(flags), uintptr(fd), 0)
	if errno != 0 {
		return fmt.Errorf("map: %w", errno)
	}
	e.Fact(name, uint64(p))
	return nil
}

func mapFile(e *Env) error {
	if err := os.WriteFile(e.Path("lib"), make([]byte, 4096), 0o755); err != nil {
		return err
	}
	f, err := os.Open(e.Path("lib"))
	if err != nil {
		return err
	}
	defer f.Close()
	err = errors.Join(e.Stat("lib", e.Path("lib")), e.mapped("map", int(f.Fd()), 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE))
	return errors.Join(err, e.mapped("again", int(f.Fd()), 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE))
}

func protect(e *Env) error {
	m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	e.Fact("map", uint64(uintptr(unsafe.Pointer(&m[0]))))
	// Only the first page: the second keeps what it had.
	return unix.Mprotect(m[:4096], unix.PROT_READ|unix.PROT_EXEC)
}

func checkProtect(c *Checker, more ...any) {
	c.None(record.ClassMemoryMap, Is("memory.address", c.Number("map")))
	c.One(record.ClassMemoryProtect, append(more, Is("memory.kind", "protect"), Is("memory.protection", 5), Is("memory.address", c.Number("map")), Is("memory.length", 4096))...)
}

func remap(e *Env) error {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	e.Fact("map", uint64(uintptr(unsafe.Pointer(&m[0]))))
	_, err = unix.Mremap(m, 8192, unix.MREMAP_MAYMOVE)
	return err
}

// growHeap uses the heap that this program's runtime has no use for.
func growHeap(e *Env) error {
	end, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	got, _, _ := unix.Syscall(unix.SYS_BRK, end+grown, 0, 0)
	if got != end+grown {
		return fmt.Errorf("grow heap: it ends at %#x, asked for %#x", got, end+grown)
	}
	return nil
}

func growMapping(e *Env) error {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	_, err = unix.Mremap(m, 4096+grown, unix.MREMAP_MAYMOVE)
	return err
}

func makeMemfd(e *Env) error {
	fd, err := unix.MemfdCreate("mf\xff", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	return errors.Join(e.Fstat("memfd", fd), unix.Close(fd))
}

// target lies at the same address in every process of this program.
var target [16]byte

// victim starts a process to act upon, and ends it.
func (e *Env) victim(act func(pid int) error) error {
	cmd := e.Sub("wait")
	if err := cmd.Start(); err != nil {
		return err
	}
	e.Fact("victim", cmd.Process.Pid)
	// Until it has its own image, it is this program in another state.
	err := e.Until("the process to act upon", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return err == nil && len(b) > 0 && string(b[len(b)-5:]) == "wait\x00"
	})
	if err == nil {
		err = act(cmd.Process.Pid)
	}
	_ = cmd.Process.Kill() // Wait tells
	_ = cmd.Wait()
	return err
}

func attachAndPoke(e *Env) error {
	runtime.LockOSThread() // a process is traced by a thread
	defer runtime.UnlockOSThread()
	return e.victim(func(pid int) error {
		if err := syscall.PtraceAttach(pid); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
			return err
		}
		for range 2 {
			if _, err := syscall.PtracePokeData(pid, uintptr(unsafe.Pointer(&target)), []byte("12345678")); err != nil {
				return fmt.Errorf("poke: %w", err)
			}
		}
		return syscall.PtraceDetach(pid)
	})
}

func seize(e *Env) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return e.victim(func(pid int) error {
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("seize: %w", errno)
		}
		return nil
	})
}

// transfer moves a few bytes between this process and another.
func (e *Env) transfer(call uintptr) error {
	return e.victim(func(pid int) error {
		var local [8]byte
		here := unix.Iovec{Base: &local[0], Len: 8}
		there := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&target)), Len: 8}
		for range 2 {
			if _, _, errno := unix.Syscall6(call, uintptr(pid), uintptr(unsafe.Pointer(&here)), 1, uintptr(unsafe.Pointer(&there)), 1, 0); errno != 0 {
				return fmt.Errorf("transfer: %w", errno)
			}
		}
		return nil
	})
}

func openMem(e *Env) error {
	return e.victim(func(pid int) error {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func takeDescriptor(e *Env) error {
	return e.victim(func(pid int) error {
		p, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		fd, err := unix.PidfdGetfd(p, 0, 0)
		if err != nil {
			return errors.Join(err, unix.Close(p))
		}
		return errors.Join(unix.Close(fd), unix.Close(p))
	})
}
