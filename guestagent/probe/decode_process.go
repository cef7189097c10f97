package probe

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var processKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_EXEC: {record.ClassProcessExec, (*decoder).exec},
	bpf.ProbeEventTypeEV_FORK: {record.ClassProcessFork, (*decoder).fork},
	bpf.ProbeEventTypeEV_EXIT: {record.ClassProcessExit, (*decoder).exit},
	bpf.ProbeEventTypeEV_COMM: {record.ClassProcessRename, (*decoder).comm},
}

func credentials(t *bpf.ProbeEventTask) *record.Credentials {
	return &record.Credentials{Uid: t.Uid, Gid: t.Gid, Euid: t.Euid, Egid: t.Egid, Suid: t.Suid, Sgid: t.Sgid,
		Fsuid: t.Fsuid, Fsgid: t.Fsgid, CapEffective: t.CapEffective}
}

func comm(t *bpf.ProbeEventTask) []byte {
	return bytes.Clone(cstring(bytesOf(&t.Comm)))
}

// fill takes over what the kernel tells of a process.
func (p *process) fill(t *bpf.ProbeEventTask) {
	p.cred = credentials(t)
	p.cgroup, p.mntns = t.Cgroup, t.Mntns
	p.loginUID, p.sessionID = t.Loginuid, t.Sessionid
	p.number = t.Flags >> 1
	if t.Flags&1 != 0 {
		p.flags |= record.ProcessKernelThread
	}
}

// execFlags say something of the image.
var execFlags = []struct {
	bit  bpf.ProbeEventFlag
	flag uint32
}{
	{bpf.ProbeEventFlagFL_SCRIPT, record.ProcessScript},
	{bpf.ProbeEventFlagFL_DELETED, record.ProcessDeleted},
	{bpf.ProbeEventFlagFL_DETACHED, record.ProcessDetached},
	{bpf.ProbeEventFlagFL_PATH_TRUNC, record.ProcessPathTruncated},
	{bpf.ProbeEventFlagFL_PATH2TRUNC, record.ProcessCwdTruncated},
	{bpf.ProbeEventFlagFL_COMPAT, record.ProcessCompat},
	{bpf.ProbeEventFlagFL_MEMORY, record.ProcessMemory},
}

func (d *decoder) exec(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventExec](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventExec](b)
	filename, args, names, cwd := t.next(x.FilenameLen), t.next(x.ArgsLen), t.next(x.PathLen), t.next(x.CwdLen)
	place := t.next(x.PlaceLen)
	if t.err != nil {
		return nil, t.err
	}
	h := &x.H
	f := bpf.ProbeEventFlag(h.Flags)
	pathCut, detached := f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0
	cwdCut := f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0
	exe := pathOf(names, pathCut, detached)
	if f&bpf.ProbeEventFlagFL_MEMORY != 0 && !bytes.HasPrefix(exe, []byte("memfd:")) {
		f &^= bpf.ProbeEventFlagFL_MEMORY // memory of another kind
	}

	old := d.table.find(h.Tgid, h.Start)
	p := &process{start: h.Start, since: h.Time, ppid: old.ppid, parentStart: old.parentStart, execs: old.execs + 1, lineage: old.lineage}
	p.setImage(h.Tgid, comm(&x.T), exe)
	p.fill(&x.T)
	if p.ppid == 0 {
		p.ppid, p.parentStart = x.T.Ppid, x.T.ParentStart
		if p.ppid != 0 && p.lineage == nil {
			p.lineage = lineageOf(d.table.find(p.ppid, p.parentStart))
		}
	}
	for _, x := range execFlags {
		if f&x.bit != 0 {
			p.flags |= x.flag
		}
	}
	p.flags |= d.gained(&x, old)
	d.table.put(h.Tgid, p)

	e := d.about(p, h.Tid, h.Euid, h.Mntns)
	s := e.Process
	s.Executable = exe // whole, whatever the table keeps
	if !pathCut {
		s.Flags &^= record.ProcessPathTruncated
	}
	s.Cgroup = d.groups.find(p.cgroup).path
	s.Filename = cstring(filename)
	if f&bpf.ProbeEventFlagFL_SCRIPT != 0 {
		s.Script = s.Filename
	}
	s.WorkingDirectory = pathOf(cwd, cwdCut, f&bpf.ProbeEventFlagFL_DETACHED2 != 0)
	if n := len(s.WorkingDirectory); n > maxDirectory {
		s.WorkingDirectory = s.WorkingDirectory[n-maxDirectory:]
		s.Flags |= record.ProcessCwdTruncated
	}
	s.Args = arguments(args)
	s.ArgsLength = x.ArgsTotal
	s.ArgsTruncated = f&bpf.ProbeEventFlagFL_ARGS_TRUNC != 0
	s.Device, s.Inode, s.Links, s.Size = device(uint32(x.Dev)), x.Ino, x.Nlink, x.Size
	s.Mtime, s.Ctime = x.Mtime, x.Ctime
	d.origin = origin{x.Magic, x.Doubt != 0}
	s.FilesystemPath = filesystemPath(names, x.OuterLen, place)
	return e, nil
}

// gained says what an execution gave the process. Where the programs do not
// see it happen it is concluded from the credentials that were known before.
func (d *decoder) gained(x *bpf.ProbeEventExec, old *process) (flags uint32) {
	has := bpf.ProbeGained(x.Gained)
	if !d.gains && old.cred != nil {
		if x.Mode&unix.S_ISUID != 0 && x.T.Euid == x.Uid && old.cred.Euid != x.T.Euid {
			has |= bpf.ProbeGainedGAINED_UID
		}
		if x.Mode&unix.S_ISGID != 0 && x.T.Egid == x.Gid && old.cred.Egid != x.T.Egid {
			has |= bpf.ProbeGainedGAINED_GID
		}
		if x.T.CapEffective&^old.cred.CapEffective != 0 && x.T.Euid != 0 && x.T.Uid != 0 {
			has |= bpf.ProbeGainedGAINED_CAPS
		}
	}
	for bit, flag := range map[bpf.ProbeGained]uint32{
		bpf.ProbeGainedGAINED_UID: record.ProcessSetuid, bpf.ProbeGainedGAINED_GID: record.ProcessSetgid,
		bpf.ProbeGainedGAINED_CAPS: record.ProcessFileCaps,
	} {
		if has&bit != 0 {
			flags |= flag
		}
	}
	return flags
}

// fork tells of the new process; its parent is the one that made it.
func (d *decoder) fork(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventFork](b)
	if err != nil {
		return nil, err
	}
	maker := d.known(&x.H)
	parent := maker
	if x.T.Ppid != x.H.Tgid || x.T.ParentStart != x.H.Start { // CLONE_PARENT
		parent = d.table.find(x.T.Ppid, x.T.ParentStart)
	}
	p := &process{start: x.T.Start, ppid: x.T.Ppid, parentStart: x.T.ParentStart, execs: maker.execs,
		flags:   maker.flags &^ record.ProcessSnapshot,
		lineage: lineageOf(parent)}
	p.setImage(x.T.Tgid, comm(&x.T), maker.executable)
	p.fill(&x.T)
	d.table.fork(x.T.Tgid, p)
	e := d.about(p, x.T.Tgid, x.T.Euid, x.T.Mntns)
	e.Process.Cgroup = d.groups.find(p.cgroup).path
	return e, nil
}

func (d *decoder) exit(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventExit](b)
	if err != nil {
		return nil, err
	}
	p := d.known(&x.H)
	e := d.about(p, x.H.Tid, x.H.Euid, p.mntns) // its namespaces are gone by now
	e.Exit = &record.Exit{Code: x.H.Arg >> 8 & 0xff, Signal: x.H.Arg & 0x7f, CoreDumped: x.H.Arg&0x80 != 0,
		PeakMemory: x.Peak * uint64(os.Getpagesize())}
	d.table.exit(x.H.Tgid, p)
	return e, nil
}

// renamed gives a process the name that it goes by from now on.
func (d *decoder) renamed(x *bpf.ProbeEventComm) *process {
	p := d.known(&x.H)
	if name := cstring(bytesOf(&x.After)); !bytes.Equal(name, p.image.Name) {
		d.table.orphaned(p)
		p.setImage(x.H.Tgid, bytes.Clone(name), p.executable)
	}
	return p
}

// comm tells of a process's new name; the event's reason is the old one.
func (d *decoder) comm(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventComm](b)
	if err != nil {
		return nil, err
	}
	d.renamed(&x)
	e := d.actor(&x.H)
	e.Reason = string(bytes.ToValidUTF8(cstring(bytesOf(&x.Before)), []byte("?")))
	return e, nil
}
