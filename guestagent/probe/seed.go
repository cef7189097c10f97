package probe

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// userTick is the unit of start times in /proc, in nanoseconds. It is the same
// on every Linux machine of this architecture.
const userTick = 10_000_000

// seed fills the table with what runs already. The kernel's own listing gives
// identities, to the nanosecond; /proc gives the names of executables.
func (k *kernel) seed(t *table) error {
	if err := k.load(progTasks.name); err != nil {
		return err
	}
	it, err := link.AttachIter(link.IterOptions{Program: k.programs[progTasks.name]})
	if err != nil {
		return fmt.Errorf("attach %s: %w", progTasks.hook, err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("open %s: %w", progTasks.hook, err)
	}
	defer r.Close()
	list, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var all []bpf.ProbeEventTask
	for size := int(unsafe.Sizeof(bpf.ProbeEventTask{})); len(list) >= size; list = list[size:] {
		x, _ := as[bpf.ProbeEventTask](list)
		all = append(all, x)
		p := &process{start: x.Start, ppid: x.Ppid, parentStart: x.ParentStart, flags: record.ProcessSnapshot}
		p.fill(&x)
		exe, deleted := executable(x.Tgid)
		if deleted {
			p.flags |= record.ProcessDeleted
		}
		p.setImage(x.Tgid, comm(&x), exe)
		p.old = ranBefore(x.Tgid)
		t.put(x.Tgid, p)
	}
	for i := range all {
		p := t.live[all[i].Tgid]
		if p == nil {
			continue
		}
		for q := p; len(p.lineage) <= maxAncestors && q.ppid != 0; {
			up := t.parent(q)
			if up == nil || up == q {
				break
			}
			p.lineage = append(p.lineage, up.image)
			q = up
		}
	}
	return nil
}

// parent is the process that q names as its parent. A kernel that hides one
// from its listing, such as the first of a confined machine, still has it in
// /proc.
func (t *table) parent(q *process) *process {
	if up := t.live[q.ppid]; up != nil && up.start == q.parentStart {
		return up
	}
	up := t.fromProc(q.ppid, q.parentStart)
	if up != nil {
		up.flags |= record.ProcessSnapshot
		t.put(q.ppid, up)
	}
	return up
}

// executable is the path /proc has. A process that ends meanwhile has none.
func executable(pid uint32) (exe []byte, deleted bool) {
	s, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return nil, false
	}
	s, deleted = strings.CutSuffix(s, " (deleted)")
	return []byte(s), deleted
}

// maxCommand bounds the arguments that are told of an old process, in bytes.
const maxCommand = 4096

// ranBefore is what /proc has beside the name of the executable. Unlike what
// exec tells, the arguments are what the process has left of them.
func ranBefore(pid uint32) *before {
	b := &before{}
	dir := "/proc/" + strconv.Itoa(int(pid)) + "/"
	var st unix.Stat_t
	if unix.Stat(dir+"exe", &st) == nil {
		b.device, b.inode = st.Dev, st.Ino
	}
	if f, err := os.Open(dir + "cmdline"); err == nil {
		// One more than is told: whether there is more.
		line, _ := io.ReadAll(io.LimitReader(f, maxCommand+1))
		_ = f.Close()
		b.length, b.cut = uint64(len(line)), len(line) > maxCommand
		b.args = arguments(line[:min(len(line), maxCommand)])
	}
	return b
}

// lookup finds in /proc a process that no event has told of, because its fork
// was lost or the table was full then.
func (t *table) fromProc(pid uint32, start uint64) *process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if err != nil {
		return nil
	}
	name, ppid, ticks, ok := parseStat(b)
	if !ok || ticks != start/userTick {
		return nil // another process has the number by now
	}
	p := bare(pid, start)
	p.ppid = ppid
	exe, _ := executable(pid)
	p.setImage(pid, name, exe)
	if up := t.live[ppid]; up != nil && up.start <= start {
		p.parentStart = up.start
		p.lineage = lineageOf(up)
	}
	return p
}

// parseStat reads name, parent and start of /proc/PID/stat. The name may hold
// anything, so the fields behind it are counted from its last parenthesis.
func parseStat(b []byte) (name []byte, ppid uint32, ticks uint64, ok bool) {
	i, j := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if i < 0 || j < i {
		return nil, 0, 0, false
	}
	f := bytes.Fields(b[j+1:])
	if len(f) < 20 {
		return nil, 0, 0, false
	}
	pp, err1 := strconv.ParseUint(string(f[1]), 10, 32)
	st, err2 := strconv.ParseUint(string(f[19]), 10, 64)
	return b[i+1 : j], uint32(pp), st, err1 == nil && err2 == nil
}
