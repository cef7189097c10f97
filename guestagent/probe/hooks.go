package probe

import (
	"context"
	"slices"
	"strings"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// program is one kernel program and the name under which it is reported.
type program struct {
	name string // in the object
	hook string // as reported: type/target
	// calls are the numbers of the system calls whose end it handles. It then
	// is not attached itself: progExits is, and jumps to it.
	calls []uint32
	// lacks is what this way of seeing does not cover, where an alternative
	// would.
	lacks string
}

// cover is how one class of event is seen: by all programs of every group,
// the first group of alternatives that loads.
type cover struct {
	class record.Class
	event bpf.ProbeEventType // whose canary counter proves it, 0: none
	// needs must all load. Of each slice in anyOf one suffices, the first that loads.
	needs []program
	anyOf [][]program
	extra []program // load where the kernel has the hook
	limit string    // what this way of seeing does not cover
	// option is nil for what is always seen.
	option func(Options) bool
	wanted func(Config) bool // the same, for what is no option
}

// off says that nobody wants the class.
func (c cover) off(cfg Config) bool {
	return c.option != nil && !c.option(cfg.Options) || c.wanted != nil && !c.wanted(cfg)
}

var (
	progExits = program{name: "on_sys_exit", hook: "tp_btf/sys_exit"}
	progTasks = program{name: "list_tasks", hook: "iter/task"}
)

func lsm(hook string) program { return program{name: "on_" + hook, hook: "lsm/" + hook} }

// switchedOff is the reason for a class that nobody wants.
const switchedOff = "switched off by the configuration"

// coversOf joins what the parts of the probe cover in a mode.
func coversOf(mode Mode) []cover {
	if mode == ModeTracepoint {
		return slices.Concat(guardTracepoint, processTracepoint, fileTracepoint, mountTracepoint, networkTracepoint, dnsCovers, memoryTracepoint, kernelTracepoint)
	}
	return slices.Concat(guardLSM, processLSM, fileLSM, mountLSM, networkLSM, dnsCovers, memoryLSM, kernelLSM)
}

// digestHooks says which digests the agent makes itself, of files that the
// hooks of other classes have told of.
func digestHooks(cfg Config, mode Mode) []*record.Hook {
	const limit = "of files up to digest-bytes on local file systems that were mounted outside user namespaces, and of those that are still there unchanged when their turn comes; of one changed less than two seconds before it is certain only if it can be read again then, and of one on Btrfs, or in the upper layer of overlayfs (before Linux 6.5: in any), never"
	program := &record.Hook{Class: uint32(record.ClassProcessDigest), Error: switchedOff}
	written := &record.Hook{Class: uint32(record.ClassFileDigest), Error: switchedOff}
	if cfg.DigestBytes > 0 {
		program.Name, program.Error = "agent", limit
	}
	switch {
	case mode == ModeTracepoint:
		written.Error = "the end of written files is not seen"
	case cfg.DigestBytes > 0 && cfg.Options.Digests:
		written.Name, written.Error = "agent", limit
	}
	return []*record.Hook{program, written}
}

// tellDigests seals the hooks record again when digests end, or begin again.
func (p *Probe) tellDigests(reading bool, sink Sink) {
	h := &record.Hooks{Os: p.hooks.Os, Architecture: p.hooks.Architecture, Kernel: p.hooks.Kernel, Mode: p.hooks.Mode, Commands: p.hooks.Commands}
	for _, x := range p.hooks.Hooks {
		c := record.Class(x.Class)
		if !reading && x.Name != "" && (c == record.ClassProcessDigest || c == record.ClassFileDigest) {
			x = &record.Hook{Class: x.Class, Error: "no file is read: too many reads of file systems that do not answer are waited for"}
		}
		h.Hooks = append(h.Hooks, x)
	}
	p.cfg.Log.WarnContext(context.Background(), "file systems do not answer, or do again", "digests", reading)
	payload, err := record.Encode(h)
	if err != nil {
		p.cfg.Log.ErrorContext(context.Background(), "hooks record cannot be made", "error", err)
		return
	}
	sink.Observe(record.Header{Class: record.ClassAgentHooks, Lane: record.NoLane, Time: bootTime()}, payload)
}

// uncovered are the classes that guests may report and this probe does not,
// with the reason.
var uncovered = []struct {
	class record.Class
	why   string
}{
	{record.ClassNetworkDrop, "told by the host's packet filter"},
}

// required are the events without which mode lsm is not worth its name.
var required = []bpf.ProbeEventType{
	bpf.ProbeEventTypeEV_CREATE, bpf.ProbeEventTypeEV_WRITE, bpf.ProbeEventTypeEV_RENAME, bpf.ProbeEventTypeEV_UNLINK,
}

func joined(programs []program) string {
	var names []string
	for _, p := range programs {
		if !slices.Contains(names, p.hook) {
			names = append(names, p.hook)
		}
	}
	return strings.Join(names, ",")
}
