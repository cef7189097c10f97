// Package probe turns what happens in this guest into records. It promises
// that every observation its programs made is either given to the Sink or
// counted as lost there, by lane and class, and that Hooks says truthfully
// which class of event is covered by which kernel hook.
//
// The kernel programs are package bpf's. Records come out of two rings, one
// that storms cannot fill and one for the bulk, and are put into the order of
// their times, so that an event of a process is told with the image that made it.
// A lane is a ring on one CPU; each carries a sequence that the kernel counts
// before it looks for room, so that nothing can get lost without a hole.
//
// There are two modes. In mode lsm events come from BPF LSM and functions of the
// kernel: kernel objects. In mode tracepoint, where the kernel does not let BPF
// LSM programs load, or does not call them, they come from the ends of system
// calls. Mode auto tries the first and proves by a canary that the hooks fire:
// on a kernel that was booted without bpf among its security modules all
// programs load, attach, and are never called. docs/coverage.md has the hooks
// of every class in both modes.
//
// While it runs, a canary acts every few seconds, and the probe says which hooks
// did not see it; acts against this process are refused as far as the kernel
// lets it (Config.Protect, Probe.Release).
package probe
