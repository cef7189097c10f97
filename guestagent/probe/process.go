package probe

import (
	"github.com/provostd/provost/chain/record"
)

const (
	// maxAncestors bounds what an event tells beyond the parent.
	maxAncestors = 8
	// maxProcesses bounds the table. A process beyond it is told with its
	// identity only.
	maxProcesses = 32768
	// maxGone is how many ended processes are remembered for their last
	// events: those that another CPU told later.
	maxGone = 1024
)

// process is what is known of one process. Its record fields are immutable
// once published: a change makes new ones, so that children may share them.
type process struct {
	start       uint64
	since       uint64 // time of the exec that made this image, 0: not told
	ppid        uint32
	parentStart uint64
	execs       uint32
	executable  []byte
	image       *record.Process // pid, start, name and executable: what others quote
	lineage     []*record.Process
	heirs       []*record.Process // the lineage of children, nil: not made yet
	cred        *record.Credentials
	cgroup      uint64
	mntns       uint32
	loginUID    uint32
	sessionID   uint32
	flags       uint32
	old         *before // nil once it is told
}

// before is what is told once of a process that ran before the agent did.
type before struct {
	args          [][]byte
	length        uint64
	cut           bool
	device, inode uint64
}

func (b *before) tell(s *record.Process) {
	s.Args, s.ArgsLength, s.ArgsTruncated = b.args, b.length, b.cut
	s.Device, s.Inode = b.device, b.inode
}

// table knows the live processes by pid. It is not safe for concurrent use.
type table struct {
	live map[uint32]*process
	gone map[uint32]*process
	ring []uint32 // pids in gone, oldest first from next
	next int
	// lookup tells about a process that no event has told of; nil without.
	lookup func(pid uint32, start uint64) *process
}

func newTable(lookup func(uint32, uint64) *process) *table {
	return &table{live: map[uint32]*process{}, gone: map[uint32]*process{}, ring: make([]uint32, maxGone), lookup: lookup}
}

// maxQuoted bounds the executable's path in what others quote of a process, in
// bytes. Without it a few ancestors with long paths would make every event of
// their descendants too large to be told.
const maxQuoted = 512

// setImage publishes the identity of p with its newest image.
func (p *process) setImage(pid uint32, name, executable []byte) {
	p.executable, p.heirs = executable, nil
	p.image = &record.Process{Pid: pid, Start: p.start, Name: name, Executable: executable}
	if n := len(executable); n > maxQuoted {
		p.image.Executable = executable[n-maxQuoted:]
		p.image.Flags = record.ProcessPathTruncated
	}
}

// find returns the process with this identity. It never returns nil: one that
// nothing is known of has its identity only.
func (t *table) find(pid uint32, start uint64) *process {
	if p := t.live[pid]; p != nil && p.start == start {
		return p
	}
	if p := t.gone[pid]; p != nil && p.start == start {
		return p
	}
	if t.lookup != nil {
		if p := t.lookup(pid, start); p != nil {
			t.put(pid, p)
			return p
		}
	}
	return bare(pid, start)
}

func bare(pid uint32, start uint64) *process {
	p := &process{start: start, loginUID: noID, sessionID: noID}
	p.setImage(pid, nil, nil)
	return p
}

const noID = 1<<32 - 1

func (t *table) put(pid uint32, p *process) {
	if _, ok := t.live[pid]; !ok && len(t.live) >= maxProcesses {
		return
	}
	t.live[pid] = p
}

// lineageOf is what a child of p quotes: p first, then p's own. Children share
// it.
func lineageOf(p *process) []*record.Process {
	if p.heirs == nil {
		n := min(len(p.lineage), maxAncestors)
		l := make([]*record.Process, 0, n+1)
		l = append(l, p.image)
		p.heirs = append(l, p.lineage[:n]...)
	}
	return p.heirs
}

// fork enters a child.
func (t *table) fork(pid uint32, child *process) {
	t.put(pid, child)
}

// exit moves a process to those that are gone.
func (t *table) exit(pid uint32, p *process) {
	if t.live[pid] == p {
		delete(t.live, pid)
	}
	old := t.ring[t.next]
	if q := t.gone[old]; q != nil && old != pid {
		delete(t.gone, old)
	}
	t.ring[t.next] = pid
	t.next = (t.next + 1) % len(t.ring)
	t.gone[pid] = p
}

// subject is the process part of an event that p caused.
func (p *process) subject(tid, euid, mntns uint32) *record.Process {
	r := &record.Process{
		Pid: p.image.Pid, Tid: tid, Start: p.start, Ppid: p.ppid, ParentStart: p.parentStart,
		ExecCount: p.execs, Name: p.image.Name, Executable: p.executable,
		Credentials: p.cred, CgroupId: p.cgroup, MountNamespace: mntns, Flags: p.flags,
		SessionId: p.sessionID, LoginUid: p.loginUID,
	}
	if p.cred == nil || p.cred.Euid != euid {
		// They changed since the image began; the effective id is all
		// that each event tells.
		c := &record.Credentials{Euid: euid}
		if o := p.cred; o != nil {
			c = &record.Credentials{Uid: o.Uid, Gid: o.Gid, Euid: euid, Egid: o.Egid, Suid: o.Suid, Sgid: o.Sgid,
				Fsuid: o.Fsuid, Fsgid: o.Fsgid}
		}
		p.cred, r.Credentials = c, c
	}
	return r
}

// kin fills parent and ancestors of an event about p.
func (p *process) kin(e *record.Event) {
	if len(p.lineage) == 0 {
		return
	}
	e.Parent = p.lineage[0]
	e.Ancestors = p.lineage[1:]
}
