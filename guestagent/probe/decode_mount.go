package probe

import (
	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var mountOperations = map[bpf.ProbeMountOperation]string{
	bpf.ProbeMountOperationMOUNT_NEW:         "mount",
	bpf.ProbeMountOperationMOUNT_BIND:        "bind",
	bpf.ProbeMountOperationMOUNT_REMOUNT:     "remount",
	bpf.ProbeMountOperationMOUNT_MOVE:        "move",
	bpf.ProbeMountOperationMOUNT_PROPAGATION: "propagation",
	bpf.ProbeMountOperationMOUNT_UNMOUNT:     "unmount",
	bpf.ProbeMountOperationMOUNT_PIVOT:       "pivot_root",
	bpf.ProbeMountOperationMOUNT_SETATTR:     "setattr",
}

var mountAPIs = map[bpf.ProbeMountApi]string{
	bpf.ProbeMountApiAPI_MOUNT:         "mount",
	bpf.ProbeMountApiAPI_MOVE_MOUNT:    "move_mount",
	bpf.ProbeMountApiAPI_FSCONFIG:      "fsconfig",
	bpf.ProbeMountApiAPI_MOUNT_SETATTR: "mount_setattr",
}

func (d *decoder) mount(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventMount](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventMount](b)
	names, name, source, fs, from, fromName := t.next(x.PathLen), t.next(x.NameLen), t.next(x.SourceLen),
		t.next(x.TypeLen), t.next(x.FromLen), t.next(x.FromNameLen)
	if t.err != nil {
		return nil, t.err
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	path := pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
	if x.NameLen > 0 {
		path = userPath(path, name)
	}
	e := d.actor(&x.H)
	e.File = &record.File{Path: path, Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Flags: fileFlags(f)}
	e.Mount = &record.Mount{Operation: mountOperations[bpf.ProbeMountOperation(x.Operation)], Api: mountAPIs[bpf.ProbeMountApi(x.Api)],
		Source: cstring(source), Type: cstring(fs), Flags: x.Flags}
	if x.FromLen > 0 || x.FromNameLen > 0 {
		p := pathOf(from, f&bpf.ProbeEventFlagFL_PATH2TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED2 != 0)
		if x.FromNameLen > 0 {
			p = userPath(p, fromName)
		}
		e.Mount.SourcePath = p
	}
	return e, nil
}
