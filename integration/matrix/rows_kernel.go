package matrix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

const (
	wholeMachine = "it would change the whole machine, not a namespace of it"
	spareModule  = "dummy"
)

func init() {
	register(
		Row{ID: 103, Name: "filter a socket", Do: filterSocket, Check: func(c *Checker) {
			c.One(record.ClassKernelBPF, Is("kernel.operation", "socket_filter"), Is("kernel.type", unix.SO_ATTACH_FILTER), Is("kernel.size", 1),
				Is("result_known", true), Is("result", 0))
		}},
		Row{ID: 124, Name: "load a kernel module from a file", GuestOnly: wholeMachine, Spare: []string{spareModule}, Do: loadModule, Check: func(c *Checker) {
			c.One(record.ClassKernelModuleLoad, Is("kernel.operation", "finit_module"), Is("kernel.name", spareModule), NonZero("kernel.size"), NonZero("kernel.signature"),
				Is("file.path", c.Text("module")), Is("file.inode", c.Inode("inode").Ino), Is("file.device", c.Inode("inode").Dev))
			if c.Covers(record.ClassKernelModuleLoad) && !c.Tracepoint() {
				c.One(record.ClassKernelModuleLoad, Is("kernel.operation", "init_module"), Is("result_known", true), Is("result", unix.ENOEXEC))
			}
		}},
		Row{ID: 125, Name: "take a kernel module away", As: 124, GuestOnly: wholeMachine, Check: func(c *Checker) {
			c.One(record.ClassKernelModuleUnload, Is("kernel.name", spareModule), Is("kernel.operation", "unload"))
		}},
		Row{ID: 127, Name: "load a BPF program and a map", Do: loadBPF, Check: func(c *Checker) {
			c.One(record.ClassKernelBPF, Is("kernel.operation", "map_create"), Is("kernel.type", unix.BPF_MAP_TYPE_ARRAY), Is("kernel.name", "mx_map"), Is("kernel.size", 3))
			c.One(record.ClassKernelBPF, Is("kernel.operation", "prog_load"), Is("kernel.type", unix.BPF_PROG_TYPE_SOCKET_FILTER), Is("kernel.name", "mx_prog"), Is("kernel.size", 2))
			c.One(record.ClassKernelBPF, Is("kernel.operation", "link_create"))
		}},
		Row{ID: 128, Name: "open a performance event", Do: func(*Env) error {
			fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY,
				Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}, Check: func(c *Checker) {
			c.One(record.ClassKernelPerf, Is("kernel.operation", "perf_event_open"), Is("kernel.type", unix.PERF_TYPE_SOFTWARE), Is("kernel.id", unix.PERF_COUNT_SW_DUMMY),
				Is("kernel.flags", unix.PERF_FLAG_FD_CLOEXEC))
		}},
		Row{ID: 129, Name: "handle page faults in user space", Do: func(*Env) error {
			fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
			if errno != 0 {
				return errno
			}
			return unix.Close(int(fd))
		}, Check: func(c *Checker) {
			c.One(record.ClassKernelUserfaultfd, Is("kernel.operation", "userfaultfd"), Is("kernel.flags", unix.O_CLOEXEC))
		}},
		Row{ID: 130, Name: "switch hooks off", GuestOnly: wholeMachine, Do: blind, Check: func(c *Checker) {
			if c.Number("errno") != int64(unix.EPERM) {
				c.Errorf("writing 0 to kernel.ftrace_enabled gave error %d, want %d", c.Number("errno"), unix.EPERM)
			}
			if n := c.Number("accepted"); n != 0 {
				c.Errorf("%d of the ways to write 0 were let through", n)
			}
			// Acts of one kind are told once a second, and each of these is told as
			// a change of a parameter besides.
			if len(c.All(record.ClassAgentTamper, Is("tamper.kind", "blind"), Is("tamper.refused", true), Is("process.pid", c.Number("self")), NonZero("object.pid"),
				Has("flags", record.EventRefused))) == 0 {
				c.Errorf("no act against the agent is told")
			}
			c.N(len(blindly), record.ClassKernelParamChange, Is("kernel.name", "kernel.ftrace_enabled"), Is("kernel.value_before", "1"), Is("kernel.refused", true))
			c.One(record.ClassKernelParamChange, Is("kernel.name", "kernel.ftrace_enabled"), Is("kernel.value", " 0"), Is("kernel.value_before", "1"), Is("kernel.refused", true))
		}},
		Row{ID: 131, Name: "change a parameter of the kernel", GuestOnly: wholeMachine, Do: func(*Env) error {
			return os.WriteFile("/proc/sys/kernel/printk_ratelimit_burst", []byte("11\n"), 0)
		}, Check: func(c *Checker) {
			c.One(record.ClassKernelParamChange, Is("kernel.operation", "write"), Is("kernel.name", "kernel.printk_ratelimit_burst"), Is("kernel.value", "11"),
				Is("kernel.value_before", "10"), Is("kernel.refused", false))
		}},
		Row{ID: 132, Name: "load another kernel", GuestOnly: wholeMachine, Do: func(e *Env) error {
			// Nothing to load: what was loaded would be dropped.
			_, _, errno := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0)
			e.Fact("errno", int(errno))
			return nil
		}, Check: func(c *Checker) {
			c.One(record.ClassKernelKexec, Is("kernel.operation", "kexec_load"))
		}},
		Row{ID: 133, Name: "set up io_uring with a thread of the kernel", Do: func(*Env) error {
			params := make([]byte, 120)
			binary.NativeEndian.PutUint32(params[8:], 2) // IORING_SETUP_SQPOLL
			fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
			if errno != 0 {
				return errno
			}
			return unix.Close(int(fd))
		}, Check: func(c *Checker) {
			c.One(record.ClassKernelIOUring, Is("kernel.operation", "io_uring_setup"), Is("kernel.size", 4), Has("kernel.flags", 2))
		}},
	)
}

func filterSocket(*Env) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	all := unix.SockFilter{Code: unix.BPF_RET, K: 0xffff}
	err = unix.SetsockoptSockFprog(s, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all})
	return errors.Join(err, unix.Close(s))
}

// loadModule loads one from its file, fails to load one from memory, and takes
// the first away.
func loadModule(e *Env) error {
	found := "/lib/modules/" + spareModule + ".ko"
	e.Fact("module", found)
	f, err := os.Open(found)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(e.Stat("inode", found), unix.FinitModule(int(f.Fd()), "", 0)); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := unix.InitModule(make([]byte, 4096), ""); !errors.Is(err, unix.ENOEXEC) {
		return fmt.Errorf("loading zeroes as a module gave %v", err)
	}
	return unix.DeleteModule(spareModule, unix.O_NONBLOCK)
}

// bpfCall makes one call of bpf(2) with numbers and names at their offsets.
func bpfCall(cmd uintptr, numbers map[int]uint32, nameAt int, name string, pointers map[int]unsafe.Pointer) (int, error) {
	attr := make([]byte, 128)
	for at, n := range numbers {
		binary.NativeEndian.PutUint32(attr[at:], n)
	}
	for at, p := range pointers {
		binary.NativeEndian.PutUint64(attr[at:], uint64(uintptr(p)))
	}
	copy(attr[nameAt:nameAt+16], name)
	fd, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func loadBPF(*Env) error {
	// Before 5.11 maps and programs count as locked memory. Where the limit may not
	// be lifted and matters, making the map fails.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	m, err := bpfCall(unix.BPF_MAP_CREATE, map[int]uint32{0: unix.BPF_MAP_TYPE_ARRAY, 4: 4, 8: 8, 12: 3}, 28, "mx_map", nil)
	if err != nil {
		return fmt.Errorf("make map: %w", err)
	}
	insns := [...]uint64{0xb7, 0x95} // r0 = 0; exit
	licence := []byte("GPL\x00")
	p, err := bpfCall(unix.BPF_PROG_LOAD, map[int]uint32{0: unix.BPF_PROG_TYPE_SOCKET_FILTER, 4: 2}, 48, "mx_prog",
		map[int]unsafe.Pointer{8: unsafe.Pointer(&insns[0]), 16: unsafe.Pointer(&licence[0])})
	if err != nil {
		return errors.Join(fmt.Errorf("load program: %w", err), unix.Close(m))
	}
	// There is nothing that such a program could be linked to so.
	if _, err := bpfCall(unix.BPF_LINK_CREATE, map[int]uint32{0: uint32(p), 4: 0, 8: 0}, 100, "", nil); err == nil {
		return errors.New("a link of a socket filter was made")
	}
	return errors.Join(unix.Close(p), unix.Close(m))
}

// blindly are ways to write 0: plain, and behind more blanks than a program
// looks at or than a value has room for, which the kernel skips.
var blindly = []string{" 0\n", strings.Repeat(" ", 40) + "0\n", strings.Repeat(" ", 600) + "0\n"}

// blind tries to switch off what most hooks are made of.
func blind(e *Env) error {
	const file = "/proc/sys/kernel/ftrace_enabled"
	accepted := 0
	for i, value := range blindly {
		err := os.WriteFile(file, []byte(value), 0)
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			return err
		}
		if i == 0 {
			e.Fact("errno", int(errno))
		}
		if err != nil {
			continue
		}
		accepted++
		// Nobody refused it: what comes after must be seen again.
		if err := os.WriteFile(file, []byte("1\n"), 0); err != nil {
			return err
		}
	}
	e.Fact("accepted", accepted)
	return nil
}
