package probe

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var fileKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_CREATE:     {record.ClassFileCreate, (*decoder).file},
	bpf.ProbeEventTypeEV_WRITE:      {record.ClassFileModify, (*decoder).file},
	bpf.ProbeEventTypeEV_CLOSE:      {record.ClassFileClose, (*decoder).closed},
	bpf.ProbeEventTypeEV_UNLINK:     {record.ClassFileDelete, (*decoder).file},
	bpf.ProbeEventTypeEV_TRUNCATE:   {record.ClassFileTruncate, (*decoder).file},
	bpf.ProbeEventTypeEV_CHMOD:      {record.ClassFileChmod, (*decoder).file},
	bpf.ProbeEventTypeEV_CHOWN:      {record.ClassFileChown, (*decoder).file},
	bpf.ProbeEventTypeEV_XATTR:      {record.ClassFileXattr, (*decoder).file},
	bpf.ProbeEventTypeEV_ATTRIBUTES: {record.ClassFileAttributes, (*decoder).file},
	bpf.ProbeEventTypeEV_UTIME:      {record.ClassFileUtime, (*decoder).file},
	bpf.ProbeEventTypeEV_RENAME:     {record.ClassFileRename, (*decoder).rename},
	bpf.ProbeEventTypeEV_LINK:       {record.ClassFileLink, (*decoder).rename},
	bpf.ProbeEventTypeEV_MOUNT:      {record.ClassFileMount, (*decoder).mount},
	bpf.ProbeEventTypeEV_UNMOUNT:    {record.ClassFileUnmount, (*decoder).mount},
	bpf.ProbeEventTypeEV_PIVOT:      {record.ClassProcessChroot, (*decoder).mount},
}

var hows = [...]string{
	bpf.ProbeWriteHowHOW_WRITE: "write", bpf.ProbeWriteHowHOW_COPY: "copy",
	bpf.ProbeWriteHowHOW_FALLOCATE: "falloc", bpf.ProbeWriteHowHOW_MMAP: "mmap",
}

// howsOf names the ways of writing in a set of bits.
func howsOf(bits uint32) string {
	var out []string
	for i, name := range hows {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
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
	if f&bpf.ProbeEventFlagFL_TEMPORARY != 0 {
		out |= record.FileTemporary
	}
	if f&bpf.ProbeEventFlagFL_MEMORY != 0 {
		out |= record.FileMemory
		out &^= record.FileDeleted // it never had a name
	}
	return out
}

func (d *decoder) file(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventFile](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventFile](b)
	names, name, extra, place := t.next(x.PathLen), t.next(x.NameLen), t.next(x.ExtraLen), t.next(x.PlaceLen)
	if t.err != nil {
		return nil, t.err
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	p := pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	if f&bpf.ProbeEventFlagFL_USER_PATH != 0 {
		p = userPath(p, name)
	}
	e := d.actor(&x.H)
	e.File = &record.File{Path: p, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Size: x.Size, Links: x.Links,
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid, FilesystemPath: filesystemPath(names, x.OuterLen, place)}
	switch bpf.ProbeEventType(x.H.Type) {
	case bpf.ProbeEventTypeEV_CREATE:
		e.File.Rdev = device(x.Rdev)
		e.File.LinkTarget = cstring(extra)
	case bpf.ProbeEventTypeEV_WRITE:
		e.File.SizeBefore = x.Arg2
		if int(x.Arg) < len(hows) {
			e.File.How = hows[x.Arg]
		}
	case bpf.ProbeEventTypeEV_TRUNCATE:
		e.File.SizeBefore = x.Arg2
	case bpf.ProbeEventTypeEV_CHMOD:
		e.File.ModeBefore = x.Arg
	case bpf.ProbeEventTypeEV_XATTR:
		e.File.Attribute, e.File.AttributeSize = cstring(extra), x.Arg2
		if x.Arg != 0 {
			e.Reason = "removed"
		}
	case bpf.ProbeEventTypeEV_ATTRIBUTES:
		e.File.Attributes = uint64(x.Arg)
	case bpf.ProbeEventTypeEV_UTIME:
		if len(extra) > 0 {
			v, err := as[bpf.ProbeFileTimes](extra)
			if err != nil {
				return nil, err
			}
			e.File.Atime, e.File.Mtime, e.File.Ctime = v.Atime, v.Mtime, v.Ctime
		}
	}
	return e, nil
}

func (d *decoder) closed(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventClose](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventClose](b)
	names, place := t.next(x.PathLen), t.next(x.PlaceLen)
	if t.err != nil {
		return nil, t.err
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	d.origin = origin{x.Magic, x.Doubt != 0}
	e := d.actor(&x.H)
	e.File = &record.File{
		Path:   pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0),
		Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Uid: x.Uid, Gid: x.Gid, Links: x.Links, Flags: fileFlags(f),
		FilesystemPath: filesystemPath(names, x.OuterLen, place), How: howsOf(x.Hows), Operations: x.Ops, Bytes: x.Bytes,
		SizeBefore: x.Size0, Size: x.Size1, CtimeBefore: x.Ctime0, Ctime: x.Ctime1, Mtime: x.Mtime,
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
	e.File = &record.File{Path: from, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Size: x.Size, Links: x.Links,
		Flags: fileFlags(f), Uid: x.Uid, Gid: x.Gid, FilesystemPath: filesystemPath(oldNames, x.OldOuter, place)}
	e.Target = &record.File{Path: to, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode,
		FilesystemPath: filesystemPath(newNames, x.NewOuter, place)}
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
