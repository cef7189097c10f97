package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The agent shares its guest's memory with what the guest is there for. The
// collector's default of letting the heap double suits neither the load of
// the programs, where a moment's garbage would be the peak of hours, nor a full
// queue, which would be counted twice.
const (
	// loadingPercent is the garbage allowed while the programs are loaded, in
	// hundredths of what lives: they are read once and time does not matter.
	loadingPercent = 25
	// room and roomPercent are what the heap may grow by afterwards: a
	// constant, so that small heaps are not collected all the time, and a
	// part of what lives, so that the collector's work stays in proportion.
	room        = 2 << 20
	roomPercent = 10
)

const liveMetric = "/gc/heap/live:bytes"

// keepSmall sets the collector's pace behind every collection, for as long as
// the process runs.
func keepSmall() {
	type sentinel struct{ self *sentinel } // a pointer, so that it is an allocation of its own
	sample := []metrics.Sample{{Name: liveMetric}}
	var arm func()
	arm = func() {
		s := &sentinel{}
		runtime.SetFinalizer(s, func(*sentinel) {
			metrics.Read(sample)
			if sample[0].Value.Kind() == metrics.KindUint64 {
				debug.SetGCPercent(percentFor(sample[0].Value.Uint64()))
			}
			arm()
		})
	}
	arm()
}

func percentFor(live uint64) int {
	return roomPercent + int(room*100/max(live, 1<<20))
}

// settle gives back what loading took: garbage, and the pages of the program
// that only loading needed. They are read again from the file if anything
// calls for them.
func settle() error {
	debug.FreeOSMemory()
	keepSmall()
	return dropPages("/proc/self/smaps")
}

// dropPages lets go of the pages of this program's file that nobody has ever
// changed. Mapped read only is not enough: a loader may have relocated them.
func dropPages(smaps string) error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	b, err := os.ReadFile(smaps)
	if err != nil {
		return fmt.Errorf("read own mappings: %w", err)
	}
	var from, to uintptr
	for in := bufio.NewScanner(bytes.NewReader(b)); in.Scan(); {
		key, value, detail := strings.Cut(in.Text(), ":")
		if !detail || strings.Contains(key, " ") { // a mapping's own line, its details follow
			from, to = readOnlyOf(in.Text(), exe)
			continue
		}
		if key != "Anonymous" || from == to || strings.TrimSpace(value) != "0 kB" {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of own pages: %w", errno)
		}
	}
	return nil
}

// readOnlyOf returns the range of a line of /proc/PID/maps, if it is a mapping
// of the file exe that nobody can write to, and an empty one otherwise.
func readOnlyOf(line, exe string) (from, to uintptr) {
	var span, perms, offset, dev, inode string
	if n, _ := fmt.Sscan(line, &span, &perms, &offset, &dev, &inode); n != 5 || len(perms) != 4 || perms[1] != '-' || perms[3] != 'p' {
		return 0, 0
	}
	if inode == "0" || !strings.HasSuffix(line, " "+exe) {
		return 0, 0
	}
	first, behind, _ := strings.Cut(span, "-")
	a, errA := strconv.ParseUint(first, 16, 64)
	b, errB := strconv.ParseUint(behind, 16, 64)
	if errA != nil || errB != nil || a >= b {
		return 0, 0
	}
	return uintptr(a), uintptr(b)
}
