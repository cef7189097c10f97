package matrix

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that a forked child makes. Go cannot run code of its
// own in such a child, so children are lists of calls.
type Call struct {
	Nr   uintptr
	Args [6]uintptr
	// From replaces argument i by the result of call From[i]-1 of the same
	// child, where not 0.
	From [6]int
	// Skip calls are left out when this one does not return 0: a fork is
	// followed by what its child does.
	Skip int
	// Exit ends the child after the call, with this status minus one; 0 goes on.
	Exit int
}

// Forked is what a child did.
type Forked struct {
	Pid     int
	Status  unix.WaitStatus
	Results []int64 // of each call; an error is its number below zero
}

// CString is a string for a Call. It must be kept alive until the child has ended.
func CString(s string) (p uintptr, keep *byte) {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	return uintptr(unsafe.Pointer(b)), b
}

// Fork makes a child with fork(2), which makes the calls and exits with 0, and
// waits for its end. keep are what the calls point to.
func (e *Env) Fork(calls []Call, keep ...*byte) (Forked, error) {
	f, err := e.StartFork(uintptr(syscall.SIGCHLD), calls)
	if err != nil {
		return Forked{}, err
	}
	err = f.Wait()
	runtime.KeepAlive(keep)
	return f.Forked, err
}

// Running is a child under way.
type Running struct {
	Forked
	shared []byte
}

// StartFork makes a child with clone(2) and these flags, and does not wait.
// What the calls point to must be kept alive by the caller.
func (e *Env) StartFork(flags uintptr, calls []Call) (*Running, error) {
	shared, err := unix.Mmap(-1, 0, 8*len(calls)+8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("share results with child: %w", err)
	}
	results := unsafe.Slice((*int64)(unsafe.Pointer(&shared[0])), len(calls))
	runtime.LockOSThread()
	syscall.ForkLock.Lock()
	pid, errno := forkCalls(flags, calls, results)
	syscall.ForkLock.Unlock()
	runtime.UnlockOSThread()
	if errno != 0 {
		return nil, fmt.Errorf("fork: %w", errno)
	}
	return &Running{Forked{Pid: int(pid), Results: results}, shared}, nil
}

// Wait waits for the child's end.
func (r *Running) Wait() error {
	for {
		_, err := unix.Wait4(r.Pid, &r.Status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for child: %w", err)
		}
		own := make([]int64, len(r.Results))
		copy(own, r.Results)
		r.Results = own
		return unix.Munmap(r.shared)
	}
}

// forkCalls is a fork and, in the child, the calls. The child has one thread
// and a runtime that does not know of it: nothing here may allocate, grow the
// stack or be preempted.
//
//go:norace
//go:nosplit
func forkCalls(flags uintptr, calls []Call, results []int64) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	for i := 0; i < len(calls); i++ {
		c := &calls[i]
		a := c.Args
		for j := 0; j < 6; j++ {
			if c.From[j] != 0 {
				a[j] = uintptr(results[c.From[j]-1])
			}
		}
		r, _, errno := syscall.RawSyscall6(c.Nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			results[i] = -int64(errno)
		} else {
			results[i] = int64(r)
		}
		if c.Exit != 0 {
			for {
				syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, uintptr(c.Exit-1), 0, 0, 0, 0, 0)
			}
		}
		if results[i] != 0 {
			i += c.Skip
		}
	}
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}
