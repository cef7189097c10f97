package probe

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience is how long a killed process may take to end. One that sleeps
// uninterruptibly ends when it wakes.
const killPatience = 2 * time.Second

// Kill kills a process, known by its number and its start, and waits until it
// has ended. An error wraps os.ErrProcessDone where it had ended before: whoever
// has its number by now is left alone.
func Kill(pid uint32, start uint64) error {
	if pid <= 1 || int(pid) == os.Getpid() {
		return fmt.Errorf("process %d is init or this agent, which are not killed", pid)
	}
	gone := fmt.Errorf("process %d that started at %d: %w", pid, start, os.ErrProcessDone)
	// From here on the number may go to another process, the descriptor does not.
	fd, err := unix.PidfdOpen(int(pid), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // none, or that of a thread
		return gone
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return gone
	}
	if err != nil {
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
	// What the number stands for now started when ours did, and ours held the
	// number from then until it ended. Had the descriptor been of one before it,
	// ours could not have had the number when it was seen.
	if _, _, ticks, ok := parseStat(b); !ok || ticks != start/userTick {
		return gone
	}
	if ended(fd, 0) {
		return gone
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); errors.Is(err, unix.ESRCH) {
		return gone
	} else if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	if !ended(fd, killPatience) {
		return fmt.Errorf("process %d was sent SIGKILL and has not ended within %s", pid, killPatience)
	}
	return nil
}

// ended reports whether the process of a descriptor ends within d.
func ended(fd int, d time.Duration) bool {
	until := time.Now().Add(d)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(max(time.Until(until), 0)/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1
	}
}
