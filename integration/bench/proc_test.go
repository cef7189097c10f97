package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// usage is what a process has used up so far.
type usage struct {
	cpu      time.Duration
	waits    uint64 // times a thread went to sleep, and so was woken; see monitor
	rss, hwm uint64 // bytes
}

func usageOf(pid int) (usage, error) {
	var u usage
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("list threads of process %d: it is gone (%w)", pid, errOr(err, os.ErrProcessDone))
	}
	for _, t := range tasks {
		// Nanoseconds on a CPU, nanoseconds in a run queue, time slices.
		b, err := os.ReadFile(t + "/schedstat")
		if err != nil {
			return u, fmt.Errorf("read use of a thread: %w", err)
		}
		ns, err := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return u, fmt.Errorf("read use of a thread: %w", err)
		}
		u.cpu += time.Duration(ns)
		if t == monitor(tasks) {
			continue
		}
		n, err := statusOf(t+"/status", "voluntary_ctxt_switches")
		if err != nil {
			return u, err
		}
		u.waits += n
	}
	for name, to := range map[string]*uint64{"VmRSS": &u.rss, "VmHWM": &u.hwm} {
		n, err := statusOf(fmt.Sprintf("/proc/%d/status", pid), name)
		if err != nil {
			return u, err
		}
		*to = n << 10
	}
	return u, nil
}

// monitor is the thread of Go's run-time system that sleeps and looks again,
// many times for each time that there is something to do: the first one that a
// Go program starts. Its processor time counts, its naps are nobody's wake-ups.
func monitor(tasks []string) string {
	sorted := slices.SortedFunc(slices.Values(tasks), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	if len(sorted) < 3 {
		return "" // no Go program
	}
	return sorted[1]
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func statusOf(path, name string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read status: %w", err)
	}
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(k) == name {
			n, err := strconv.ParseUint(string(bytes.Fields(v)[0]), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s of %s: %w", name, path, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("read %s: no %s in it", path, name)
}

// idsOf lists what a process holds by a number that fdinfo tells of: prog_id
// or map_id.
func idsOf(pid int, field string) ([]uint32, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	seen := map[uint32]bool{}
	var ids []uint32
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range bytes.Lines(b) {
			k, v, ok := bytes.Cut(line, []byte(":"))
			if !ok || string(k) != field {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(string(v)), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", f, err)
			}
			if !seen[uint32(n)] {
				seen[uint32(n)] = true
				ids = append(ids, uint32(n))
			}
		}
	}
	return ids, nil
}

// cost is what the runs of a program took, by the kernel's own count.
type cost struct {
	ns   time.Duration
	runs uint64
}

func (c cost) mean() float64 {
	if c.runs == 0 {
		return 0
	}
	return float64(c.ns) / float64(c.runs)
}

// programs returns the cost of all programs of a process, by name. A program
// that was reached by a tail call is part of the one that made the call.
func programs(pid int) (map[string]cost, error) {
	ids, err := idsOf(pid, "prog_id")
	if err != nil {
		return nil, err
	}
	all := map[string]cost{}
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			return nil, fmt.Errorf("open program %d: %w", id, err)
		}
		i, err := p.Info()
		if err == nil {
			var st *ebpf.ProgramStats
			if st, err = p.Stats(); err == nil {
				c := all[i.Name]
				all[i.Name] = cost{c.ns + st.Runtime, c.runs + st.RunCount}
			}
		}
		p.Close()
		if err != nil {
			return nil, fmt.Errorf("ask program %d: %w", id, err)
		}
	}
	return all, nil
}

// ringBytes sums what was ever put into the rings of a process, heads and
// padding included.
func ringBytes(pid int) (uint64, error) {
	ids, err := idsOf(pid, "map_id")
	if err != nil {
		return 0, err
	}
	var sum uint64
	rings := 0
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			return 0, fmt.Errorf("open map %d: %w", id, err)
		}
		if m.Type() == ebpf.RingBuf {
			// The second page begins with the producer's position.
			var b []byte
			if b, err = unix.Mmap(m.FD(), int64(os.Getpagesize()), os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED); err == nil {
				sum += nativeUint64(b)
				rings++
				err = unix.Munmap(b)
			}
		}
		m.Close()
		if err != nil {
			return 0, fmt.Errorf("read position of ring %d: %w", id, err)
		}
	}
	if rings == 0 {
		return 0, fmt.Errorf("process %d has no ring", pid)
	}
	return sum, nil
}

func nativeUint64(b []byte) uint64 {
	var n uint64
	for i := range 8 { // x86-64
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}

// strangers counts programs on this machine that are neither of these
// processes'; those cost the workloads something too.
func strangers(pids ...int) (int, error) {
	mine := map[ebpf.ProgramID]bool{}
	for _, pid := range pids {
		ids, err := idsOf(pid, "prog_id")
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			mine[ebpf.ProgramID(id)] = true
		}
	}
	n := 0
	var id ebpf.ProgramID
	for {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			return n, nil // the last one
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone meanwhile
		}
		if t := p.Type(); !mine[id] && (t == ebpf.Tracing || t == ebpf.RawTracepoint || t == ebpf.TracePoint || t == ebpf.LSM) {
			n++
		}
		p.Close()
	}
}

// machine is one line about where the figures come from.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s, Linux %s", numCPU(), model, unix.ByteSliceToString(u.Release[:]))
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
