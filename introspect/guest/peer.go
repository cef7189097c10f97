package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// QEMU is one QEMU process: a pid alone is reused, with its start it is not.
type QEMU struct {
	Pid   int
	Start uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// soPeerPidfd is SO_PEERPIDFD (Linux 6.5), missing from older header sets.
const soPeerPidfd = 77

// verifyPeer checks that the process that listens on the other end of conn is
// want (invariant I3). The pidfd is taken first and asked last, so the pid
// cannot have changed hands while its start time was read.
func verifyPeer(conn *net.UnixConn, want QEMU) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("verify channel peer: %w", err)
	}
	var pid, pidfd int
	var inner error
	if err := raw.Control(func(fd uintptr) { pid, pidfd, inner = peerOf(int(fd)) }); err != nil {
		return fmt.Errorf("verify channel peer: %w", err)
	}
	if inner != nil {
		return fmt.Errorf("verify channel peer: %w", inner)
	}
	defer unix.Close(pidfd)
	start, err := ProcessStart(pid)
	if err != nil {
		return fmt.Errorf("verify channel peer: %w", err)
	}
	if got := (QEMU{Pid: pid, Start: start}); got != want {
		return fmt.Errorf("verify channel peer: the socket belongs to process %d started at %d, libvirt's QEMU is process %d started at %d: %w",
			got.Pid, got.Start, want.Pid, want.Start, record.ErrReject)
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return fmt.Errorf("verify channel peer: process %d has ended: %w", pid, err)
	}
	return nil
}

// peerOf returns the pid of the socket's peer and a pidfd of it. Kernels
// before 6.5 give no pidfd for a peer; there it is opened by pid, which is
// sound because verifyPeer compares the start time behind it.
func peerOf(fd int) (pid, pidfd int, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, -1, fmt.Errorf("read peer credentials: %w", err)
	}
	if cred.Pid <= 0 {
		return 0, -1, errors.New("peer is not in this pid namespace")
	}
	pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeerPidfd)
	if err == nil {
		return int(cred.Pid), pidfd, nil
	}
	pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return 0, -1, fmt.Errorf("open pidfd of process %d: %w", cred.Pid, err)
	}
	return int(cred.Pid), pidfd, nil
}

// ProcessStart returns when a process started, in clock ticks since boot.
func ProcessStart(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start of process %d: %w", pid, err)
	}
	// The name in parentheses may hold anything, so count from the last one.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start of process %d: %d fields in stat", pid, len(fields))
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start of process %d: %w", pid, err)
	}
	return start, nil
}
