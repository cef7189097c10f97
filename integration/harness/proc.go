package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process names one process for ever: a pid alone is given to another process later.
type process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat, in clock ticks since boot
}

// findProcess returns the process which has the pid now.
func findProcess(pid int) (process, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The name in parentheses may hold blanks and parentheses; what follows the last one is regular.
	s := string(data)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return process{}, fmt.Errorf("look at process %d: short stat line", pid)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return process{Pid: pid, Start: start}, nil
}

// alive says whether this very process still runs. A zombie does not.
func (p process) alive() bool {
	if p.Pid <= 0 {
		return false
	}
	now, err := findProcess(p.Pid)
	if err != nil || now.Start != p.Start {
		return false
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return false
	}
	s := string(data)
	return !strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " Z")
}

// stop ends the process: SIGTERM, and SIGKILL when it has not ended after the grace time. The
// signals go through a pidfd, so they cannot hit a later process with the same pid.
func (p process) stop(grace time.Duration) error {
	h, err := os.FindProcess(p.Pid)
	if err != nil {
		return fmt.Errorf("stop process %d: %w", p.Pid, err)
	}
	defer h.Release()
	if !p.alive() {
		return nil
	}
	for _, s := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := h.Signal(s.sig); err != nil {
			if errors.Is(err, os.ErrProcessDone) {
				return nil
			}
			return fmt.Errorf("stop process %d: %w", p.Pid, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.wait)
		for p.alive() && pause(ctx, 10*time.Millisecond) == nil {
		}
		cancel()
		if !p.alive() {
			return nil
		}
	}
	return fmt.Errorf("stop process %d: it survived SIGKILL for 10 s", p.Pid)
}

// namespaceID is the identity of a namespace of a process, such as "uts:[4026532301]".
func namespaceID(pid int, kind string) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
}

// processesIn lists the processes whose UTS namespace is the one given.
func processesIn(uts string) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if id, err := namespaceID(pid, "uts"); err != nil || id != uts {
			continue
		}
		if p, err := findProcess(pid); err == nil {
			out = append(out, p)
		}
	}
	return out
}
