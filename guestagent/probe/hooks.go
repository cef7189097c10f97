package probe

import (
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
	const limit = "of files up to digest-bytes on local file systems, and of those that are still there unchanged when their turn comes; of one changed less than two seconds before it is certain only if it can be read again then"
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
