package probe

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var fileKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_CREATE:   {record.ClassFileCreate, (*decoder).file},
	bpf.ProbeEventTypeEV_WRITE:    {record.ClassFileModify, (*decoder).file},
	bpf.ProbeEventTypeEV_UNLINK:   {record.ClassFileDelete, (*decoder).file},
	bpf.ProbeEventTypeEV_TRUNCATE: {record.ClassFileTruncate, (*decoder).file},
	bpf.ProbeEventTypeEV_CHMOD:    {record.ClassFileChmod, (*decoder).file},
	bpf.ProbeEventTypeEV_CHOWN:    {record.ClassFileChown, (*decoder).file},
	bpf.ProbeEventTypeEV_RENAME:   {record.ClassFileRename, (*decoder).rename},
	bpf.ProbeEventTypeEV_LINK:     {record.ClassFileLink, (*decoder).rename},
}

var hows = [...]string{
	bpf.ProbeWriteHowHOW_WRITE: "write", bpf.ProbeWriteHowHOW_COPY: "copy",
	bpf.ProbeWriteHowHOW_FALLOCATE: "falloc", bpf.ProbeWriteHowHOW_MMAP: "mmap",
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
	names, name, place := t.next(x.PathLen), t.next(x.NameLen), t.next(x.PlaceLen)
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
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid, FilesystemPath: filesystemPath(names, x.InnerLen, place)}
	e.ResultKnown = f&bpf.ProbeEventFlagFL_USER_PATH != 0 // those are told after success
	switch bpf.ProbeEventType(x.H.Type) {
	case bpf.ProbeEventTypeEV_CREATE:
		if x.Arg != 0 {
			e.File.Mode = x.Arg
		}
		e.File.Rdev = device(uint32(x.Arg2))
	case bpf.ProbeEventTypeEV_WRITE:
		e.File.SizeBefore = x.Size
		if int(x.Arg) < len(hows) {
			e.File.How = hows[x.Arg]
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
	oldNames := t.next(x.OldLen)
	from := pathOf(oldNames, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		from = userPath(from, t.next(x.OldNameLen))
	}
	newNames := t.next(x.NewLen)
	to := pathOf(newNames, f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED2 != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		to = userPath(to, t.next(x.NewNameLen))
	}
	place := t.next(x.PlaceLen)
	if t.err != nil {
		return nil, t.err
	}
	e := d.actor(&x.H)
	e.ResultKnown = f&bpf.ProbeEventFlagFL_USER_PATH != 0
	e.File = &record.File{Path: from, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Size: x.Size,
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid, FilesystemPath: filesystemPath(oldNames, x.OldInner, place)}
	e.Target = &record.File{Path: to, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode,
		FilesystemPath: filesystemPath(newNames, x.NewInner, place)}
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
