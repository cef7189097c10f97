package probe

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var kernelKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_MODULE_LOAD:   {record.ClassKernelModuleLoad, (*decoder).kernel},
	bpf.ProbeEventTypeEV_MODULE_UNLOAD: {record.ClassKernelModuleUnload, (*decoder).kernel},
	bpf.ProbeEventTypeEV_PARAM:         {record.ClassKernelParamChange, (*decoder).kernel},
	bpf.ProbeEventTypeEV_BPF:           {record.ClassKernelBPF, (*decoder).kernel},
	bpf.ProbeEventTypeEV_PERF:          {record.ClassKernelPerf, (*decoder).kernel},
	bpf.ProbeEventTypeEV_KEXEC:         {record.ClassKernelKexec, (*decoder).kernel},
	bpf.ProbeEventTypeEV_USERFAULT:     {record.ClassKernelUserfaultfd, (*decoder).kernel},
	bpf.ProbeEventTypeEV_URING:         {record.ClassKernelIOUring, (*decoder).kernel},
}

// bpfCommands are those of bpf(2) that are told.
var bpfCommands = map[uint32]string{
	unix.BPF_MAP_CREATE: "map_create", unix.BPF_PROG_LOAD: "prog_load", unix.BPF_OBJ_PIN: "obj_pin", unix.BPF_OBJ_GET: "obj_get",
	unix.BPF_PROG_ATTACH: "prog_attach", unix.BPF_PROG_DETACH: "prog_detach",
	unix.BPF_PROG_GET_FD_BY_ID: "prog_get_fd_by_id", unix.BPF_MAP_GET_FD_BY_ID: "map_get_fd_by_id",
	unix.BPF_RAW_TRACEPOINT_OPEN: "raw_tracepoint_open", unix.BPF_LINK_CREATE: "link_create", unix.BPF_LINK_UPDATE: "link_update",
	unix.BPF_LINK_GET_FD_BY_ID: "link_get_fd_by_id", unix.BPF_ENABLE_STATS: "enable_stats", unix.BPF_ITER_CREATE: "iter_create",
	unix.BPF_LINK_DETACH: "link_detach", unix.BPF_PROG_BIND_MAP: "prog_bind_map", 36: "token_create",
	uint32(bpf.ProbeKernelOperationKERNEL_SOCKET_FILTER): "socket_filter",
}

// kernelWords are the words for what was done, by type of event.
var kernelWords = map[bpf.ProbeEventType]map[uint32]string{
	bpf.ProbeEventTypeEV_MODULE_LOAD:   {1: "init_module", 2: "finit_module"},
	bpf.ProbeEventTypeEV_MODULE_UNLOAD: {0: "unload"},
	bpf.ProbeEventTypeEV_PARAM:         {0: "write"},
	bpf.ProbeEventTypeEV_BPF:           bpfCommands,
	bpf.ProbeEventTypeEV_PERF:          {0: "perf_event_open"},
	bpf.ProbeEventTypeEV_KEXEC:         {1: "kexec_load", 2: "kexec_file_load", 3: "initramfs"},
	bpf.ProbeEventTypeEV_USERFAULT:     {0: "userfaultfd"},
	bpf.ProbeEventTypeEV_URING:         {0: "io_uring_setup"},
}

// signatures are the words for what the kernel found of a module's signature.
var signatures = map[bpf.ProbeModuleSignature]string{
	bpf.ProbeModuleSignatureSIGNATURE_VALID: "valid", bpf.ProbeModuleSignatureSIGNATURE_NONE: "none",
}

func (d *decoder) kernel(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventKernel](b)
	if err != nil {
		return nil, err
	}
	t := tailOf[bpf.ProbeEventKernel](b)
	name, value, before, names := t.next(x.NameLen), t.next(x.ValueLen), t.next(x.BeforeLen), t.next(x.PathLen)
	if t.err != nil {
		return nil, t.err
	}
	f := bpf.ProbeEventFlag(x.H.Flags)
	e := d.actor(&x.H)
	k := &record.Kernel{Name: cstring(name), Type: x.Kind, Id: x.Id, Size: x.Size, Flags: x.Flags, Value: cstring(value),
		ValueBefore: cstring(before), Refused: f&bpf.ProbeEventFlagFL_REFUSED != 0}
	typ := bpf.ProbeEventType(x.H.Type)
	if k.Operation = kernelWords[typ][x.Operation]; k.Operation == "" {
		k.Operation = fmt.Sprintf("operation %d", x.Operation)
	}
	if typ == bpf.ProbeEventTypeEV_PARAM {
		k.Name, k.Value, k.ValueBefore = sysctlName(k.Name), bytes.TrimRight(k.Value, "\n"), bytes.TrimRight(k.ValueBefore, "\n")
	}
	k.Signature = signatures[bpf.ProbeModuleSignature(x.Signature)]
	e.Kernel = k
	if x.Ino != 0 {
		e.File = &record.File{Device: device(x.Dev), Inode: x.Ino, Flags: fileFlags(f)}
		if x.PathLen > 0 {
			e.File.Path = pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0)
		}
	}
	return e, nil
}

// sysctlName writes a parameter as sysctl(8) does: dots between the parts, and
// a slash for a dot within one.
func sysctlName(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, b)
}
