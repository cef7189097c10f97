package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
)

// CanaryArg is the first argument of the child that acts for the agent; what
// follows is the growth of memory that is told, in bytes.
const CanaryArg = "-canary"

// Canary does one harmless act of each kind and returns. It is what a program
// started with CanaryArg does and nothing else. What cannot be done here does
// not matter: only hooks that have been seen to fire are expected to.
func Canary(args []string) {
	allocate := uint64(0)
	if len(args) > 0 {
		allocate, _ = strconv.ParseUint(args[0], 10, 63) // 0 when it is none: nothing is allocated
	}
	for _, p := range parts {
		_ = p.act(allocate)
	}
	_ = errors.Join(actOnFile(), actOnSockets(), actOnMounts())
	actOnKernel()
}

// actOnFile changes what surrounds the content of a file.
func actOnFile() error {
	return at(func(dir int) error {
		fd, err := unix.Openat(dir, "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		_ = unix.Fsetxattr(fd, "trusted.provost", []byte("x"), 0) // some kernels have none here
		long := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		return errors.Join(unix.Close(fd), unix.UtimesNanoAt(dir, "f", long, 0), unix.Symlinkat("f", dir, "l"), unix.Mkdirat(dir, "d", 0o700),
			unix.Unlinkat(dir, "d", unix.AT_REMOVEDIR))
	})
}

// actOnMounts mounts in a namespace of its own, which ends with this process.
func actOnMounts() error {
	runtime.LockOSThread() // and never unlocked: no other code is to run there
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return errors.Join(unix.Mount("provost", "/proc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""), unix.Unmount("/proc", unix.MNT_DETACH))
}

// actOnSockets connects to itself.
func actOnSockets() error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		return err
	}
	to, err := unix.Getsockname(l)
	if err != nil {
		return err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, to); err != nil {
		return err
	}
	a, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	u, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errors.Join(err, unix.Close(a))
	}
	// Nobody has that port; the datagram is seen where it leaves.
	err = unix.Sendto(u, []byte("x"), 0, to)
	return errors.Join(err, unix.Close(a), unix.Close(u))
}

// actOnKernel asks for what the kernel gives or refuses without any effect.
func actOnKernel() {
	if f, err := os.OpenFile("/proc/sys/kernel/pid_max", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("x") // no number: refused behind the hook
		_ = f.Close()
	}
	var attr [64]byte // of program 0, which there never is
	_, _, _ = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	pe := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	if fd, err := unix.PerfEventOpen(&pe, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC); err == nil {
		_ = unix.Close(fd)
	}
	if fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1, 0, 0); errno == 0 { // of user mode only
		_ = unix.Close(int(fd))
	}
	var params [120]byte
	if fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0); errno == 0 {
		_ = unix.Close(int(fd))
	}
}

// canaryTime is how long the child may take. It takes a few milliseconds; a
// machine that is starved of processor time is not one that is tampered with.
const canaryTime = 30 * time.Second

// child has a child of this process act, and returns which hooks saw it. Only
// one may be under way.
func (k *kernel) child(ctx context.Context, s *stats, command []string, allocate uint64) (seen [types]bool, err error) {
	before, err := s.own()
	if err != nil {
		return seen, err
	}
	// From here on the next fork of this process is taken for the canary's.
	if err := k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Canary), 1); err != nil {
		return seen, err
	}
	pid, err := syscall.ForkExec(command[0], append(append([]string{}, command...), strconv.FormatUint(allocate, 10)),
		&syscall.ProcAttr{Env: []string{"GOMAXPROCS=1"}})
	if err != nil {
		return seen, errors.Join(fmt.Errorf("start canary: %w", err), k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Canary), 0))
	}
	ctx, cancel := context.WithTimeout(ctx, canaryTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(pid, unix.SIGKILL) }) // it may have ended
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	stop()
	if err == nil && (!status.Exited() || status.ExitStatus() != 0) {
		err = fmt.Errorf("it ended with status %#x", status)
	}
	if err != nil {
		return seen, fmt.Errorf("wait for canary: %w", err)
	}
	after, err := s.own()
	if err != nil {
		return seen, err
	}
	for t := range seen {
		seen[t] = after[t] > before[t]
	}
	return seen, nil
}
