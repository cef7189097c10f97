package bpf

import "unsafe"

var layouts = map[string]uintptr{
	"event_head":   unsafe.Sizeof(ProbeEventHead{}),
	"event_task":   unsafe.Sizeof(ProbeEventTask{}),
	"event_exec":   unsafe.Sizeof(ProbeEventExec{}),
	"event_fork":   unsafe.Sizeof(ProbeEventFork{}),
	"event_exit":   unsafe.Sizeof(ProbeEventExit{}),
	"event_file":   unsafe.Sizeof(ProbeEventFile{}),
	"event_rename": unsafe.Sizeof(ProbeEventRename{}),
	"event_net":    unsafe.Sizeof(ProbeEventNet{}),
	"cpu_stats":    unsafe.Sizeof(ProbeCpuStats{}),
	"config":       unsafe.Sizeof(ProbeConfig{}),
}
