// Package bpf holds the guest probe's kernel programs: their C source in src,
// and the packed objects and Go types that are made of it, both committed. It
// promises that a plain go build needs no compiler for BPF, and that the
// layouts in Go are those of the object (generate_test.go makes both again and
// compares). Only guestagent/probe imports it.
//
// One object holds all programs, and a second one (Old) the same for kernels
// before 5.12, which lack atomic operations that give a value back. Which of the
// programs a kernel can run differs, so they are loaded one by one, into the
// same maps:
//
//	process.h  exec, fork, exit on the scheduler's tracepoints; the listing of
//	           what runs already
//	namespace.h, creds.h  what processes may do, and where: credentials, roots,
//	           namespaces, signals
//	cgroup.h   control groups, for the agent
//	auth.h     logins, as audit is told of them
//	lsm.h      files, on the hooks of BPF LSM
//	net.h      sockets: what their sources share
//	net_lsm.h  sockets, on functions of the kernel and hooks of BPF LSM
//	net_call.h sockets, from the ends of system calls
//	net_cgroup.h packets: datagrams without LSM, and DNS
//	attr.h     what files carry besides their content
//	written.h  writes: the first, and the sum at the end
//	mount.h    mounts
//	acts.h     what a thread is about to do
//	call.h, calls.h  the system call that a task is in
//	memory.h   address spaces: what may be executed, and growth
//	memory_calls.h  the same, from the ends of system calls
//	trace.h    acts upon another process
//	control.h  acts upon the kernel: modules, programs, parameters
//	guard.h    acts against the agent, refused and told
//	init.h     the first process, which may end the agent when it goes down
//	task.h     what is read of a task
//	syscall.h  files where there is no BPF LSM, from the ends of system calls
//	sum.h      acts that are told as sums
//	budget.h   processes that do more than they may before that
//	path.h     names of files by a walk over dentries and mounts
//	maps.h     rings, counters, and the way out for every event
//	pack.h     events as they stand in a ring, without the words that are zero
//	event*.h   layouts, shared with Go
//	kernel.h   the kernel's own types, as far as they are read
//
// The objects carry the licence string GPL, because the kernel gives the
// helpers they use to no others; the sources are GPL-2.0.
package bpf

//go:generate go run ./generate -dir .
