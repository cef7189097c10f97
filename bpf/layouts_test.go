package bpf

import "reflect"

// layouts are the structures that both sides read.
var layouts = map[string]reflect.Type{
	"event_head":      reflect.TypeFor[ProbeEventHead](),
	"event_task":      reflect.TypeFor[ProbeEventTask](),
	"event_exec":      reflect.TypeFor[ProbeEventExec](),
	"event_fork":      reflect.TypeFor[ProbeEventFork](),
	"event_exit":      reflect.TypeFor[ProbeEventExit](),
	"event_creds":     reflect.TypeFor[ProbeEventCreds](),
	"event_comm":      reflect.TypeFor[ProbeEventComm](),
	"event_namespace": reflect.TypeFor[ProbeEventNamespace](),
	"event_target":    reflect.TypeFor[ProbeEventTarget](),
	"event_cgroup":    reflect.TypeFor[ProbeEventCgroup](),
	"event_file":      reflect.TypeFor[ProbeEventFile](),
	"file_times":      reflect.TypeFor[ProbeFileTimes](),
	"event_close":     reflect.TypeFor[ProbeEventClose](),
	"event_rename":    reflect.TypeFor[ProbeEventRename](),
	"event_mount":     reflect.TypeFor[ProbeEventMount](),
	"event_net":       reflect.TypeFor[ProbeEventNet](),
	"event_unix":      reflect.TypeFor[ProbeEventUnix](),
	"event_dns":       reflect.TypeFor[ProbeEventDns](),
	"event_memory":    reflect.TypeFor[ProbeEventMemory](),
	"event_kernel":    reflect.TypeFor[ProbeEventKernel](),
	"event_auth":      reflect.TypeFor[ProbeEventAuth](),
	"event_tamper":    reflect.TypeFor[ProbeEventTamper](),
	"event_aggregate": reflect.TypeFor[ProbeEventAggregate](),
	"cpu_stats":       reflect.TypeFor[ProbeCpuStats](),
	"config":          reflect.TypeFor[ProbeConfig](),
	"owned_key":       reflect.TypeFor[ProbeOwnedKey](),
	"switches":        reflect.TypeFor[ProbeSwitches](),
	"held":            reflect.TypeFor[ProbeHeld](),
}
