/* SPDX-License-Identifier: GPL-2.0 */
/* Acts upon another process's memory and registers, and what it has open. */
#pragma once

#include "calls.h"
#include "file.h"
#include "syscall.h"

#define NR_ptrace 101
#define NR_process_vm_readv 310
#define NR_process_vm_writev 311
#define NR_pidfd_getfd 438

#define PTRACE_TRACEME 0
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define PTRACE_MODE_ATTACH 2
#define FMODE_WRITE 2

struct traced_key {
	__u64 start, target_start;
	__u64 request;
	__u32 tgid, target_tgid;
	__u32 how;
	__u32 pad;
};

/* What one process does to another again and again is told once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct traced_key);
	__type(value, __u8);
} traced SEC(".maps");

static __always_inline void aim(struct event_target *e, struct task_struct *target)
{
	e->tgid = BPF_CORE_READ(target, tgid);
	e->tid = BPF_CORE_READ(target, pid);
	e->start = BPF_CORE_READ(target, group_leader, start_boottime);
	bpf_core_read(&e->comm, sizeof(e->comm), &target->comm);
}

static __always_inline void tell_target(struct event_target *e, bool once, __u32 flags)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u8 one = 1;

	if (left_out(EV_TRACE))
		return;
	head(&e->h, EV_TRACE, t);
	if (once) {
		struct traced_key key = { .start = e->h.start, .target_start = e->start, .request = e->request,
					  .tgid = e->h.tgid, .target_tgid = e->tgid, .how = e->how };

		if (bpf_map_lookup_elem(&traced, &key))
			return;
		bpf_map_update_elem(&traced, &key, &one, BPF_ANY);
	}
	if (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT)
		flags |= FL_COMPAT;
	emit(e, flags, RING_CRIT);
}

/* One hook for all ways into another process; which it is tells the call. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(on_ptrace_access, struct task_struct *child, unsigned int mode, int ret)
{
	struct event_target e = {};
	struct called x;
	bool once = true;

	if (ret || !(mode & PTRACE_MODE_ATTACH))
		return 0;
	called(&x);
	e.how = TRACE_OTHER;
	switch (x.number) {
	case NR_ptrace:
		e.how = TRACE_ATTACH;
		e.request = x.a;
		if (x.a == PTRACE_SEIZE)
			e.how = TRACE_SEIZE;
		once = false;
		break;
	case NR_process_vm_readv:
		e.how = TRACE_VM_READ;
		break;
	case NR_process_vm_writev:
		e.how = TRACE_VM_WRITE;
		break;
	case NR_pidfd_getfd:
		e.how = TRACE_GETFD;
		e.request = x.b;
		once = false;
		break;
	case NR_open:
	case NR_openat:
	case NR_openat2:
	case 0: /* read: files of /proc that only show something; mem is told when it is opened */
	case 17: /* pread64 */
	case 19: /* readv */
		return 0;
	default:
		e.request = x.number;
	}
	aim(&e, child);
	tell_target(&e, once, 0);
	return 0;
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(on_ptrace_traceme, struct task_struct *parent, int ret)
{
	struct event_target e = { .how = TRACE_ME };

	if (ret)
		return 0;
	aim(&e, parent);
	tell_target(&e, false, 0);
	return 0;
}

/* Requests to a process that is attached. */
static __always_inline void tell_request(struct task_struct *child, __u64 request, __u64 address)
{
	struct event_target e = { .how = TRACE_REQUEST, .request = request, .address = address };

	aim(&e, child);
	tell_target(&e, true, 0);
}

SEC("fentry/arch_ptrace")
int BPF_PROG(on_ptrace_request, struct task_struct *child, long request, unsigned long address)
{
	tell_request(child, request, address);
	return 0;
}

SEC("fentry/compat_arch_ptrace")
int BPF_PROG(on_ptrace_compat, struct task_struct *child, int request, unsigned int address)
{
	tell_request(child, (__u32)request, (__u32)address);
	return 0;
}

static __always_inline struct task_struct *task_of(struct pid *pid)
{
	struct hlist_node *n;

	if (!pid)
		return 0;
	bpf_core_read(&n, sizeof(n), &pid->tasks[0].first);
	if (!n)
		return 0;
	return (struct task_struct *)((void *)n - bpf_core_field_offset(struct task_struct, pid_links));
}

/* The process of a pidfd: since 6.9 in its inode. */
static __always_inline struct pid *pid_of(struct file *f)
{
	struct pid *p = BPF_CORE_READ(f, private_data);

	return p ?: BPF_CORE_READ(f, f_inode, i_private);
}

/* /proc/PID/mem, opened to be written. */
SEC("fentry/mem_open")
int BPF_PROG(on_mem_open, struct inode *inode, struct file *f)
{
	struct event_target e = { .how = TRACE_MEM };
	struct proc_inode *p = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	struct task_struct *target;

	if (!(BPF_CORE_READ(f, f_mode) & FMODE_WRITE))
		return 0;
	target = task_of(BPF_CORE_READ(p, pid));
	if (!target)
		return 0;
	aim(&e, target);
	tell_target(&e, false, 0);
	return 0;
}

/* Where only the ends of calls are to be had: the target is what the caller
 * named, which says nothing when that is not in the first pid namespace. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_traced, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task(), *target;
	struct event_target e = {};
	unsigned long a = BPF_CORE_READ(regs, di), b = BPF_CORE_READ(regs, si);
	struct file *f;
	bool once = true;

	switch (BPF_CORE_READ(regs, orig_ax)) {
	case NR_ptrace:
		e.how = TRACE_REQUEST;
		e.request = a;
		e.address = BPF_CORE_READ(regs, dx);
		if (a == PTRACE_TRACEME) {
			e.how = TRACE_ME;
			aim(&e, BPF_CORE_READ(t, real_parent));
			goto told;
		}
		if (a == PTRACE_ATTACH)
			e.how = TRACE_ATTACH;
		if (a == PTRACE_SEIZE)
			e.how = TRACE_SEIZE;
		once = e.how == TRACE_REQUEST;
		e.tid = b;
		break;
	case NR_process_vm_readv:
		e.how = TRACE_VM_READ;
		e.tid = a;
		break;
	case NR_process_vm_writev:
		e.how = TRACE_VM_WRITE;
		e.tid = a;
		break;
	case NR_pidfd_getfd:
		e.how = TRACE_GETFD;
		e.request = b;
		once = false;
		f = file_of(t, a);
		target = f ? task_of(pid_of(f)) : 0;
		if (target)
			aim(&e, target);
		break;
	}
	if (!e.tgid && BPF_CORE_READ(t, thread_pid, level) == 0)
		e.tgid = e.tid;
told:
	if (failed(ret)) {
		e.h.arg = -ret;
		once = false;
	}
	tell_target(&e, once, FL_RESULT);
	return 0;
}
