package probe

import (
	"strings"

	"github.com/provostd/provost/chain/record"
)

var (
	progSysctl         = program{name: "on_sysctl", hook: "cgroup/sysctl"}
	progGuardKill      = program{name: "guard_task_kill", hook: "lsm/task_kill"}
	progGuardOwner     = program{name: "guard_sigio", hook: "lsm/file_send_sigiotask"}
	progGuardTrace     = program{name: "guard_ptrace", hook: "lsm/ptrace_access_check"}
	progGuardBPF       = program{name: "guard_bpf", hook: "lsm/bpf"}
	progGuardLimit     = program{name: "guard_setrlimit", hook: "lsm/task_setrlimit"}
	progGuardScheduler = program{name: "guard_setscheduler", hook: "lsm/task_setscheduler"}
	progGuardNice      = program{name: "guard_setnice", hook: "lsm/task_setnice"}
	progGuardDisk      = program{name: "guard_setioprio", hook: "lsm/task_setioprio"}
	progGuardMemory    = program{name: "guard_movememory", hook: "lsm/task_movememory"}
	progHolders        = program{name: "list_holders", hook: "iter/bpf_map"}
)

var paramChange = cover{class: record.ClassKernelParamChange, needs: []program{progSysctl},
	limit: "what is written to other files of /proc and /sys is told as file events; a program of another on the same hook may change the value behind it"}

// The guards come first: of several programs on one hook the kernel runs the
// newest first, so that what they refuse has been told by the others.
var guardLSM = []cover{
	paramChange,
	{class: record.ClassAgentTamper, needs: []program{progGuardKill, progGuardOwner, progGuardTrace, progGuardBPF},
		extra: []program{progSysctl, progGuardLimit, progGuardScheduler, progGuardNice, progGuardDisk, progGuardMemory},
		limit: "signals that the kernel itself sends (sysrq, cgroup.kill, out of memory) or that a BPF program does, frozen control groups, limits of the agent's control group " +
			"and its oom_score_adj are not refused: they show as file events and as silence"},
}

var guardTracepoint = []cover{
	paramChange,
	{class: record.ClassAgentTamper, needs: []program{progSysctl},
		limit: "only kernel.ftrace_enabled = 0 is refused: signals, tracing and access to the agent's objects are not, and show as silence or by the checks"},
}

// unprotected is what the hooks record adds where the configuration says so.
const unprotected = "nothing is refused: switched off by the configuration"

func (p *Probe) disclaim(h *record.Hook) {
	if record.Class(h.Class) == record.ClassAgentTamper && !p.cfg.Protect {
		h.Error = strings.TrimPrefix(h.Error+"; "+unprotected, "; ")
	}
}
