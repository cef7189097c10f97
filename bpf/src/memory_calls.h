/* SPDX-License-Identifier: GPL-2.0 */
/* Address spaces where only the ends of system calls are to be had: what a
 * mapping allowed before is not known any more then. */
#pragma once

#include "memory.h"
#include "syscall.h"

#define NEXT_mmap 511 /* no number of a call; the same in user space */

/* End of each image's heap when it was seen last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct map_key);
	__type(value, __u64);
} heaps SEC(".maps");

SEC("tp_btf/sys_exit")
int BPF_PROG(on_mapped_code, struct pt_regs *regs, unsigned long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	unsigned long flags = BPF_CORE_READ(regs, r10);
	struct file *f = 0;

	if (is_error(ret))
		return 0;
	if (!(flags & MAP_ANONYMOUS))
		f = file_of(t, BPF_CORE_READ(regs, r8));
	if (f || (flags & MAP_ANONYMOUS))
		tell_mapping(f, ret, BPF_CORE_READ(regs, si), BPF_CORE_READ(regs, dx), flags);
	/* What is written through a mapping is told by another. */
	bpf_tail_call(ctx, &exit_calls, NEXT_mmap);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_protected, struct pt_regs *regs, long ret)
{
	struct memory_act a = { .known = true };

	if (ret)
		return 0;
	a.address = BPF_CORE_READ(regs, di);
	a.length = BPF_CORE_READ(regs, si);
	a.protection = BPF_CORE_READ(regs, dx) & (PROT_READ | PROT_WRITE | PROT_EXEC);
	tell_protect(&a);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_memory_file, struct pt_regs *regs, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct memory_act a = { .type = EV_MEMFD, .kind = MEM_MEMFD, .known = true };

	if (failed(ret))
		return 0;
	a.flags = BPF_CORE_READ(regs, si) & 0xffffffff;
	if (BPF_CORE_READ(regs, orig_ax) == NR_memfd_secret) {
		a.kind = MEM_SECRET;
		a.flags = BPF_CORE_READ(regs, di) & 0xffffffff;
	}
	a.file = file_of(t, ret);
	tell_memory(&a);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_grown, struct pt_regs *regs, unsigned long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct memory_act a = { .type = EV_ALLOCATE, .kind = MEM_BRK, .protection = PROT_READ | PROT_WRITE, .known = true };
	struct map_key key = {};
	__u64 now = (ret + PAGE - 1) & ~(PAGE - 1), *was;

	if (is_error(ret))
		return 0;
	if (BPF_CORE_READ(regs, orig_ax) == NR_mremap) {
		tell_remap(BPF_CORE_READ(regs, di), BPF_CORE_READ(regs, si), BPF_CORE_READ(regs, dx), BPF_CORE_READ(regs, r10), ret);
		return 0;
	}
	key.start = BPF_CORE_READ(t, group_leader, start_boottime);
	key.image = BPF_CORE_READ(t, self_exec_id);
	key.tgid = BPF_CORE_READ(t, tgid);
	was = bpf_map_lookup_elem(&heaps, &key);
	if (was && now > *was && large(now - *was)) {
		a.address = *was;
		a.length = now - *was;
		tell_memory(&a);
	}
	bpf_map_update_elem(&heaps, &key, &now, BPF_ANY);
	return 0;
}
