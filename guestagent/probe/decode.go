package probe

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// classes says what each type of event is sealed as.
var classes = [...]record.Class{
	bpf.ProbeEventTypeEV_EXEC:     record.ClassProcessExec,
	bpf.ProbeEventTypeEV_FORK:     record.ClassProcessFork,
	bpf.ProbeEventTypeEV_EXIT:     record.ClassProcessExit,
	bpf.ProbeEventTypeEV_CREATE:   record.ClassFileCreate,
	bpf.ProbeEventTypeEV_WRITE:    record.ClassFileModify,
	bpf.ProbeEventTypeEV_RENAME:   record.ClassFileRename,
	bpf.ProbeEventTypeEV_UNLINK:   record.ClassFileDelete,
	bpf.ProbeEventTypeEV_TRUNCATE: record.ClassFileTruncate,
	bpf.ProbeEventTypeEV_CHMOD:    record.ClassFileChmod,
	bpf.ProbeEventTypeEV_CHOWN:    record.ClassFileChown,
	bpf.ProbeEventTypeEV_LINK:     record.ClassFileLink,
	bpf.ProbeEventTypeEV_CONNECT:  record.ClassNetworkConnect,
}

var hows = [...]string{
	bpf.ProbeWriteHowHOW_WRITE: "write", bpf.ProbeWriteHowHOW_COPY: "copy", bpf.ProbeWriteHowHOW_FALLOCATE: "falloc",
}

// maxDirectory bounds the working directory, so that the longest exec fits into
// a payload.
const maxDirectory = 4096

// errShort says that a sample ends before its fields do.
var errShort = errors.New("sample is too short")

// as reads a fixed layout from the front of a sample. Layouts are those of the
// object this process loaded, in the machine's own byte order.
func as[T any](b []byte) (T, error) {
	var v T
	if len(b) < int(unsafe.Sizeof(v)) {
		return v, errShort
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v, nil
}

// strings hands out the strings behind a layout in order.
type tail struct {
	b   []byte
	err error
}

func tailOf[T any](b []byte) tail {
	var v T
	return tail{b: b[unsafe.Sizeof(v):]}
}

func (t *tail) next(n uint16) []byte {
	if t.err != nil || int(n) > len(t.b) {
		t.err = errShort
		return nil
	}
	v := t.b[:n]
	t.b = t.b[n:]
	return v
}

// decoder makes events of samples, with what the table knows of their
// processes. It must be given the samples in the order of their times.
type decoder struct {
	table *table
}

func lane(h *bpf.ProbeEventHead) uint32 { return uint32(h.Ring)<<16 | uint32(h.Cpu) }

// decode returns the event of one sample. Strings in it alias the sample.
func (d *decoder) decode(h *bpf.ProbeEventHead, b []byte) (*record.Event, error) {
	switch bpf.ProbeEventType(h.Type) {
	case bpf.ProbeEventTypeEV_EXEC:
		return d.exec(b)
	case bpf.ProbeEventTypeEV_FORK:
		return d.fork(b)
	case bpf.ProbeEventTypeEV_EXIT:
		return d.exit(b)
	case bpf.ProbeEventTypeEV_RENAME, bpf.ProbeEventTypeEV_LINK:
		return d.rename(b)
	case bpf.ProbeEventTypeEV_CONNECT:
		return d.connect(b)
	case bpf.ProbeEventTypeEV_CREATE, bpf.ProbeEventTypeEV_WRITE, bpf.ProbeEventTypeEV_UNLINK,
		bpf.ProbeEventTypeEV_TRUNCATE, bpf.ProbeEventTypeEV_CHMOD, bpf.ProbeEventTypeEV_CHOWN:
		return d.file(b)
	}
	return nil, fmt.Errorf("sample of unknown type %d", h.Type)
}

// actor begins an event that the process of the head caused.
func (d *decoder) actor(h *bpf.ProbeEventHead) *record.Event {
	p := d.known(h)
	e := &record.Event{Process: p.subject(h.Tid, h.Euid, h.Mntns)}
	p.kin(e)
	return e
}

// known is the process of a head, under the name it has now.
func (d *decoder) known(h *bpf.ProbeEventHead) *process {
	p := d.table.find(h.Tgid, h.Start)
	if h.Tid != h.Tgid {
		return p // threads have names of their own
	}
	if name := cstring(bytesOf(&h.Comm)); !bytes.Equal(name, p.image.Name) {
		p.setImage(h.Tgid, bytes.Clone(name), p.executable)
	}
	return p
}

func bytesOf(c *[16]int8) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c)) }

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
	if t.Flags&1 != 0 {
		p.flags |= record.ProcessKernelThread
	}
}

func (d *decoder) exec(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventExec](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventExec](b)
	names, cwd, filename, args := t.next(x.PathLen), t.next(x.CwdLen), t.next(x.FilenameLen), t.next(x.ArgsLen)
	if t.err != nil {
		return nil, t.err
	}
	h := &x.H
	f := bpf.ProbeEventFlag(h.Flags)
	pathCut, detached := f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0
	cwdCut := f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0
	exe := pathOf(names, pathCut, detached)

	old := d.table.find(h.Tgid, h.Start)
	p := &process{start: h.Start, ppid: old.ppid, parentStart: old.parentStart, execs: old.execs + 1, lineage: old.lineage}
	p.setImage(h.Tgid, comm(&x.T), exe)
	p.fill(&x.T)
	if p.ppid == 0 {
		p.ppid, p.parentStart = x.T.Ppid, x.T.ParentStart
		if p.ppid != 0 && p.lineage == nil {
			p.lineage = lineageOf(d.table.find(p.ppid, p.parentStart))
		}
	}
	for bit, flag := range map[bpf.ProbeEventFlag]uint32{
		bpf.ProbeEventFlagFL_SCRIPT: record.ProcessScript, bpf.ProbeEventFlagFL_DELETED: record.ProcessDeleted,
		bpf.ProbeEventFlagFL_DETACHED: record.ProcessDetached, bpf.ProbeEventFlagFL_PATH_TRUNC: record.ProcessPathTruncated,
		bpf.ProbeEventFlagFL_PATH2TRUNC: record.ProcessCwdTruncated,
	} {
		if f&bit != 0 {
			p.flags |= flag
		}
	}
	d.table.put(h.Tgid, p)

	s := p.subject(h.Tid, h.Euid, h.Mntns)
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
	s.Device, s.Inode = device(x.Dev), x.Ino
	e := &record.Event{Process: s}
	p.kin(e)
	return e, nil
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
	e := &record.Event{Process: p.subject(x.T.Tgid, x.T.Euid, x.T.Mntns)}
	p.kin(e)
	return e, nil
}

func (d *decoder) exit(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventExit](b)
	if err != nil {
		return nil, err
	}
	p := d.known(&x.H)
	e := &record.Event{Process: p.subject(x.H.Tid, x.H.Euid, p.mntns)} // its namespaces are gone by now
	p.kin(e)
	e.Exit = &record.Exit{Code: x.Status >> 8 & 0xff, Signal: x.Status & 0x7f, CoreDumped: x.Status&0x80 != 0}
	d.table.exit(x.H.Tgid, p)
	return e, nil
}

func fileFlags(f bpf.ProbeEventFlag) uint32 {
	var out uint32
	if f&bpf.ProbeEventFlagFL_DELETED != 0 {
		out |= record.FileDeleted
	}
	if f&bpf.ProbeEventFlagFL_DETACHED != 0 {
		out |= record.FileDetached
	}
	if f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0 {
		out |= record.FilePathTruncated
	}
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		out |= record.FileUserPath
	}
	return out
}

func (d *decoder) file(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventFile](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventFile](b)
	names, name := t.next(x.PathLen), t.next(x.NameLen)
	if t.err != nil {
		return nil, t.err
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	p := pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		p = userPath(p, name)
	}
	e := d.actor(&x.H)
	e.File = &record.File{Path: p, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Size: x.Size,
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid}
	e.ResultKnown = f&bpf.ProbeEventFlagFL_USER_PATH != 0 // those are told after success
	switch bpf.ProbeEventType(x.H.Type) {
	case bpf.ProbeEventTypeEV_CREATE:
		if x.Arg != 0 {
			e.File.Mode = x.Arg
		}
	case bpf.ProbeEventTypeEV_WRITE:
		e.File.SizeBefore = x.Size
		if int(x.How) < len(hows) {
			e.File.How = hows[x.How]
		}
	case bpf.ProbeEventTypeEV_TRUNCATE:
		e.File.SizeBefore, e.File.Size = x.Size, x.Arg2
	case bpf.ProbeEventTypeEV_CHMOD:
		e.File.ModeBefore = x.Mode
		e.File.Mode = x.Mode&^0o7777 | x.Arg&0o7777
	case bpf.ProbeEventTypeEV_CHOWN:
		if uid := uint32(x.Arg2); uid != noID {
			e.File.Uid = uid
		}
		if gid := uint32(x.Arg2 >> 32); gid != noID {
			e.File.Gid = gid
		}
	}
	return e, nil
}

func (d *decoder) rename(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventRename](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventRename](b)
	f := bpf.ProbeEventFlag(x.H.Flags)
	from := pathOf(t.next(x.OldLen), f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		from = userPath(from, t.next(x.OldNameLen))
	}
	to := pathOf(t.next(x.NewLen), f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED2 != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		to = userPath(to, t.next(x.NewNameLen))
	}
	if t.err != nil {
		return nil, t.err
	}
	e := d.actor(&x.H)
	e.ResultKnown = f&bpf.ProbeEventFlagFL_USER_PATH != 0
	e.File = &record.File{Path: from, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Size: x.Size,
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid}
	e.Target = &record.File{Path: to, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode}
	if f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0 {
		e.Target.Flags |= record.FilePathTruncated
	}
	if x.Flags&unix.RENAME_EXCHANGE != 0 && bpf.ProbeEventType(x.H.Type) == bpf.ProbeEventTypeEV_RENAME {
		e.File.Flags |= record.FileExchanged
	}
	if x.ReplacedIno != 0 {
		e.Replaced = &record.File{Device: device(x.Dev), Inode: x.ReplacedIno, Mode: x.ReplacedMode}
	}
	return e, nil
}

func (d *decoder) connect(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventNet](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	n := &record.Network{Protocol: "tcp", SourcePort: uint32(x.Sport), DestinationPort: uint32(x.Dport), Direction: "egress"}
	switch {
	case x.Family == unix.AF_INET:
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[:4], x.Daddr[:4]
	case mapped(x.Daddr):
		n.Family, n.SourceIp, n.DestinationIp = 4, x.Saddr[12:], x.Daddr[12:]
	default:
		n.Family, n.SourceIp, n.DestinationIp = 6, x.Saddr[:], x.Daddr[:]
	}
	e.Network = n
	return e, nil
}

// mapped reports whether a is an IPv4 address in IPv6's clothes.
func mapped(a [16]uint8) bool {
	return [12]uint8(a[:12]) == [12]uint8{10: 0xff, 11: 0xff}
}

// device turns the kernel's own number into that of stat(2).
func device(dev uint64) uint64 {
	if dev == 0 {
		return 0
	}
	return unix.Mkdev(uint32(dev>>20), uint32(dev&0xfffff))
}
