/* SPDX-License-Identifier: GPL-2.0 */
/* The system call that current is in: its number and arguments, for hooks that
 * are told only what is done and not how. A kernel thread that works for a
 * process is in none, and what stands in its registers means nothing. */
#pragma once

#include "maps.h"

#define NO_CALL -1

struct called {
	long number; /* of x86-64, also for a call of a 32-bit program */
	bool compat;
	unsigned long a, b, c, d, e;
};

/* native maps the few numbers of i386 that hooks ask for. */
static __always_inline long native(long number)
{
	switch (number) {
	case 3:
		return 0; /* read */
	case 5:
		return 2; /* open */
	case 26:
		return 101; /* ptrace */
	case 45:
		return 12; /* brk */
	case 90:
	case 192:
		return 9; /* mmap */
	case 125:
		return 10; /* mprotect */
	case 163:
		return 25; /* mremap */
	case 295:
		return 257; /* openat */
	case 336:
		return 298; /* perf_event_open */
	case 347:
		return 310; /* process_vm_readv */
	case 348:
		return 311; /* process_vm_writev */
	case 350:
		return 313; /* finit_module */
	case 356:
		return 319; /* memfd_create */
	case 357:
		return 321; /* bpf */
	case 374:
		return 323; /* userfaultfd */
	case 380:
		return 329; /* pkey_mprotect */
	}
	/* From 424 on the numbers are the same. */
	return number >= 424 ? number : NO_CALL;
}

static __always_inline void called(struct called *x)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct pt_regs *r = registers();

	x->number = BPF_CORE_READ(r, orig_ax);
	x->compat = BPF_CORE_READ(t, thread_info.status) & TS_COMPAT;
	if (x->compat) {
		x->number = native(x->number);
		x->a = BPF_CORE_READ(r, bx);
		x->b = BPF_CORE_READ(r, cx);
		x->c = BPF_CORE_READ(r, dx);
		x->d = BPF_CORE_READ(r, si);
		x->e = BPF_CORE_READ(r, di);
		return;
	}
	x->a = BPF_CORE_READ(r, di);
	x->b = BPF_CORE_READ(r, si);
	x->c = BPF_CORE_READ(r, dx);
	x->d = BPF_CORE_READ(r, r10);
	x->e = BPF_CORE_READ(r, r8);
}
