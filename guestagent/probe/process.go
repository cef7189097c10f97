package probe

import (
	"bytes"

	"github.com/provostd/provost/chain/record"
)

const (
	// maxAncestors bounds what an event tells beyond the parent.
	maxAncestors = 8
	// maxTableBytes bounds the table. A process beyond it is told with what
	// /proc has of it, as far as that may be asked.
	maxTableBytes = 6 << 20
	// processBytes and imageBytes are what a process and an image take beside
	// their strings.
	processBytes = 1200
	imageBytes   = 512
	// shortPath is how much of a path a process keeps, in bytes, when half of
	// the table's room is taken.
	shortPath = 256
	// maxGone is how many ended processes are remembered for their last
	// events: those that another CPU told later.
	maxGone = 1024
	// maxAside is how many are remembered that were asked for: those that
	// found no room, and those that nothing is known of.
	maxAside = 512
)

// process is what is known of one process. Its record fields are immutable
// once published: a change makes new ones, so that children may share them.
type process struct {
	start       uint64
	since       uint64 // time of the exec that made this image, 0: not told
	ppid        uint32
	parentStart uint64
	execs       uint32
	number      uint32 // the kernel's, of this image
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
	cost        int     // what the table has booked for it
	swept       uint64  // the newest listing that had it
	hidden      bool    // /proc has it, and no listing had it yet
}

// size is about what the process takes.
func (p *process) size() int { return processBytes + len(p.executable) }

// before is what is told once of a process that ran before the agent did.
type before struct {
	read          bool // else nothing of it is known
	args          [][]byte
	length        uint64
	cut           bool
	device, inode uint64
}

func (b *before) tell(s *record.Process) {
	s.Args, s.ArgsLength, s.ArgsTruncated = b.args, b.length, b.cut || !b.read
	s.Device, s.Inode = b.device, b.inode
}

// table knows the live processes by pid. It is not safe for concurrent use.
type table struct {
	live map[uint32]*process
	gone map[uint32]*process
	ring []uint32 // pids in gone, oldest first from next
	next int
	// aside are those that were asked for and are in neither; nil: nothing
	// was found.
	aside *lru[identity, *process]
	// lookup tells about a process that no event has told of; nil without.
	lookup  func(pid uint32, start uint64) *process
	lookups allowance
	bytes   int // of all in live and gone
	orphans int // at most what images take that only descendants still quote
	counted int // what that was when it was exact
	sweep   sweep
}

func newTable(lookup func(uint32, uint64) *process) *table {
	return &table{live: map[uint32]*process{}, gone: map[uint32]*process{}, ring: make([]uint32, maxGone),
		aside: newLRU[identity, *process](maxAside), lookup: lookup, lookups: allowance{now: bootTime}}
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
		// A copy: else the whole would stay as long as anybody quotes it.
		p.image.Executable = bytes.Clone(executable[n-maxQuoted:])
		p.image.Flags = record.ProcessPathTruncated
	}
}

// shorten keeps the end of a long path only.
func (p *process) shorten() {
	n := len(p.executable)
	if n <= shortPath {
		return
	}
	p.executable = bytes.Clone(p.executable[n-shortPath:])
	p.flags |= record.ProcessPathTruncated
	p.image = &record.Process{Pid: p.image.Pid, Start: p.start, Name: p.image.Name, Executable: p.executable, Flags: record.ProcessPathTruncated}
	p.heirs = nil
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
	id := identity{pid, start}
	if p, ok := t.aside.get(id); ok {
		if p != nil {
			return p
		}
		return bare(pid, start)
	}
	if t.lookup != nil && t.lookups.take() {
		p := t.lookup(pid, start)
		if p != nil {
			t.put(pid, p)
			return p
		}
		t.aside.put(id, nil) // who is gone does not come back
	}
	return bare(pid, start)
}

func bare(pid uint32, start uint64) *process {
	p := &process{start: start, loginUID: noID, sessionID: noID}
	p.setImage(pid, nil, nil)
	return p
}

const noID = 1<<32 - 1

// put enters a process, or sets it aside where there is no room. A full table
// asks to be compared with what runs: the ends of processes may have been lost.
func (t *table) put(pid uint32, p *process) {
	if old := t.live[pid]; old != nil && old != p {
		t.forget(pid, old)
	}
	id := identity{pid, p.start}
	if t.bytes+t.orphans+p.size() > maxTableBytes/2 {
		t.recount()
		p.shorten()
	}
	if t.bytes-p.cost+t.orphans+p.size() > maxTableBytes {
		t.forget(pid, p)
		t.sweep.wanted = true
		p.shorten()
		t.aside.put(id, p)
		return
	}
	t.aside.remove(id)
	t.book(p)
	t.live[pid] = p
	if t.sweep.taken != 0 {
		p.swept = t.sweep.number // the listing cannot speak of it: it entered behind
	}
}

// book makes the table's books right about a process.
func (t *table) book(p *process) {
	n := p.size()
	t.bytes += n - p.cost
	p.cost = n
}

// forget takes a process out of the live ones.
func (t *table) forget(pid uint32, p *process) {
	if t.live[pid] == p {
		delete(t.live, pid)
	}
	t.bytes -= p.cost
	p.cost = 0
	t.orphaned(p)
}

// orphaned books an image that p does not have any more, and that its children
// still quote.
func (t *table) orphaned(p *process) {
	if p.heirs != nil {
		t.orphans += imageBytes + len(p.image.Executable)
	}
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
	t.forget(pid, p)
	t.aside.remove(identity{pid, p.start})
	t.leave(pid)
	if old := t.ring[t.next]; old != pid {
		t.leave(old)
	}
	t.ring[t.next] = pid
	t.next = (t.next + 1) % len(t.ring)
	if t.bytes > maxTableBytes/2 {
		p.shorten()
	}
	t.gone[pid] = p
	t.book(p)
}

// leave lets go of one that is gone.
func (t *table) leave(pid uint32) {
	if q := t.gone[pid]; q != nil {
		delete(t.gone, pid)
		t.bytes -= q.cost
		q.cost = 0
	}
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
