package probe

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"

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
	k.tasks = it
	var all []identity
	err = k.list(func(x *bpf.ProbeEventTask) {
		all = append(all, identity{x.Tgid, x.Start})
		p := &process{start: x.Start, ppid: x.Ppid, parentStart: x.ParentStart, flags: record.ProcessSnapshot, old: &before{}}
		p.fill(x)
		exe, deleted := executable(x.Tgid)
		if deleted {
			p.flags |= record.ProcessDeleted
		}
		p.setImage(x.Tgid, comm(x), exe)
		t.put(x.Tgid, p)
	})
	if err != nil {
		return err
	}
	for _, id := range all {
		p := t.live[id.pid]
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
	p.ppid, p.hidden = ppid, true
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
